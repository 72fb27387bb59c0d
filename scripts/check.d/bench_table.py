# SPDX-License-Identifier: GPL-2.0
"""The tables of make bench: what their rows are, and how they are shown."""

import dataclasses
import fractions
import statistics

KVM, KVMPP, DEDICATED, FLOOR = "kvm_intel", "kvmpp", "dedicated CPU", "floor"
OFF, DEFAULTS = "mitigations=off", "Linux's defaults"
MEASURED_FOUR = "a dedicated CPU, Linux's defaults"
SIZE = "size"
# repeats that are further apart are shown
_REPEATS_WITHIN = 0.02
_FRACTIONS = {fractions.Fraction(1, 2): "½", fractions.Fraction(1, 3): "⅓", fractions.Fraction(1, 5): "⅕"}


@dataclasses.dataclass
class Aim:
    """At most so many, or such a share of KVM's."""
    number: int = None
    share: fractions.Fraction = None

    def value(self, kvm):
        return self.number if self.share is None else float(self.share) * kvm

    def met(self, value, kvm):
        # what is as much can be seen to be so only within what runs are apart
        tolerance = _REPEATS_WITHIN if self.share == 1 else 0
        return value <= self.value(kvm) * (1 + tolerance)

    def text(self, kvm):
        if self.share is None or self.share == 1:
            return _text(self.value(kvm))
        return f"{_FRACTIONS[self.share]}: {_text(self.value(kvm))}"


_HALF, _THIRD, _FIFTH, _NO_MORE = (Aim(share=fractions.Fraction(1, n)) for n in (2, 3, 5, 1))


@dataclasses.dataclass
class Row:
    text: str
    # what the programs call it; the floor may be a sum
    what: str
    aim: Aim = None
    floor: tuple = ()
    # not measured in a quick run
    slow: bool = False


_SYSTEM_CALL = ("floor.least", "floor.ioctl")
_COMPARED = [
    "Instructions, one CPU",
    Row("CPUID, answered in the kernel: a round (1)", "exits.cpuid", Aim(250), ("floor.least",)),
    Row("port write to user space, and KVM_RUN again (1)", "exits.out", Aim(1100), _SYSTEM_CALL),
    Row("MMIO write to user space, and KVM_RUN again (1)", "exits.mmio", _HALF, _SYSTEM_CALL),
    Row("EPT violation: a fresh page (2)", "faults.fresh", _HALF, ("floor.least",)),
    Row("EPT violation: the first write for a log (2)", "faults.logged", _NO_MORE, ("floor.least",)),
    Row("HLT, and wake-up by an interrupt (3)", "exits.halt_and_wake", _HALF),
    Row("VM with one vCPU: make, run to an exit, destroy (4)", "life.make_run_destroy", _THIRD),
    Row("QEMU boots Linux to its init", "qemu.instructions", _NO_MORE, slow=True),
    Row("    exits meanwhile", "qemu.exits", slow=True),
    "Instructions, two CPUs",
    Row("kick of a running vCPU, to user space (5)", "kick.to_user_space", _NO_MORE),
    Row("vCPU moved to another CPU, and run (6)", "moved.vcpu", _NO_MORE),
    Row("CPU offline, 1 VMCS there: that CPU (7)", "offline.1_there_0_elsewhere.cpu", _NO_MORE),
    Row("    1 there, 100 elsewhere", "offline.1_there_100_elsewhere.cpu", _NO_MORE),
    Row("    10 there, 100 elsewhere", "offline.10_there_100_elsewhere.cpu", _NO_MORE),
    Row("    100 there, 100 elsewhere", "offline.100_there_100_elsewhere.cpu", _NO_MORE),
    Row("    the same: all CPUs", "offline.100_there_100_elsewhere.all", _NO_MORE),
    Row("    for each VMCS there", "offline.per_vmcs", _NO_MORE),
    "Resident memory, KiB (8)",
    Row("a VM, without its vCPUs", "memory.vm", _HALF),
    Row("a vCPU", "memory.vcpu", _HALF),
    "Bytes",
    Row("code and data of the modules (9)", SIZE, _FIFTH),
]

