# SPDX-License-Identifier: GPL-2.0
"""make fuzz: tools/testing/fuzz_test and hostile_test in the emulated host, by default on the kernel with KASAN,
lockdep and leak detection.

Two thirds of the time are the ABI's, the rest that of guests. What was called, and what came of it, is printed as
tables; the seed repeats it. The last line is "fuzz: ok", or how to have a failure again.
"""

import argparse
import random
import subprocess
import sys

import build

_KERNELS = ["debug-6.1", "stock-6.1", "stock-6.12"]
# what boots, and what two scans of kmemleak take
_BESIDES_S = 1800
# of the machine's minutes one takes so many of ours, with several CPUs
_SLOWNESS = 4


def _arguments():
    parser = argparse.ArgumentParser(prog="fuzz", allow_abbrev=False, description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=10, metavar="N", help="of the machine's (default 10)")
    parser.add_argument("--seed", type=int, metavar="N", help="(default: any)")
    parser.add_argument("--kernel", choices=_KERNELS, default=_KERNELS[0])
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="(default 2)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the ABI's first round (default 0)")
    return parser.parse_args()


def main():
    given = _arguments()
    seed = random.randrange(1 << 31) if given.seed is None else given.seed
    abi = max(1, given.minutes * 2 // 3)
    # three modes, on CPUs of Linux's and on dedicated ones
    guests = max(1, (given.minutes - abi) // 6)
    commands = [f"fuzz_test minutes={abi} seed={seed} first={given.first}",
                f"hostile_test minutes={guests} seed={seed}"]
    if given.kernel == "debug-6.1":
        commands.append("fault_test nothing_leaked")
    overlay = build.overlay("fuzz_test", "hostile_test", "fault_test")
    print(f"fuzz: seed {seed}", flush=True)
    script = "".join(f"/overlay/{one} || status=1; " for one in commands)
    timeout = _BESIDES_S + 60 * _SLOWNESS * (abi + 6 * guests)
    status = subprocess.run(
        [build.TESTHOST, "--kernel", given.kernel, "--cpus", str(given.cpus), "--overlay", overlay,
         "--timeout", str(timeout), "--cmdline", "no_ipi_broadcast=1", "--", "sh", "-c",
         f"status=0; {script}exit $status"], check=False).returncode
    if status:
        print(f"fuzz: FAILED; again: scripts/fuzz --kernel {given.kernel} --cpus {given.cpus} "
              f"--minutes {given.minutes} --seed {seed}")
        sys.exit(status)
    print("fuzz: ok")


main()
