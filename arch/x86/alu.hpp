/* SPDX-License-Identifier: GPL-2.0 */
/* What arithmetic and logical instructions compute, and the flags they leave. */
#pragma once

#include "instruction.hpp"

namespace kvmpp
{

struct AluResult {
	u64 value;
	u64 rflags;
};

/*
 * Any operation from add to neg, on numbers of @size bytes; what is above them in @destination and
 * @source does not matter, and is 0 in the result. @source of the BT instructions counts modulo the
 * operand's bits. Flags that the manual leaves undefined are as Intel's CPUs have them: AF is 0
 * after logical instructions, BT changes none but CF.
 */
AluResult alu(Operation operation, unsigned size, u64 destination, u64 source, u64 rflags);

} // namespace kvmpp
