# SPDX-License-Identifier: GPL-2.0
"""make fuzz: tools/testing/fuzz_test and hostile_test in the emulated host, by default on the kernel with KASAN,
lockdep and leak detection.

Two thirds of the time are the ABI's, the rest that of guests. What was called, what came of it, and what code that
was, are in a table at the end; the seed repeats it. The last line is "fuzz: ok", or how to have a failure again.
"""

import argparse
import random
import re
import subprocess
import sys

import build
import coverage
import kernels
import module

_KERNELS = ["debug-6.1", "stock-6.1", "stock-6.12"]
# kmemleak goes over all of it
_MEMORY_MIB = 512
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


class _Run:
    """What the machine says."""

    def __init__(self):
        self.calls = 0
        self.reports = []
        self._tables = []
        self._coverage = coverage.Coverage()

    def watch(self, command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, errors="replace")
        for line in process.stdout:
            self._take(line.rstrip())
        return process.wait()

    def _take(self, line):
        if self._coverage.take(line):
            return
        if re.match(r"# .{32} +\d+(?: |$)|# call +calls +ok", line):
            self._tables.append(line[2:])
            return
        if found := re.match(r"# (\d+) calls in ", line):
            self.calls += int(found[1])
        if found := re.match(r"testhost: the (?:kernel|emulator) reports: (.*)", line):
            self.reports.append(found[1])
        print(line, flush=True)

    def table(self, kvmpp):
        return self._tables + self._coverage.table(kvmpp)


def main():
    given = _arguments()
    seed = random.randrange(1 << 31) if given.seed is None else given.seed
    abi = given.minutes * 40
    # three modes, on CPUs of Linux's and on dedicated ones
    guests = given.minutes * 20 // 6
    commands = [f"fuzz_test seconds={abi} seed={seed} first={given.first}",
                f"hostile_test seconds={guests} seed={seed}"]
    if given.kernel == "debug-6.1":
        commands.append("fault_test nothing_leaked")
    overlay = build.overlay("fuzz_test", "hostile_test", "fault_test")
    # what runs has no line numbers
    kvmpp = build.directory("fuzz") / "kvmpp.ko"
    module.copy_unstripped(kernels.get(given.kernel), kvmpp)
    print(f"fuzz: seed {seed}", flush=True)
    script = "".join(f"/overlay/{one} || status=1; " for one in commands)
    timeout = _BESIDES_S + _SLOWNESS * 60 * given.minutes
    run = _Run()
    status = run.watch(
        [build.TESTHOST, "--kernel", given.kernel, "--cpus", str(given.cpus), "--overlay", overlay,
         "--memory", str(_MEMORY_MIB), "--timeout", str(timeout),
         # KCOV's addresses are as without KASLR
         "--cmdline", "no_ipi_broadcast=1 nokaslr", "--", "sh", "-c",
         f"status=0; {coverage.SECTIONS}; {script}exit $status"])
    print("\n".join(run.table(kvmpp)))
    print(f"fuzz: seed {seed}, {run.calls} calls, reports: {', '.join(run.reports) or 'none'}")
    if status:
        print(f"fuzz: FAILED; again: scripts/fuzz --kernel {given.kernel} --cpus {given.cpus} "
              f"--minutes {given.minutes} --seed {seed}")
        sys.exit(status)
    print("fuzz: ok")


main()
