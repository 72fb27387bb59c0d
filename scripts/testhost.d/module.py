# SPDX-License-Identifier: GPL-2.0
"""Builds this checkout's modules for a kernel, in the cache.

All checkouts have one copy of the sources for each kernel, which is brought to what the one
that builds has: what is the same is not built again.
"""

import contextlib
import filecmp
import os
import pathlib
import shutil
import subprocess

import cache
import packages
from cache import Failure, say
from tools import run

_CHECKOUT = pathlib.Path(__file__).resolve().parent.parent.parent
# modules of the tests', which are no part of kvmpp
_TEST_MODULES = "tools/testing/modules"
_SOURCES = ["arch", "virt", "include", "kunit", "Kbuild", "Makefile", _TEST_MODULES]


def exists():
    return (_CHECKOUT / "Kbuild").exists()


def build(kernel, target):
    """Makes TARGET what becomes /lib/modules/<version>: the kernel's own modules
    and all of ours in extra/, with depmod's files."""
    if not exists():
        raise Failure("there is no Kbuild in this checkout: nothing to insert")
    with sources(kernel) as home:
        # a copy for this run: the next build may begin as soon as the lock is free
        shutil.copytree(_staged(home, kernel), target)


def copy_unstripped(kernel, target):
    """Makes the file TARGET the kvmpp.ko that build() has from, with its line numbers."""
    with sources(kernel) as home:
        _staged(home, kernel)
        shutil.copy(home / "source/kvmpp.ko", target)


def _staged(home, kernel):
    staged = home / "stage/lib/modules" / kernel.version
    if not staged.exists():
        _make(home / "source", kernel)
        _stage(home / "source", home / "stage.unfinished", kernel)
        os.rename(home / "stage.unfinished", home / "stage")
    return staged


@contextlib.contextmanager
def sources(kernel):
    """The directory whose source/ is as this checkout's, to be built in by nobody else
    meanwhile; stage/ is there only if it was built from the same."""
    packages.need("ccache")
    home = cache.root() / "module" / kernel.key
    with cache.lock(f"module-{kernel.key}"):
        home.mkdir(parents=True, exist_ok=True)
        os.utime(home)
        cache.remove_unused("module", kernel.key)
        copy_sources(home, _SOURCES)
        yield home


def _listed(names):
    """The paths that git would carry, of the named files and directories."""
    present = [name for name in names if (_CHECKOUT / name).exists()]
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--",
             *present], cwd=_CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        # not a clone, or no git: all there is
        listed = [str(path.relative_to(_CHECKOUT)) for name in present
                  for path in [_CHECKOUT / name, *(_CHECKOUT / name).rglob("*")]]
    return {name for name in listed if name and (_CHECKOUT / name).is_file()}


def copy_sources(home, names):
    """Brings home/source up to date with the named files and directories of the checkout; where
    anything was to be done, home/stage is no more.

    A changed file gets the time of now, whatever its own: make has to see it even
    when an older version came back.
    """
    source, notes = home / "source", home / "copied"
    before = set(notes.read_text().splitlines()) if notes.exists() else set()
    now = _listed(names)
    gone = before - now
    changed = [name for name in now if not _same(_CHECKOUT / name, source / name)]
    if not gone and not changed:
        return
    shutil.rmtree(home / "stage", ignore_errors=True)
    notes.write_text("\n".join(before | now))
    for name in gone:
        (source / name).unlink(missing_ok=True)
    for name in changed:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_CHECKOUT / name, source / name)
        shutil.copymode(_CHECKOUT / name, source / name)
    notes.write_text("\n".join(now))


def _same(one, other):
    return (other.exists() and one.stat().st_mode == other.stat().st_mode
            and filecmp.cmp(one, other, shallow=False))


def _make(source, kernel):
    say(f"building the module for {kernel.name}...")
    compilers = cache.compilers()
    output = run(["make", f"-j{os.cpu_count()}", f"KDIR={kernel.build_tree}", "modules"],
                 cwd=source, env=compilers)
    for kbuild in sorted((source / _TEST_MODULES).glob("*/Kbuild")):
        output += run(["make", "-C", kernel.build_tree, f"M={kbuild.parent}",
                       "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"], env=compilers)
    if "warning:" in output.lower():
        os.write(2, output.encode())


def _stage(source, stage, kernel):
    shutil.rmtree(stage, ignore_errors=True)
    target = stage / "lib/modules" / kernel.version
    shutil.copytree(kernel.modules, target)
    (target / "extra").mkdir()
    for built in source.rglob("*.ko"):
        # as with INSTALL_MOD_STRIP=1: nine tenths are for a debugger, and every boot would carry them
        run(["strip", "--strip-debug", "-o", target / "extra" / built.name, built])
    run(["depmod", "-b", stage, kernel.version])
