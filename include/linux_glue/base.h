/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every glue header needs: one spelling of the integer types for C and C++, and C linkage.
 * A glue header declares what virt/linux/ does with the kernel for the C++ above it; it includes no
 * kernel header, so that C++ can read it.
 */
#ifndef LINUX_GLUE_BASE_H
#define LINUX_GLUE_BASE_H

#ifdef __cplusplus
#define GLUE_BEGIN extern "C" {
#define GLUE_END   }
#else
#define GLUE_BEGIN
#define GLUE_END
#include <linux/types.h>
#endif

/* The context of a function, for clang's analysis of the C++; C has lockdep. */
#ifdef __cplusplus
#include "include/kvmpp/contexts.hpp"
#else
#define MAY_SLEEP
#define WAITS_FOR_IPIS
#define NEEDS_IRQS_OFF
#endif

typedef unsigned char glue_u8;
typedef unsigned short glue_u16;
typedef unsigned int glue_u32;
#ifdef __cplusplus
#include <cstddef>
#include <cstdint>
typedef std::uint64_t glue_u64;
typedef std::size_t glue_size;
#else
typedef __UINT64_TYPE__ glue_u64;
typedef size_t glue_size;
#endif

#endif
