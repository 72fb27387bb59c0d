# SPDX-License-Identifier: GPL-2.0
"""make bench: kvmpp side by side with kvm_intel, in emulated hosts.

The same programs (tools/testing/bench_*_test, qemu_test) run on kvm_intel and on kvmpp, in turns,
in one host of one CPU, and in one of two; both with mitigations=off and with Linux's defaults. What
a dedicated CPU is worth is measured in a host of four. A run fails where something could not be
measured, or a dedicated CPU's guest has an exit that must not be; the numbers are only shown, in the
tables of bench_table.py.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import bench_table
import build
import kernels
from bench_table import DEDICATED, DEFAULTS, FLOOR, KVM, KVMPP, MEASURED_FOUR, OFF, SIZE
from build import TESTHOST, module
from tools import run

_PROGRAMS = ("bench_exit_test", "bench_life_test", "bench_dedicated_test", "qemu_test")
# "on COLUMN COMMAND..." runs it with that one's module, which it is told of beforehand
_ON = f"""
PATH=/overlay:$PATH
status=0
on() {{
	module=kvmpp
	[ "$1" = "{KVM}" ] && module=kvm_intel
	echo "# column $1"
	shift
	modprobe $module $module_args || exit
	export KVM_DEVICE=/dev/${{module%_intel}}
	for command; do
		$command || status=1
	done
	rmmod $module || exit
}}
"""
_FLOOR = f"""
modprobe vmx_floor || exit
echo "# column {FLOOR}"
for what in bare least; do
	echo "# measured floor.$what $(cat /sys/module/vmx_floor/parameters/$what)"
done
rmmod vmx_floor
"""
_TURNS = """
for turn in $(seq {turns}); do
	on "{KVM}" {commands}
	on "{KVMPP}" {commands}
done
"""
_DEDICATED = f"""
on "{KVM}" bench_dedicated_test
module_args=preemption_timer=0
on "{KVM}" "bench_dedicated_test tick_delay_computing_by_interrupt"
module_args=
export BENCH_PLACE=ordinary
on "{KVMPP}" bench_dedicated_test
unset BENCH_PLACE
export BENCH_EVENTS={{events}}
on "{DEDICATED}" bench_dedicated_test
"""


@dataclasses.dataclass
class Host:
    name: str
    table: str
    script: str
    options: list


def _turns(turns, *commands):
    return _TURNS.format(turns=turns, KVM=KVM, KVMPP=KVMPP,
                         commands=" ".join(f'"{command}"' for command in commands))


def _hosts(quick):
    turns, samples, events = (1, 2, 20) if quick else (3, 8, 1000)
    hosts = []
    for table, cmdline in (((DEFAULTS, ""),) if quick else ((OFF, "mitigations=off"), (DEFAULTS, ""))):
        begin = f"{_ON}export BENCH_SAMPLES={samples}\n"
        one = (begin + _FLOOR + _turns(turns, "bench_exit_test", "bench_life_test make_run_destroy memory"))
        options = ["--cmdline", cmdline]
        if not quick:
            one += _turns(1, "qemu_test instructions_to_init")
            options += ["--qemu", "10.0", "--memory", "1536"]
        hosts += [Host("one CPU", table, one + "exit $status\n", ["--cpus", "1", *options]),
                  Host("two CPUs", table,
                       begin + _turns(turns, "bench_life_test moved kick cpu_offline") + "exit $status\n",
                       ["--cpus", "2", "--cmdline", cmdline])]
    # without highres=on KVM's timers would be as coarse as the host's tick
    four = (f"{_ON}export BENCH_SAMPLES={4 if quick else 100} BENCH_EVENTS={events}\n"
            + _DEDICATED.format(events=300 if quick else events) + "exit $status\n")
    hosts.append(Host("four CPUs", MEASURED_FOUR, four,
                      ["--cpus", "4", "--cmdline", "no_ipi_broadcast=1 highres=on"]))
    return hosts


def _run(host, overlay, measured):
    """Adds what is measured: (table, column, what) to a list with the numbers of each run."""
    name = f"{host.name}, {host.table}"
    print(f"{name}: a host boots...", flush=True)
    process = subprocess.Popen(
        [TESTHOST, "--no-insmod", "--timeout", "1800", "--overlay", overlay, *host.options, "--", "sh", "-c",
         host.script],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace")
    column = None
    for line in process.stdout:
        line = line.rstrip()
        if found := re.match(r"# column (.*)", line):
            column = found[1]
            print(f"{name}: {column}", flush=True)
        elif found := re.match(r"# measured (\S+) (.*)", line):
            numbers = [float(number) for number in found[2].split()]
            measured.setdefault((host.table, column, found[1]), []).append(numbers)
        elif not re.match(r"KTAP version|1\.\.\d|ok |$", line):
            print(f"  {line}", flush=True)
    return process.wait() == 0


def _sizes():
    """Bytes of code and data, as size tells them: text, data and bss."""
    def of(*files):
        return sum(int(line.split()[3]) for line in run(["size", *files]).splitlines()[1:])

    kernel = kernels.get("stock-6.1")
    with tempfile.TemporaryDirectory() as directory:
        ours = pathlib.Path(directory) / "kvmpp.ko"
        module.copy_unstripped(kernel, ours)
        theirs = [next(kernel.modules.rglob(name)) for name in ("kvm.ko", "kvm-intel.ko")]
        return {KVM: of(*theirs), KVMPP: of(ours)}


def main():
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the tables to FILE, too")
    parser.add_argument("--quick", action="store_true",
                        help="only to see that it runs: tiny counts, Linux's defaults, no QEMU")
    given = parser.parse_args()

    overlay = build.overlay(*_PROGRAMS)
    measured = {}
    failed = [f"{host.name}, {host.table}" for host in _hosts(given.quick)
              if not _run(host, overlay, measured)]
    for column, size in _sizes().items():
        for table in (OFF, DEFAULTS):
            measured[table, column, SIZE] = [[size]]
    tables = bench_table.tables(measured, given.quick)
    for table in tables:
        table.show()
    print(bench_table.NOTES)
    if given.json:
        pathlib.Path(given.json).write_text(
            json.dumps({"kernel": kernels.get("stock-6.1").version, "tables": [table.data() for table in tables]},
                       indent=2, ensure_ascii=False) + "\n")
    missing = [text for table in tables for text in table.missing()]
    for text in missing:
        print(f"not measured: {text}")
    print(f"bench: FAILED: {', '.join(failed) or 'not all was measured'}" if failed or missing
          else "bench: ok")
    sys.exit(bool(failed or missing))


main()
