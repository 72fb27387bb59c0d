# SPDX-License-Identifier: GPL-2.0
"""make sparse: the C of the module under sparse, with its checks of contexts and address spaces.

Against the headers of stock-6.1, in the cache. Then kunit/sparse/rules_broken.c, of which
sparse must report every line that breaks a rule; TAP.
"""

import os
import shutil
import subprocess
import sys

import build
from build import CHECKOUT, packages

import kernels

_SOURCES = ("arch/", "virt/", "include/", "kunit/", "Kbuild", "Makefile")


def main():
    packages.need("g++", "make", "sparse")
    tree = kernels.get("stock-6.1").build_tree
    place = build.directory("sparse")
    # what git would carry, so that nothing built is looked at
    for name in build.run("git", "-C", CHECKOUT, "ls-files", "--cached", "--others",
                          "--exclude-standard").split():
        if name.startswith(_SOURCES) and (CHECKOUT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, place / name)

    def kbuild(flags, target):
        return subprocess.run(["make", "-s", "-C", tree, f"M={place}", "CONFIG_DEBUG_INFO_BTF_MODULES=",
                               "C=2", f"CF={flags}", target], cwd=place, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    module = kbuild("-Wcontext -Wsparse-error", "modules")
    sys.stdout.write(module.stdout)
    broken = kbuild("-Wcontext", "kunit/sparse/rules_broken.o")
    refused = subprocess.run(["awk", "-f", "kunit/sparse/check.awk", "kunit/sparse/rules_broken.c", "-"],
                             cwd=CHECKOUT, input=broken.stdout, text=True)
    sys.exit(bool(module.returncode or refused.returncode))


main()
