# SPDX-License-Identifier: GPL-2.0
"""Builds this checkout's modules for a kernel, in the cache.

The sources are copied, so that neither the checkout sees products of a build nor
two kernels disturb each other.
"""

import json
import os
import pathlib
import shutil
import subprocess

import cache
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
    name = cache.key_of(str(_CHECKOUT), kernel.name)
    home = cache.root() / "module" / name
    with cache.lock(f"module-{name}"):
        home.mkdir(parents=True, exist_ok=True)
        os.utime(home)
        cache.remove_unused("module", name)
        # the products of another build of the kernel are of no use
        built_for = home / "built-for"
        if not built_for.exists() or built_for.read_text() != kernel.key:
            shutil.rmtree(home)
            home.mkdir()
            built_for.write_text(kernel.key)
        staged = home / "stage/lib/modules" / kernel.version
        if copy_sources(home) or not staged.exists():
            shutil.rmtree(home / "stage", ignore_errors=True)
            _make(home / "source", kernel)
            _stage(home / "source", home / "stage.unfinished", kernel)
            os.rename(home / "stage.unfinished", home / "stage")
        # a copy for this run: the next build may begin as soon as the lock is free
        shutil.copytree(staged, target)


def _listed():
    """The paths that git would carry."""
    present = [name for name in _SOURCES if (_CHECKOUT / name).exists()]
    try:
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--",
             *present], cwd=_CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        # not a clone, or no git: all there is
        names = [str(path.relative_to(_CHECKOUT)) for name in present
                 for path in [_CHECKOUT / name, *(_CHECKOUT / name).rglob("*")]]
    return [name for name in names if name and (_CHECKOUT / name).is_file()]


def copy_sources(home):
    """Brings home/source up to date; says whether anything was to be done.

    A changed file gets the time of now, whatever its own: make has to see it even
    when an older version came back.
    """
    notes = home / "copied.json"
    before = json.loads(notes.read_text()) if notes.exists() else {}
    now = {}
    for name in _listed():
        stat = (_CHECKOUT / name).stat()
        now[name] = [stat.st_mtime_ns, stat.st_size, stat.st_mode]
    if now == before:
        return False
    # whatever happens from here on, the next call must not take it for done
    notes.unlink(missing_ok=True)
    shutil.rmtree(home / "stage", ignore_errors=True)
    for name in before.keys() - now.keys():
        (home / "source" / name).unlink(missing_ok=True)
    for name, what in now.items():
        if before.get(name) != what:
            (home / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_CHECKOUT / name, home / "source" / name)
            shutil.copymode(_CHECKOUT / name, home / "source" / name)
    notes.write_text(json.dumps(now))
    return True


def _make(source, kernel):
    say(f"building the module for {kernel.name}...")
    output = run(["make", f"-j{os.cpu_count()}", f"KDIR={kernel.build_tree}", "modules"],
                 cwd=source)
    for kbuild in sorted((source / _TEST_MODULES).glob("*/Kbuild")):
        output += run(["make", "-C", kernel.build_tree, f"M={kbuild.parent}",
                       "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"])
    if "warning:" in output.lower():
        os.write(2, output.encode())


def _stage(source, stage, kernel):
    shutil.rmtree(stage, ignore_errors=True)
    target = stage / "lib/modules" / kernel.version
    shutil.copytree(kernel.modules, target)
    (target / "extra").mkdir()
    for built in source.rglob("*.ko"):
        shutil.copy(built, target / "extra")
    run(["depmod", "-b", stage, kernel.version])
