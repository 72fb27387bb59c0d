# SPDX-License-Identifier: GPL-2.0
"""make demo: tools/demo in an emulated Intel host of two CPUs, with a stock kernel."""

import os
import sys

import build

overlay = build.make("tools/demo", "demo")
sys.stdout.flush()
os.execv(build.TESTHOST, [build.TESTHOST, "--no-insmod", "--overlay", overlay, "--cpus", "2",
                          "--timeout", "240", "--", "/overlay/demo"])
