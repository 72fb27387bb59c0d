/* SPDX-License-Identifier: GPL-2.0 */
/* Structures of ioctls, to and from the VMM. */
#pragma once

#include "include/kvmpp/result.hpp"

#include <linux_glue/memory.h>

namespace kvmpp
{

/* Errno::fault. May sleep. */
template <class T> Result<> copy_from_user(T &to, unsigned long from) MAY_SLEEP
{
	return from_errno(glue_copy_from_user(&to, from, sizeof(to)));
}

template <class T> Result<> copy_to_user(unsigned long to, const T &from) MAY_SLEEP
{
	return from_errno(glue_copy_to_user(to, &from, sizeof(from)));
}

} // namespace kvmpp
