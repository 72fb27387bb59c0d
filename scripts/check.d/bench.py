# SPDX-License-Identifier: GPL-2.0
"""make bench: what a dedicated CPU is worth, side by side with KVM, in the emulated host.

tools/testing/bench_test runs on kvm_intel and on kvmpp, one after the other in one host of
four CPUs; and in hosts of one CPU for what an exit costs. It fails where there is an exit that
must not be; the numbers are only shown, in a table at the end.
"""

import dataclasses
import re
import subprocess
import sys

import build
from build import TESTHOST

_EVENTS, _SAMPLES, _ROUNDS = 1000, 100, 1000
# the columns; each is a run of bench_test, which the line "# column NAME" goes before
_KVM, _ORDINARY, _DEDICATED = "kvm_intel", "kvmpp, Linux's CPU", "kvmpp, dedicated CPU"
_COLUMNS = (_KVM, _ORDINARY, _DEDICATED)

_FOUR_CPUS = f"""
export BENCH_EVENTS={_EVENTS} BENCH_SAMPLES={_SAMPLES} KVM_DEVICE=/dev/kvm
status=0
modprobe kvm_intel || exit
echo "# column {_KVM}"
/overlay/bench_test || status=1
rmmod kvm_intel && modprobe kvm_intel preemption_timer=0 || exit
/overlay/bench_test tick_delay_computing_by_interrupt || status=1
rmmod kvm_intel && modprobe kvmpp || exit
export KVM_DEVICE=/dev/kvmpp
echo "# column {_ORDINARY}"
BENCH_PLACE=ordinary /overlay/bench_test computing kicks || status=1
echo "# column {_DEDICATED}"
/overlay/bench_test || status=1
exit $status
"""
_ONE_CPU = f"""
export BENCH_ROUNDS={_ROUNDS} KVM_DEVICE=/dev/kvm
status=0
modprobe kvm_intel || exit
echo "# column {_KVM}"
/overlay/bench_test exit_in_kernel exit_to_user_space fault_of_fresh_page fault_of_logged_page || status=1
rmmod kvm_intel && modprobe kvmpp || exit
export KVM_DEVICE=/dev/kvmpp
echo "# column {_ORDINARY}"
/overlay/bench_test exit_in_kernel exit_to_user_space fault_of_fresh_page fault_of_logged_page || status=1
exit $status
"""


@dataclasses.dataclass
class Host:
    name: str
    script: str
    options: list
    # (column, what) to its numbers, as bench_test says them
    measured: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Row:
    text: str
    host: str
    what: str
    # other names of it, by column, where what it is differs
    others: dict = dataclasses.field(default_factory=dict)

    def columns(self):
        """Those that must have it."""
        if self.host != _FOUR:
            return _KVM, _ORDINARY
        return (_DEDICATED,) if self.what.startswith("kicks.of_") else (_KVM, _DEDICATED)


_FOUR, _ONE_OFF, _ONE_DEFAULT = "4 CPUs", "1 CPU, mitigations=off", "1 CPU"

_HEADINGS_AND_ROWS = [
    "VM exits",
    Row("per tick of the guest's timer, computing (1)", _FOUR, "ticks_computing.exits_per_tick"),
    Row("per tick of the guest's timer, halting", _FOUR, "ticks_halting.exits_per_tick"),
    Row("per HLT, those by HLT", _FOUR, "ticks_halting.hlt_exits_per_hlt"),
    Row("per IPI, of the receiver, computing (1)", _FOUR, "ipis_computing.receivers_exits_per_ipi"),
    Row("per IPI, of the receiver, halting", _FOUR, "ipis_halting.receivers_exits_per_ipi"),
    Row("per IPI, of the sender (1)", _FOUR, "ipis_computing.senders_exits_per_ipi"),
    Row("in a second of computing, without a timer (1)", _FOUR, "computing.exits_per_second"),
    "Instructions from the interrupt's arrival to the guest's handler",
    Row("timer, computing (2)", _FOUR, "tick_delay_computing.arrival_to_handler"),
    Row("timer, computing, preemption_timer=0 (3)", _FOUR,
        "tick_delay_computing_by_interrupt.arrival_to_handler",
        {_DEDICATED: "tick_delay_computing.arrival_to_handler"}),
    Row("timer, halting (3)", _FOUR, "tick_delay_halting.arrival_to_handler"),
    Row("IPI, computing (4)", _FOUR, "ipis_computing.arrival_to_handler"),
    Row("IPI, halting (4)", _FOUR, "ipis_halting.arrival_to_handler"),
    "Instructions of an IPI's sender, from its exit to its entry",
    Row("IPI", _FOUR, "ipis_computing.senders_exit"),
    "Instructions of a kick: a signal, EINTR, and KVM_RUN again (5)",
    Row("from its arrival to the exit", _FOUR, "kicks.to_exit"),
    Row("from its arrival to the guest, on the guest's CPU", _FOUR, "kicks.to_entry"),
    Row("on the CPU of the thread, where that is another", _FOUR, "kicks.of_threads_cpu"),
    Row("on CPU 0, which wakes the thread", _FOUR, "kicks.of_cpu_0"),
    "Instructions of an exit and the next entry, on a host of one CPU (6)",
    Row("CPUID", _ONE_DEFAULT, "exits.cpuid"),
    Row("OUT to user space, and KVM_RUN", _ONE_DEFAULT, "exits.out"),
    Row("EPT violation, a fresh page", _ONE_DEFAULT, "faults.fresh"),
    Row("EPT violation, the first write for a log", _ONE_DEFAULT, "faults.logged"),
    Row("CPUID, mitigations=off", _ONE_OFF, "exits.cpuid"),
    Row("OUT to user space, and KVM_RUN, mitigations=off", _ONE_OFF, "exits.out"),
]

