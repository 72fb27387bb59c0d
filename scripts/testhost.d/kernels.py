# SPDX-License-Identifier: GPL-2.0
"""The kernels that the host can boot, each with what a module is built against.

An entry in the cache holds vmlinuz, lib/modules/<version> with the modules that
are at hand inside, and for the debug kernel the tree to build modules in.
"""

import os
import pathlib
import re
import shutil
import time

import cache
import packages
from cache import Failure, say
from tools import run, started

NAMES = ("stock-6.1", "stock-6.12", "debug-6.1")

# what is at hand inside, where the kernel has it as a module
_MODULES = ["kvm-intel", "msr", "cpuid", "brd", "lkdtm", "kunit",
            "virtio-pci", "virtio-mmio", "virtio-blk"]
_DEBUG_CONFIG = pathlib.Path(__file__).with_name("debug-6.1.config")
_DEBUG_PATCH = pathlib.Path(__file__).with_name("debug-6.1.patch")
# only to say how far the build is
_DEBUG_OBJECTS = 1300


class Kernel:
    def __init__(self, name, version, files, build_tree):
        self.name = name
        self.version = version
        self.image = files / "vmlinuz"
        self.modules = files / "lib/modules" / version
        self.build_tree = build_tree
        # says for which kernel, exactly, a module was built
        self.key = files.name


def get(name):
    packages.need("kmod", "xz-utils")
    return _debug() if name == "debug-6.1" else _stock(name)


def _stock(name):
    version, apt_options = packages.newest_kernel(name.split("-")[1])

    def fill(directory):
        say(f"fetching linux-image-{version}...")
        package = packages.download(f"linux-image-{version}", directory, apt_options)
        whole = directory / "whole"
        run(["dpkg", "-x", package, whole])
        shutil.copy(whole / f"boot/vmlinuz-{version}", directory / "vmlinuz")
        _choose_modules(whole, version, directory)
        package.unlink()
        shutil.rmtree(whole)

    # the ABI number in the name changes less often than the package, so the
    # headers' version tells them apart
    headers = f"linux-headers-{version}"
    packaged = packages.need(headers, apt_options=apt_options)[headers]
    key = cache.key_of(version, packaged, " ".join(_MODULES))
    return Kernel(name, version, cache.entry(f"kernel-{name}", key, fill),
                  pathlib.Path("/usr/src") / headers)


def _choose_modules(source, version, target):
    """Copies the modules of _MODULES, and what they need, with depmod's files."""
    tree = source / "lib/modules" / version
    chosen = target / "lib/modules" / version
    chosen.mkdir(parents=True)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(tree / name, chosen)
    run(["depmod", "-b", source, version])
    needs = {}
    for line in (tree / "modules.dep").read_text().splitlines():
        path, _, depends = line.partition(":")
        needs[re.sub(r"\.ko.*", "", os.path.basename(path)).replace("_", "-")] = \
            [path, *depends.split()]
    for path in {path for name in _MODULES for path in needs.get(name, [])}:
        (chosen / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree / path, chosen / path)
    run(["depmod", "-b", target, version])


def _debug():
    have = packages.need("linux-source-6.1", "gcc", "make", "bison", "flex", "bc", "lz4",
                         "libelf-dev", "libc6-dev", "xz-utils", "patch")
    key = cache.key_of(_DEBUG_CONFIG, _DEBUG_PATCH, have["linux-source-6.1"], have["gcc"])
    files = cache.entry("kernel-debug-6.1", key, _fill_debug)
    return Kernel("debug-6.1", (files / "version").read_text(), files, files / "build")


def kunit_tool():
    """The kernel's own kunit.py, which reads KTAP."""
    have = packages.need("linux-source-6.1", "xz-utils")

    def fill(directory):
        say("unpacking kunit.py...")
        run(["tar", "-xf", "/usr/src/linux-source-6.1.tar.xz", "-C", directory, "--strip-components=1",
             "linux-source-6.1/tools/testing/kunit"])
    files = cache.entry("kunit", cache.key_of(have["linux-source-6.1"]), fill)
    return files / "tools/testing/kunit/kunit.py"


def _fill_debug(directory):
    tree = directory / "build"
    tree.mkdir()
    say("building the kernel debug-6.1 (about 7 min on two cores)...")
    run(["tar", "-xf", "/usr/src/linux-source-6.1.tar.xz", "-C", tree, "--strip-components=1"])
    run(["patch", "-p1", "-i", _DEBUG_PATCH], cwd=tree)
    run(["make", "ARCH=x86_64", f"KCONFIG_ALLCONFIG={_DEBUG_CONFIG}", "allnoconfig"], cwd=tree)
    have = set((tree / ".config").read_text().splitlines())
    wanted = [line for line in _DEBUG_CONFIG.read_text().splitlines()
              if line.startswith("CONFIG_")]
    lost = [line for line in wanted if line not in have]
    if lost:
        raise Failure(f"{_DEBUG_CONFIG.name}: this kernel does not take {' '.join(lost)}")
    _make_with_progress(tree, directory / "build.log")
    version = run(["make", "-s", "kernelrelease"], cwd=tree).strip()
    shutil.copy(tree / "arch/x86/boot/bzImage", directory / "vmlinuz")
    run(["make", f"INSTALL_MOD_PATH={directory}/whole", "modules_install"], cwd=tree)
    _choose_modules(directory / "whole", version, directory)
    shutil.rmtree(directory / "whole")
    _prune(tree)
    (directory / "version").write_text(version)


def _make_with_progress(tree, log):
    command = ["make", f"-j{os.cpu_count()}", "bzImage", "modules"]
    with open(log, "w", encoding="utf-8") as output, \
            started(command, cwd=tree, stdout=output, stderr=output) as make:
        said = time.monotonic()
        while make.poll() is None:
            time.sleep(0.5)
            if time.monotonic() - said >= 60:
                said = time.monotonic()
                done = len(re.findall(r"^  (?:CC|AS) ", log.read_text(), re.M))
                say(f"debug-6.1: {min(99, 100 * done // _DEBUG_OBJECTS)} % compiled")
    if make.returncode:
        tail = "\n".join(log.read_text().splitlines()[-30:])
        raise Failure(f"the kernel build failed:\n{tail}")


def _prune(tree):
    """Leaves in the kernel's tree what the build of a module needs."""
    for path in tree.iterdir():
        if path.name in ("Documentation", "drivers", "fs", "net", "sound", "samples",
                         "crypto", "ipc", "block", "init", "mm", "lib", "kernel", "certs",
                         "security", "usr", "virt", "io_uring", "rust", "vmlinux",
                         "vmlinux.o", "vmlinux.a", "LICENSES"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (tree / "arch").iterdir():
        if path.is_dir() and path.name != "x86":
            shutil.rmtree(path)
    for path in (tree / "tools").iterdir():
        if path.name != "objtool" and path.name != "include":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for top in ("arch", "tools"):
        for path in (tree / top).rglob("*"):
            if path.is_file() and (path.suffix in (".o", ".a", ".c", ".S", ".cmd")
                                   or path.name in ("vmlinux", "vmlinux.bin", "bzImage")
                                   or path.name.startswith("vmlinux.bin.")):
                path.unlink()