_DEDICATED = [
    "VM exits",
    Row("per tick of the guest's timer, computing (a)", "ticks_computing.exits_per_tick", Aim(0)),
    Row("per tick of the guest's timer, halting", "ticks_halting.exits_per_tick", Aim(0)),
    Row("per HLT, those by HLT", "ticks_halting.hlt_exits_per_hlt", Aim(0)),
    Row("per IPI, of the receiver, computing (a)", "ipis_computing.receivers_exits_per_ipi", Aim(0)),
    Row("per IPI, of the receiver, halting", "ipis_halting.receivers_exits_per_ipi", Aim(0)),
    Row("per IPI, of the sender (a)", "ipis_computing.senders_exits_per_ipi"),
    Row("in a second of computing, without a timer (a)", "computing.exits_per_second", Aim(0)),
    "Instructions from the interrupt's arrival to the guest's handler",
    Row("timer, computing (b)", "tick_delay_computing.arrival_to_handler"),
    Row("timer, computing, preemption_timer=0 (b)", "tick_delay_computing_by_interrupt.arrival_to_handler"),
    Row("timer, halting (b)", "tick_delay_halting.arrival_to_handler"),
    Row("IPI, computing (c)", "ipis_computing.arrival_to_handler"),
    Row("IPI, halting (c)", "ipis_halting.arrival_to_handler"),
    "Instructions of an IPI's sender, from its exit to its entry",
    Row("IPI", "ipis_computing.senders_exit"),
    "Instructions of a kick: a signal, EINTR, and KVM_RUN again (d)",
    Row("from its arrival to the exit", "kicks.to_exit"),
    Row("from its arrival to the guest, on the guest's CPU", "kicks.to_entry"),
    Row("on the CPU of the thread, where that is another", "kicks.of_threads_cpu"),
    Row("on CPU 0, which wakes the thread", "kicks.of_cpu_0"),
]
_ONLY_KVM = ("tick_delay_computing_by_interrupt.arrival_to_handler",)
_ONLY_DEDICATED = ("kicks.of_threads_cpu", "kicks.of_cpu_0")

NOTES = f"""
Medians, of runs in turns in one host, and each of samples; the emulator counts instructions, which say nothing of what an
exit itself takes, nor of caches. Where a run is more than {_REPEATS_WITHIN:.0%} from the median, ± says how far. The ratio is kvm_intel to
the column furthest right; the aim is met where it has a tick, "no more than kvm_intel" within {_REPEATS_WITHIN:.0%}.
(1) Without a local APIC in the kernel. The guest's three are among them, and the VMM's ioctl(). Floor: VMRESUME and an exit
    with the guest's registers, reason and next instruction (45; alone it is 4), and an ioctl of /dev/null.
(2) A read and a write of each of 1,024 pages: what the pages of the VMM take more than when they are mapped.
(3) Local APIC in the kernel; KVM_SIGNAL_MSI of another thread on the same CPU, the handler with its EOI, HLT: all of it.
(4) With what Linux does later, and while it waits.
(5) From Linux's interrupt RESCHEDULE to the signal's handler.
(6) Both CPUs, less what the thread's move takes alone.
(7) That CPU from "online" on, Linux's own work among it: the least of some. All CPUs: the median.
(8) Of 64 VMs with one vCPU, and 64 with two, that have run: pages that are no longer free.
(9) text, data and bss: kvm.ko and kvm-intel.ko of Debian, whose kvm.ko also has what AMD needs.
Dedicated CPU: kvm_intel is as it is by default, which on this CPU is without APICv. With it there would be no exit for an EOI,
nor for an IPI to a guest that computes. In parentheses: the least and the most of the samples, if they are 10 % and more away.
(a) Not on a dedicated CPU: with those by the host's own tick, 250 a second.
(b) From the exit by the VMX-preemption timer, which takes the place of an interrupt; kvm_intel with preemption_timer=0, and
    where the guest halts: from the host's timer interrupt (vector 0xec) in the IRR of that CPU's APIC. Dedicated CPU: from
    the guest's vector in the IRR, here and below.
(c) From the IPI by which Linux reaches that CPU: to a guest that computes RESCHEDULE (0xfd); to one that
    has halted what wakes its thread, CALL_FUNCTION_SINGLE (0xfb).
(d) From RESCHEDULE, or from the NMI to a dedicated CPU. Of that CPU it is all while it waits, halted, for the
    thread to call KVM_RUN again; what other CPUs execute meanwhile is counted from before the signal is sent
    until the guest is seen to go on.
"""


def _text(value):
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:,.2f}"


