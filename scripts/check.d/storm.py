# SPDX-License-Identifier: GPL-2.0
"""make storm: tools/testing/storm_test in the emulated host, with one seed after the other.

A host for some minutes, then the next one, until the time is over or one fails. The last
line says how to have that one again.
"""

import argparse
import random
import subprocess
import sys
import time

import build

_ROUNDS_AT_MOST = 1500
# of a host with four CPUs on two cores
_ROUNDS_A_MINUTE = {"stock-6.1": 300, "stock-6.12": 200, "debug-6.1": 12}
# how much longer it may take before it counts as hung
_PATIENCE = 6


def _arguments():
    parser = argparse.ArgumentParser(prog="storm", allow_abbrev=False, description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="(default 10)")
    parser.add_argument("--kernel", choices=_ROUNDS_A_MINUTE, default="stock-6.1")
    parser.add_argument("--cpus", type=int, default=4, metavar="N", help="(default 4)")
    parser.add_argument("--rounds", type=int, metavar="N", help="one host only, for N rounds")
    parser.add_argument("--seed", type=int, metavar="N", help="the first one (default: any)")
    return parser.parse_args()


def _run(given, overlay, rounds, seed):
    timeout = 400 + int(_PATIENCE * 60 * rounds / _ROUNDS_A_MINUTE[given.kernel])
    return subprocess.run(
        [build.TESTHOST, "--kernel", given.kernel, "--cpus", str(given.cpus), "--overlay", overlay,
         "--timeout", str(timeout), "--", "/overlay/storm_test", f"rounds={rounds}", f"seed={seed}"],
        check=False).returncode


def main():
    given = _arguments()
    overlay = build.overlay("storm_test")
    seed = random.randrange(1 << 31) if given.seed is None else given.seed
    end = time.monotonic() + 60 * given.minutes
    hosts = turns = 0
    while not hosts or (given.rounds is None and time.monotonic() < end):
        left = max(1, (end - time.monotonic()) / 60)
        rounds = given.rounds or min(_ROUNDS_AT_MOST, int(left * _ROUNDS_A_MINUTE[given.kernel]))
        sys.stdout.flush()
        if status := _run(given, overlay, rounds, seed):
            print(f"storm: FAILED; again: scripts/storm --kernel {given.kernel} "
                  f"--cpus {given.cpus} --rounds {rounds} --seed {seed}")
            sys.exit(status)
        hosts, turns, seed = hosts + 1, turns + rounds, seed + 1
    print(f"storm: ok, {turns} rounds in {hosts} hosts")


main()
