# SPDX-License-Identifier: GPL-2.0
"""The build refuses bare code that is not bare: each breach in a copy of the sources; TAP.

What is right passes in every build of the module, for each kernel.
"""

import re
import shutil
import subprocess
import sys

import build
from build import cache, packages

import kernels
import module

_BARE = "arch/x86/dedicated/bare.cpp"
_HERE = 'extern "C" void kvmpp_dedicated_interrupt(TrapFrame *frame)\n{\n'
# name, file, what is there, what is there instead, what the build has to say
_BREACHES = [
    ("glue", _BARE, _HERE, f"{_HERE}\tglue_udelay(1);\n", "names glue_udelay, in .text"),
    ("the kernel", _BARE, _HERE, f'extern "C" int _printk(const char *, ...);\n{_HERE}\t_printk("");\n',
     "names _printk$"),
    ("C++ that is not bare", _BARE, _HERE, f"void vpid_free(u16 vpid);\n{_HERE}\tvpid_free(1);\n",
     "names _ZN5kvmpp9vpid_free"),
    ("ftrace", "Kbuild", "CFLAGS_REMOVE_arch/x86/$(1).o := $(CC_FLAGS_FTRACE)\n", "",
     "has a place that Linux patches, in __mcount_loc"),
]


def main():
    packages.need("g++", "make")
    kernel = kernels.get("stock-6.1")
    with module.sources(kernel) as home:
        failed = _breaches_passed(kernel, home)
    print(f"1..{len(_BREACHES)}")
    sys.exit(bool(failed))


def _breaches_passed(kernel, home):
    source = home / "source"

    def make():
        return subprocess.run(["make", "-j2", f"KDIR={kernel.build_tree}", "modules"], cwd=source, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=cache.compilers())
    right = make()
    if right.returncode:
        sys.exit(right.stdout)
    # what we leave, however we end, is built anew
    shutil.rmtree(home / "stage", ignore_errors=True)
    failed = 0
    for number, (name, file, before, after, says) in enumerate(_BREACHES, 1):
        path = source / file
        text = path.read_text()
        if text.count(before) != 1:
            sys.exit(f"{file} is written otherwise by now: {before}")
        path.write_text(text.replace(before, after))
        wrong = make()
        path.write_text(text)
        refused = wrong.returncode and re.search(f"(?m)^bare code .*{says}", wrong.stdout)
        failed += not refused
        print(f"{'ok' if refused else 'not ok'} {number} - bare code calls {name}")
        if not refused:
            print(re.sub("(?m)^", "# ", wrong.stdout))
    return failed


main()
