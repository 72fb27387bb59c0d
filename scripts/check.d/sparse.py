# SPDX-License-Identifier: GPL-2.0
"""make sparse: the C of the module under sparse, with its checks of contexts and address spaces.

Against the headers of stock-6.1, in the cache. Then kunit/sparse/rules_broken.c, of which
sparse must report every line that breaks a rule; TAP.
"""

import subprocess
import sys

import build
from build import CHECKOUT, cache, packages

import kernels
import module


def main():
    packages.need("g++", "make", "sparse")
    kernel = kernels.get("stock-6.1")
    with module.sources(kernel) as home:
        source = home / "source"

        def kbuild(flags, target):
            return subprocess.run(["make", "-s", "-C", kernel.build_tree, f"M={source}",
                                   "CONFIG_DEBUG_INFO_BTF_MODULES=", "C=2", f"CF={flags}", target],
                                  cwd=source, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  env=cache.compilers())
        own = kbuild("-Wcontext -Wsparse-error", "modules")
        sys.stdout.write(own.stdout)
        broken = kbuild("-Wcontext", "kunit/sparse/rules_broken.o")
    refused = subprocess.run(["awk", "-f", "kunit/sparse/check.awk", "kunit/sparse/rules_broken.c", "-"],
                             cwd=CHECKOUT, input=broken.stdout, text=True)
    sys.exit(bool(own.returncode or refused.returncode))


main()
