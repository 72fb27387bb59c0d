# SPDX-License-Identifier: GPL-2.0
"""What check and demo build: the user-space programs and the host tests, in the cache."""

import os
import pathlib
import subprocess
import sys

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
CHECKOUT = SCRIPTS.parent
sys.path.insert(0, str(SCRIPTS / "testhost.d"))

import cache  # noqa: E402
import packages  # noqa: E402

TESTHOST = SCRIPTS / "testhost"


def directory(name):
    """Where NAME of this checkout is built; another checkout has another place."""
    path = cache.root() / "build" / cache.key_of(str(CHECKOUT)) / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def run(*command):
    """Runs a command; its output is shown only where it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode:
        sys.stdout.flush()
        os.write(1, done.stdout)
        raise cache.Failure(f"failed: {' '.join(map(str, command))}")
    return done.stdout.decode(errors="replace")


def make(program_directory, name):
    """Builds a directory of tools/ into directory(NAME), which may be an overlay."""
    packages.need("g++", "make")
    place = directory(name)
    with cache.lock(f"build-{cache.key_of(str(place))}"):
        run("make", f"-j{os.cpu_count()}", "-C", CHECKOUT / program_directory, f"O={place}")
    return place
