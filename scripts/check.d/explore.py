# SPDX-License-Identifier: GPL-2.0
"""make explore: the module's life cycle over all schedules, and the mutants of its guards."""

import os
import sys

import build
from build import packages

packages.need("g++", "cmake", "make")
place = build.directory("explore")
build.run("cmake", "-S", build.sources() / "kunit/host/explore", "-B", place)
build.run("cmake", "--build", place, f"-j{os.cpu_count()}")
os.chdir(place)
os.execv(place / "explore", ["explore", *sys.argv[1:]])
