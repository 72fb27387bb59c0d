# SPDX-License-Identifier: GPL-2.0
"""make demo: tools/demo in an emulated Intel host of four CPUs, with a stock kernel."""

import os
import sys

import build

overlay = build.make("tools/demo", "demo")
sys.stdout.flush()
# Why no_ipi_broadcast=1: see scripts/demo.
os.execv(build.TESTHOST, [build.TESTHOST, "--no-insmod", "--overlay", overlay, "--cpus", "4",
                          "--cmdline", "no_ipi_broadcast=1",
                          "--timeout", "240", "--", "/overlay/demo"])
