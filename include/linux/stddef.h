/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The user ABI's own header, whose flexible arrays are C only before Linux 6.7: they come with an empty
 * structure, which in C++ has a size. The structures of <linux/kvm.h> that end in one, and the numbers of
 * their ioctls with them, would be others than C programs have.
 */
#include_next <linux/stddef.h>

#ifdef __cplusplus
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(type, name) type name[0]
#endif
