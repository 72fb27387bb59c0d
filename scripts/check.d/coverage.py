# SPDX-License-Identifier: GPL-2.0
"""What of the module's code was executed, as the fuzzers on a kernel with KCOV tell it: a table by source file.

The compiler has put a call of KCOV's into each basic block, but those of bare code. What the kernel notes is where
these calls return to.
"""

import collections
import os
import re

from tools import run

# In the machine inside: where it has the sections.
SECTIONS = "grep . /sys/module/kvmpp/sections/.*text*"
_CALLEE = "__sanitizer_cov_trace_pc"
# freed after the load, or KASAN's constructors
_NOT_OURS = (".init.text", ".text.startup", ".text.exit")
# the displacement that a call ends with, whose place a relocation names
_DISPLACEMENT = 4


class Coverage:
    def __init__(self):
        self._sections = {}
        self._base = 0
        self._reached = set()

    def take(self, line):
        """Whether the line was for us."""
        if found := re.match(r"/sys/module/kvmpp/sections/(\S+):0x(\w+)$", line):
            self._sections[found[1]] = int(found[2], 16)
        elif found := re.match(r"# the module is at 0x(\w+)$", line):
            self._base = int(found[1], 16)
        elif found := re.match(r"# reached((?: \w+)*)$", line):
            self._reached |= {self._base + int(word, 16) for word in found[1].split()}
        else:
            return False
        return True

    def table(self, file):
        """Lines: of each source file of that kvmpp.ko what was reached, and what there is; the last one is the
        sum. None where the kernel has no KCOV, or nothing was said."""
        if not self._reached or not self._sections:
            return []
        reached, there = collections.Counter(), collections.Counter()
        for section, places in _calls(file).items():
            if section not in self._sections or section in _NOT_OURS:
                continue
            for place, source in zip(places, _sources(file, section, places)):
                there[source] += 1
                reached[source] += self._sections[section] + place in self._reached
        rows = [(source, reached[source], there[source]) for source in sorted(there)]
        rows.append(("all", reached.total(), there.total()))
        return [f"{'basic blocks':40} {'reached':>8} {'of':>8}"] + [
            f"{source:40} {some:8} {all_:8} {100 * some // all_:4} %" for source, some, all_ in rows]


def _calls(file):
    """By section, where calls of KCOV's return to."""
    places, section = collections.defaultdict(list), None
    for line in run(["objdump", "-r", file]).splitlines():
        if found := re.match(r"RELOCATION RECORDS FOR \[(\S+)\]", line):
            section = found[1]
        elif found := re.match(rf"(\w+) R_X86_64_\w+ +{_CALLEE}\b", line):
            places[section].append(int(found[1], 16) + _DISPLACEMENT)
    return places


def _sources(file, section, places):
    """The source files of the functions that the places are in, inlined or not."""
    command = ["addr2line", "-a", "-i", "-j", section, "-e", str(file),
               *(hex(place - 1) for place in places)]
    sources = []
    for line in run(command).splitlines():
        if line.startswith("0x"):
            sources.append("others")
        elif found := re.search(r"/source/(.*):", line):
            # the last one is not inlined
            sources[-1] = os.path.normpath(found[1])
    return sources
