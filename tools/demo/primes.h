/* SPDX-License-Identifier: GPL-2.0 */
/* What the demo and its guest agree on. */
#ifndef TOOLS_DEMO_PRIMES_H
#define TOOLS_DEMO_PRIMES_H

#define LIMIT	20000	/* the guest's primes are below this */
#define PORT	0xe9	/* where it prints */
#define STOP	0x8000	/* a word that ends it, when not zero */

#endif