_NOTES = f"""\
Medians; where the least or the most of the samples is 10 % and more away, they are in parentheses.
The ratio is kvm_intel to the column furthest right. {_EVENTS} ticks and IPIs are counted; the guest's timer
ticks each 3.1 ms. kvm_intel is as it is by default, which on this CPU is without APICv: that wants posted
interrupts. With it there would be no exit for an EOI, nor for an IPI to a guest that computes.
(1) KVM, and kvmpp on a CPU of Linux's: with those by the host's own tick, 250 a second.
(2) KVM: from the exit by the VMX preemption timer, which takes the place of an interrupt.
    Dedicated CPU: from the vector in the IRR of the CPU's own APIC, here and below.
(3) KVM: from the host's timer interrupt (vector 0xec) in the IRR of that CPU's APIC.
(4) KVM: from the IPI by which Linux reaches that CPU: to a guest that computes RESCHEDULE (0xfd); to one that
    has halted what wakes its thread, CALL_FUNCTION_SINGLE (0xfb).
(5) From RESCHEDULE, or from the NMI to a dedicated CPU. Of that CPU it is all while it waits, halted, for the
    thread to call KVM_RUN again; what other CPUs execute meanwhile is counted from before the signal is sent
    until the guest is seen to go on.
(6) Without a local APIC in the kernel; with the host's own tick and the calls of the VMM, 1 % or so.
    Of OUT, some 4,400 are the flush of the L1 cache (L1TF), of both.
"""


def _run(host, overlay):
    print(f"{host.name}: a host boots...", flush=True)
    process = subprocess.Popen(
        [TESTHOST, "--no-insmod", "--overlay", overlay, *host.options, "--", "sh", "-c", host.script],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace")
    column = None
    for line in process.stdout:
        line = line.rstrip()
        if found := re.match(r"# column (.*)", line):
            column = found[1]
            print(f"{host.name}: {column}", flush=True)
        elif found := re.match(r"# measured (\S+) (.*)", line):
            host.measured[column, found[1]] = [float(number) for number in found[2].split()]
        elif found := re.match(r"ok \d+ (\S+)$", line):
            print(f"  ok {found[1]}", flush=True)
        elif not re.match(r"KTAP version|1\.\.\d|ok |$", line):
            print(f"  {line}", flush=True)
    return process.wait()


def _number(value):
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _cell(numbers):
    if not numbers:
        return ""
    text = _number(numbers[0])
    if len(numbers) < 3:
        return text
    median, least, most = numbers[:3]
    if least < 0.9 * median or most > 1.1 * median:
        text += f" ({_number(least)}–{_number(most)})"
    return text


def _ratio(cells):
    values = [numbers[0] for numbers in cells if numbers]
    if len(values) < 2 or not cells[0]:
        return ""
    if values[-1] == 0:
        return "∞" if values[0] else "1"
    return f"{values[0] / values[-1]:.1f}" if values[0] / values[-1] >= 2 else f"{values[0] / values[-1]:.2f}"


def _table(hosts):
    lines = [("", *_COLUMNS, "ratio")]
    for row in _HEADINGS_AND_ROWS:
        if isinstance(row, str):
            lines.append((row,))
            continue
        cells = [hosts[row.host].measured.get((column, row.others.get(column, row.what)))
                 for column in _COLUMNS]
        lines.append((f"  {row.text}", *map(_cell, cells), _ratio(cells)))
    widths = [max(len(line[i]) for line in lines if len(line) > 1) for i in range(len(lines[0]))]
    print()
    for line in lines:
        first, *others = line
        if not others:
            print(first)
        else:
            print(" ".join([first.ljust(widths[0]),
                            *(text.rjust(width) for text, width in zip(others, widths[1:]))]).rstrip())
    print(f"\n{_NOTES}")


def main():
    overlay = build.overlay("bench_test")
    # without highres=on KVM's timers would be as coarse as the host's tick
    hosts = {host.name: host for host in (
        Host(_FOUR, _FOUR_CPUS, ["--cpus", "4", "--cmdline", "no_ipi_broadcast=1 highres=on"]),
        Host(_ONE_DEFAULT, _ONE_CPU, ["--cpus", "1"]),
        Host(_ONE_OFF, _ONE_CPU, ["--cpus", "1", "--cmdline", "mitigations=off"]))}
    failed = [host.name for host in hosts.values() if _run(host, overlay)]
    _table(hosts)
    missing = [f"{column}: {row.text}" for row in _HEADINGS_AND_ROWS if isinstance(row, Row)
               for column in row.columns()
               if (column, row.others.get(column, row.what)) not in hosts[row.host].measured]
    for text in missing:
        print(f"not measured: {text}")
    print(f"bench: FAILED: {', '.join(failed) or 'not all was measured'}" if failed or missing
          else "bench: ok")
    sys.exit(bool(failed or missing))


main()
