/* SPDX-License-Identifier: GPL-2.0 */
#include "layout.h"

/* A label that the test programs see, as guest::FILE::NAME. */
.macro entry name
.globl \name
\name:
.endm