class Cell:
    """What was measured, in runs of which each has one number, or a median with the least and most."""

    def __init__(self, runs):
        self.runs = [run[0] for run in runs]
        self.value = statistics.median(self.runs)
        self.limits = runs[0][1:3] if len(runs) == 1 else []

    def spread(self):
        """How far the runs are from the median, as a share of it."""
        return max(abs(run - self.value) for run in self.runs) / self.value if self.value else 0

    def text(self):
        text = _text(self.value)
        if self.spread() > _REPEATS_WITHIN:
            text += f" ±{self.spread():.0%}"
        if self.limits and (self.limits[0] < 0.9 * self.value or self.limits[1] > 1.1 * self.value):
            text += f" ({_text(self.limits[0])}–{_text(self.limits[1])})"
        return text


class Table:
    def __init__(self, name, columns, rows, measured, needed):
        self._name, self._columns, self._rows = name, columns, rows
        # whether a column must have a row
        self._needed = needed
        self._measured = {(column, what): Cell(runs)
                          for (table, column, what), runs in measured.items() if table == name}

    def _cells(self, row):
        return [self._measured.get((column, row.what)) for column in self._columns]

    def _ratio(self, row):
        values = [cell.value for cell in self._cells(row) if cell]
        if len(values) < 2 or not self._cells(row)[0]:
            return None
        if values[-1] == 0:
            return float("inf") if values[0] else 1
        return values[0] / values[-1]

    def _floor(self, row):
        # what is said of no column in particular was said in the floor's
        parts = [self._measured.get((column, what)) for what in row.floor for column in (FLOOR, KVM)]
        parts = [part.value for part in parts if part]
        return sum(parts) if row.floor and len(parts) == len(row.floor) else None

    def _aim(self, row):
        cells = self._cells(row)
        if not row.aim or not cells[0] or not cells[-1]:
            return None, None
        return row.aim.value(cells[0].value), row.aim.met(cells[-1].value, cells[0].value)

    def show(self):
        lines = [("", *self._columns, "ratio", "aim", "floor")]
        for row in self._rows:
            if isinstance(row, str):
                lines.append((row,))
                continue
            ratio, floor, (aim, met) = self._ratio(row), self._floor(row), self._aim(row)
            cells = self._cells(row)
            lines.append((f"  {row.text}", *(cell.text() if cell else "" for cell in cells),
                          "" if ratio is None else "∞" if ratio == float("inf") else f"{ratio:.2f}",
                          "" if aim is None else f"{row.aim.text(cells[0].value)} {'✓' if met else ' '}",
                          "" if floor is None else _text(floor)))
        widths = [max(len(line[i]) for line in lines if len(line) > 1) for i in range(len(lines[0]))]
        print(f"\n{self._name}")
        for line in lines:
            first, *others = line
            print(" ".join([first.ljust(widths[0] if others else 0),
                            *(text.rjust(width) for text, width in zip(others, widths[1:]))]).rstrip())

    def data(self):
        """For JSON."""
        rows, heading = [], None
        for row in self._rows:
            if isinstance(row, str):
                heading = row
                continue
            aim, met = self._aim(row)
            ratio = self._ratio(row)
            rows.append({
                "of": heading, "row": row.text.strip(), "name": row.what,
                "ratio": None if ratio == float("inf") else ratio, "aim": aim, "met": met,
                "floor": self._floor(row),
                "columns": {column: {"value": cell.value, "runs": cell.runs, "spread": cell.spread()}
                            for column, cell in zip(self._columns, self._cells(row)) if cell}})
        return {"table": self._name, "rows": rows}

    def missing(self):
        return [f"{self._name}: {column}: {row.text.strip()}" for row in self._rows if not isinstance(row, str)
                for column, cell in zip(self._columns, self._cells(row))
                if not cell and self._needed(column, row)]


def _needs_dedicated(column, row):
    if row.what in _ONLY_KVM:
        return column == KVM
    return column == DEDICATED or row.what not in _ONLY_DEDICATED


def tables(measured, quick):
    def needs(_, row):
        return not (quick and row.slow)

    return [*(Table(name, (KVM, KVMPP), _COMPARED, measured, needs)
              for name in ((DEFAULTS,) if quick else (OFF, DEFAULTS))),
            Table(MEASURED_FOUR, (KVM, KVMPP, DEDICATED), _DEDICATED, measured, _needs_dedicated)]
