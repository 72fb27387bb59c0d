/* SPDX-License-Identifier: GPL-2.0 */
/* A line to a pin of an interrupt controller, which several may hold up. */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp
{

/* Who holds a line: it is up while any of them holds it up. */
enum class IrqSource : u8 { user, resample, pit };

class IrqLine
{
public:
	/* Whether it is up then. */
	bool set(IrqSource source, bool level)
	{
		u8 bit = static_cast<u8>(1 << static_cast<unsigned>(source));

		held_ = static_cast<u8>(level ? held_ | bit : held_ & ~bit);
		return held_ != 0;
	}

private:
	u8 held_ = 0;
};

} // namespace kvmpp
