# SPDX-License-Identifier: GPL-2.0
"""What in a kernel's log says that the kernel itself found a fault, and what the emulator says."""

import re

_STAMP = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?")

# Where a line begins: "Retbleed: WARNING: ..." and the like say something about
# the emulated CPU, not about a fault.
_REPORT = re.compile("|".join((
    r"WARNING: ",
    r"BUG: ",
    r"(?:NMI )?watchdog: (?:BUG|Watchdog detected)",
    r"kernel BUG at ",
    r"------------\[ cut here \]",
    r"Oops\b",
    r"general protection fault",
    r"(?:divide error|invalid opcode|stack segment|double fault|int3|bounds|alignment check): ",
    r"traps: PANIC",
    r"UBSAN: ",
    r"kmemleak: \d+ new suspected",
    # why it switches itself off; kmemleak=off is none
    r"kmemleak: Cannot (?:allocate a kmemleak_object|insert)",
    r"INFO: task .* blocked for more than",
    r"INFO: rcu\S* .*stall",
    r"rcu: INFO: .*stall",
    r"INFO: trying to register non-static key",
    r"INFO: possible ",
    r"list_(?:add|del) corruption",
    r"refcount_t: ",
    r"unchecked MSR access error",
    r"irq \d+: nobody cared",
    r"(?:smpboot: )?CPU\d+ is stuck in mwait_play_dead",
    r"Non-boot CPUs are not disabled",
    r"Modules linked in: ",
    r"[^:]*: page dumped because",
    r"slab[- ]\S*: .*(?:Objects remaining|poison)",
)))
_OF_EMULATOR = re.compile(r"CPU \d+ was reset in VMX operation")
_PANIC = re.compile(r"Kernel panic - not syncing")
_PANIC_END = re.compile(r"---\[ end Kernel panic")


def is_report(text):
    return bool(_REPORT.match(text))


def of_emulator(text):
    """The first report in what the emulator says, or None."""
    found = _OF_EMULATOR.search(text)
    return found and found[0]


def is_panic(text):
    return bool(_PANIC.match(text))


def is_panic_end(text):
    return bool(_PANIC_END.match(text))


def message(line):
    """The line without its time."""
    return _STAMP.sub("", line)
