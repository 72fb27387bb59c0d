# SPDX-License-Identifier: GPL-2.0
"""What check and demo build: the user-space programs and the host tests, in the cache."""

import os
import pathlib
import shutil
import subprocess
import sys

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
CHECKOUT = SCRIPTS.parent
sys.path.insert(0, str(SCRIPTS / "testhost.d"))

import cache  # noqa: E402
import module  # noqa: E402
import packages  # noqa: E402

TESTHOST = SCRIPTS / "testhost"
_SOURCES = ["arch", "virt", "include", "kunit", "tools"]


def directory(name):
    """Where NAME of this checkout is built; another checkout has another place."""
    path = _home() / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def _home():
    # an earlier version built in the checkout itself, where CMake would still look
    return cache.root() / "build" / cache.key_of(str(CHECKOUT), "copied sources")


def sources():
    """A copy of the checkout's sources, beside where they are built: see cache.compilers()."""
    packages.need("ccache")
    with cache.lock(f"sources-{_home().name}"):
        module.copy_sources(directory("."), _SOURCES)
    return _home() / "source"


def run(*command):
    """Runs a command, with ccache; its output is shown only where it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=cache.compilers(_home()))
    if done.returncode:
        sys.stdout.flush()
        os.write(1, done.stdout)
        raise cache.Failure(f"failed: {' '.join(map(str, command))}")
    return done.stdout.decode(errors="replace")


def make(program_directory, name, *targets):
    """Builds a directory of tools/, or targets of its Makefile, into directory(NAME)."""
    packages.need("g++", "make")
    place = directory(name)
    with cache.lock(f"build-{cache.key_of(str(place))}"):
        source = sources() / program_directory
        run("make", f"-j{os.cpu_count()}", "-C", source, f"O={os.path.relpath(place, source)}",
            *targets)
    return place


def overlay(*programs):
    """An overlay of programs of tools/testing, with the command kvmpp and what a second kernel runs.

    No others, and without symbols: the machine reads, unpacks and keeps all that is there.
    """
    commands = make("tools/kvmpp", "kvmpp")
    tests = make("tools/testing", "testing")
    place = directory(f"overlay/{cache.key_of(*programs)}")
    with cache.lock(f"build-{cache.key_of(str(place))}"):
        for name in programs:
            # once: another job may be reading it
            if not _is_newer(place / name, tests / name):
                run("strip", "-o", place / name, tests / name)
        for path in (tests / "second-command", commands / "kvmpp"):
            if not _is_newer(place / path.name, path):
                shutil.copy(path, place)
    return place


def _is_newer(made, source):
    return made.exists() and made.stat().st_mtime_ns > source.stat().st_mtime_ns
