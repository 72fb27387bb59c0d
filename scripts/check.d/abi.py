# SPDX-License-Identifier: GPL-2.0
"""Documentation/api.rst has every ioctl and capability of <linux/kvm.h>, and says of each whether it
is there as the source has it; and the fuzzer calls every ioctl. TAP."""

import fnmatch
import re
import sys

import build
from build import CHECKOUT, packages

_HEADER = "/usr/include/linux/kvm.h"
# sections of api.rst: names that are there, and names that are not
_THERE = ["ioctls that are there", "Capabilities that are there"]
# capabilities, and ioctls of other architectures or long gone
_NOT_FUZZED = ("KVM_CAP_", "KVM_S390_", "KVM_PPC_", "KVM_ARM_", "KVM_ASSIGN_", "KVM_DEASSIGN_",
               "KVM_ALLOCATE_RMA", "KVM_CREATE_SPAPR_")
_ABSENT = ["ioctls that are not there", "Capabilities that are not there"]


def _names_in_header():
    packages.need("linux-libc-dev")
    with open(_HEADER) as header:
        text = header.read()
    return (re.findall(r"(?m)^#define\s+(KVM_\w+)[\s\\]+_IOW?R?\(", text) +
            re.findall(r"(?m)^#define\s+(KVM_CAP_\w+)\s", text))


def _names_in_source():
    # each has a case of its own where it is told from others
    return {name for path in (CHECKOUT / "virt").glob("*.cpp")
            for name in re.findall(r"\bcase (KVM_(?!EXIT_|IRQCHIP_)[A-Z0-9_]+):", path.read_text())}


def _names_in_fuzzer():
    text = (CHECKOUT / "tools/testing/fuzz/abi.cpp").read_text()
    return set(re.findall(r"\bIOCTL\((KVM\w+)\)", text))


def _names_in_document(sections):
    text = (CHECKOUT / "Documentation/api.rst").read_text()
    names = []
    for section in sections:
        found = re.search(rf"(?ms)^{section}\n-+\n(.*?)(?=^[^\n]+\n[-=]{{4,}}\n|\Z)", text)
        if not found:
            sys.exit(f"api.rst has no section {section!r}")
        for row in re.findall(r"(?m)^ +(``KVM_.*)$", found[1]):
            # the first column alone: names, and what is between them
            names += re.findall(r"``([\w*]+)``", re.match(r"(?:``[\w*]+``(?:, )?)+", row)[0])
    return names


def _tell(number, name, wrong):
    print(f"{'not ok' if wrong else 'ok'} {number} - {name}")
    for line in sorted(wrong):
        print(f"# {line}")


def main():
    header, source = set(_names_in_header()), _names_in_source()
    there, absent = _names_in_document(_THERE), _names_in_document(_ABSENT)

    def in_document(name):
        return [one for one in there + absent if fnmatch.fnmatchcase(name, one)]
    missing = {name for name in header if not in_document(name)}
    # an exact name goes before a pattern
    twice = {name for name in header
             if (there + absent).count(name) > 1 or
             (name not in there + absent and len(in_document(name)) > 1)}
    lies = {f"{name} is in the source" for name in (source & header) - set(there)}
    lies |= {f"{name} is not in the source" for name in set(there) - source}
    _tell(1, "every name of the header is in api.rst", missing)
    _tell(2, "and once", twice)
    _tell(3, "what is there is what the source has", lies)
    fuzzed = _names_in_fuzzer()
    uncalled = {name for name in header | source
                if not name.startswith(_NOT_FUZZED) and name not in fuzzed}
    _tell(4, "the fuzzer calls every ioctl", uncalled)
    print("1..4")
    sys.exit(bool(missing or twice or lies or uncalled))


main()
