# SPDX-License-Identifier: GPL-2.0
"""The initramfs: the tools (kept in the cache) and, behind them, what this run adds.

The kernel unpacks archives that stand one behind the other as one.
"""

import gzip
import os
import pathlib
import re
import stat

import cache
import packages
from tools import run

_INIT = pathlib.Path(__file__).with_name("init.c")
_KMOD_NAMES = ("modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod")
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
                  "nobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


class Archive:
    """A cpio archive in the form that the kernel takes; all belongs to root."""

    def __init__(self, path):
        self._file = open(path, "wb")
        self._known = set()
        self._number = 0

    def _add(self, name, mode, content=b"", device=(0, 0)):
        parent = os.path.dirname(name)
        if parent and parent not in self._known:
            self.directory(parent)
        self._known.add(name)
        self._number += 1
        encoded = os.fsencode(name) + b"\0"
        fields = (self._number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        self._file.write(head + b"\0" * (-len(head) % 4))
        self._file.write(content + b"\0" * (-len(content) % 4))

    def directory(self, name, mode=0o755):
        if name not in self._known:
            self._add(name, stat.S_IFDIR | mode)

    def file(self, name, content, mode=0o644):
        self._add(name, stat.S_IFREG | mode, content)

    def link(self, name, target):
        self._add(name, stat.S_IFLNK | 0o777, os.fsencode(target))

    def console(self):
        self._add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))

    def tree(self, source, name):
        """The directory SOURCE with all below it, under NAME."""
        source = pathlib.Path(source)
        self.directory(name, stat.S_IMODE(source.stat().st_mode))
        for path in sorted(source.iterdir()):
            inside = f"{name}/{path.name}"
            if path.is_symlink():
                self.link(inside, os.readlink(path))
            elif path.is_dir():
                self.tree(path, inside)
            elif path.is_file():
                self.file(inside, path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
            else:
                raise cache.Failure(f"{path}: neither file, directory nor link")

    def close(self):
        self._add("TRAILER!!!", 0)
        # the kernel wants the next archive on a boundary; isolinux reads sectors
        self._file.write(b"\0" * (-self._file.tell() % 2048))
        self._file.close()


def tools(with_kexec):
    """The archive of init, busybox, kmod and taskset with their libraries."""
    have = packages.need("kmod", "util-linux", "gcc", "libc6-dev")
    # Not installed here: the one would displace its sibling busybox-static, the
    # other would change how this machine reboots. And not busybox-static inside:
    # its shell prefers its own modprobe and taskset to the real ones.
    busybox = packages.extracted("busybox")
    programs = {"bin/busybox": busybox / "bin/busybox", "bin/kmod": pathlib.Path("/bin/kmod"),
                "usr/bin/taskset": pathlib.Path("/usr/bin/taskset")}
    if with_kexec:
        kexec = packages.extracted("kexec-tools") / "sbin/kexec"
        if _lacking(kexec):
            packages.need_libraries_of("kexec-tools")
        programs["sbin/kexec"] = kexec

    def fill(directory):
        init = directory / "init"
        run(["gcc", "-O2", "-Wall", "-Wextra", "-static", "-s", "-o", init, _INIT])
        archive = Archive(directory / "tools.cpio")
        archive.console()
        archive.file("init", init.read_bytes(), 0o755)
        for name in ("proc", "sys", "tmp", "run", "root", "overlay"):
            archive.directory(name)
        for name, text in _ACCOUNTS.items():
            archive.file(name, text.encode())
        for name, path in programs.items():
            archive.file(name, path.read_bytes(), 0o755)
        for path in sorted({path for program in programs.values()
                            for path in libraries(program)}):
            archive.file(path.lstrip("/"), pathlib.Path(path).read_bytes(), 0o755)
        for name in _KMOD_NAMES:
            archive.link(f"sbin/{name}", "/bin/kmod")
        taken = {os.path.basename(name) for name in programs} | set(_KMOD_NAMES)
        for applet in run([busybox / "bin/busybox", "--list-full"]).split():
            if os.path.basename(applet) not in taken:
                archive.link(applet, "/bin/busybox")
        archive.close()

    key = cache.key_of(_INIT, pathlib.Path(__file__), repr(sorted(have.items())),
                       *(str(path) for path in programs.values()))
    return cache.entry("tools", key, fill) / "tools.cpio"


def _lacking(program):
    return re.findall(r"(\S+) => not found", run(["ldd", program]))


def libraries(program):
    """The libraries of a program, which have to be on this machine."""
    if lacking := _lacking(program):
        raise cache.Failure(f"{program}: lacks {' '.join(lacking)}")
    listed = run(["ldd", program])
    return re.findall(r"(?:=> |^\s+)(/\S+) \(", listed, re.M)


def write_run(path, machine_token, modules, version, overlay, command, insert):
    """What this run adds to the tools."""
    archive = Archive(path)
    archive.file("testhost/token", machine_token)
    archive.file("testhost/command", _arguments(command))
    if insert is not None:
        archive.file("testhost/insert", _arguments(insert))
    archive.tree(modules, f"lib/modules/{version}")
    if overlay:
        archive.tree(overlay, "overlay")
    archive.close()


def write_boot(path, kernel, initrd):
    """The kernel and the initramfs as files, for the kexec of a second kernel.

    Compressed, since kexec sums up every byte twice, slowly.
    """
    archive = Archive(path)
    archive.file("boot/vmlinuz", pathlib.Path(kernel).read_bytes())
    archive.file("boot/initrd", gzip.compress(pathlib.Path(initrd).read_bytes(), 1))
    archive.close()


def _arguments(words):
    return b"".join(os.fsencode(word) + b"\0" for word in words)
