# SPDX-License-Identifier: GPL-2.0
"""The emulators: how Bochs is had, and how each is told to boot our machine.

Both get the kernel's console in a file through the first serial port, and put
what the init inside sends to port 0xe9 on their standard output.
"""

import hashlib
import os
import pathlib
import shutil

import cache
import packages
from cache import Failure, say
from tools import run

_PATCH = pathlib.Path(__file__).resolve().parent.parent / "emulator" / "bochs-3.0-vmx.patch"
_TARBALL = "bochs_3.0+dfsg.orig.tar.xz"
_TARBALL_SHA256 = "78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b"
_SOURCE_SUITE = "trixie"
# without the debugger it is several times as fast; show-ips logs from a signal
# handler, which can deadlock
_FLAGS = """--enable-smp --enable-cpu-level=6 --enable-x86-64 --enable-vmx=2
    --enable-pci --enable-repeat-speedups --enable-fast-function-calls
    --enable-handlers-chaining --enable-avx --enable-evex --with-nogui
    --disable-docbook --disable-plugins --disable-show-ips""".split()
_OPTIMIZE = "-O3"

# in MiB: what Bochs keeps at most of the machine's memory in its own; the rest is in a file
_MOST_HOST_MEMORY = 2048

DEFAULT_CPU_MODEL = "corei7_haswell_4770"
_BIOS = "/usr/share/bochs/BIOS-bochs-latest"
_ISOLINUX = "/usr/lib/ISOLINUX/isolinux.bin"
_LDLINUX = "/usr/lib/syslinux/modules/bios/ldlinux.c32"

# The emulated time comes from counted instructions alone (sync=none), starting
# at a fixed date: what the emulating machine does does not show inside.
_BOCHSRC = """\
config_interface: textconfig
display_library: {display}
romimage: file={bios}
vgaromimage: file={vga_bios}
vga: extension=none
memory: guest={memory}, host={host_memory}
cpu: model={cpu_model}, count={cpus}, ips=50000000, quantum=16, reset_on_triple_fault=1{options}
clock: sync=none, time0=1700000000
ata0-master: type=cdrom, path={iso}, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={console}
port_e9_hack: enabled=1
speaker: enabled=0
log: {log}
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""


class Bochs:
    # it computes without a pause as long as it lives, even for an idle guest
    always_busy = True

    def __init__(self, cpu_model, feat_ctl, exact):
        packages.need("bochsbios", "isolinux", "syslinux-common", "genisoimage")
        self._cpu_model = cpu_model
        # of "cpu:", as our patch has them
        self._options = ""
        if feat_ctl is not None:
            self._options += f", feature_control={feat_ctl}"
        if exact:
            self._options += ", trace_length=1"
        self._packaged = False
        try:
            self._program = build_bochs() / "bochs"
        except _NoSource as why:
            if self._options:
                raise Failure(f"{why}, and the packaged one cannot do --feat-ctl and --exact") from why
            say(f"{why}: the packaged 2.7 is slow, and has faults that spoil busy guests")
            # one of its displays has to be there, if not used
            packages.need("bochs", "bochs-term")
            self._packaged = True
            self._program = pathlib.Path("/usr/bin/bochs-bin")

    def command(self, machine):
        """The command that boots the machine; its files go to its directory."""
        _write_iso(machine)
        files = machine.directory
        (files / "vga-bios").write_bytes(_rom(machine.token))
        (files / "bochsrc").write_text(_BOCHSRC.format(
            display='rfb, options="timeout=0"' if self._packaged else "nogui",
            bios=_BIOS, vga_bios=files / "vga-bios", memory=machine.memory,
            host_memory=min(machine.memory, _MOST_HOST_MEMORY),
            cpu_model=self._cpu_model, cpus=machine.cpus,
            options=self._options, iso=files / "boot.iso", console=machine.console, log=files / "emulator.log"))
        command = [str(self._program), "-q", "-f", str(files / "bochsrc")]
        if self._packaged:
            # it comes with the debugger, which asks whether to start
            (files / "debugger").write_text("continue\n")
            command += ["-rc", str(files / "debugger")]
        return command


class Tcg:
    always_busy = False

    def __init__(self):
        packages.need("qemu-system-x86")

    def command(self, machine):
        return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "Haswell-v4",
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-smp", str(machine.cpus), "-m", str(machine.memory),
                "-kernel", str(machine.kernel), "-initrd", str(machine.initrd),
                "-append", machine.cmdline,
                "-serial", f"file:{machine.console}",
                "-chardev", "stdio,id=out,signal=off",
                "-device", "isa-debugcon,iobase=0xe9,chardev=out"]


class _NoSource(Exception):
    pass


def build_bochs():
    key = cache.key_of(_TARBALL_SHA256, _PATCH, " ".join(_FLAGS), _OPTIMIZE)
    return cache.entry("bochs", key, _fill_bochs)


def _fill_bochs(directory):
    packages.need("g++", "make", "patch", "xz-utils", "libc6-dev")
    tarball = _bochs_tarball(directory)
    say("building Bochs 3.0 (about 75 s)...")
    tree = directory / "tree"
    tree.mkdir()
    run(["tar", "-xf", tarball, "-C", tree, "--strip-components=1"])
    run(["patch", "-p1", "-i", _PATCH], cwd=tree)
    flags = {"CFLAGS": _OPTIMIZE, "CXXFLAGS": _OPTIMIZE}
    run(["./configure", *_FLAGS], cwd=tree, env={**os.environ, **flags})
    run(["make", f"-j{os.cpu_count()}"], cwd=tree)
    run(["strip", tree / "bochs", "-o", directory / "bochs"])
    shutil.rmtree(tree)
    for download in directory.glob("*.tar.xz"):
        download.unlink()


def _bochs_tarball(directory):
    given = os.environ.get("KVMPP_BOCHS_SOURCE")
    if given:
        tarball = pathlib.Path(given)
        if not tarball.is_file():
            raise Failure(f"KVMPP_BOCHS_SOURCE: no file {given}")
        if not _is_bochs_source(tarball):
            raise Failure(f"KVMPP_BOCHS_SOURCE: {given} is not {_TARBALL} (sha256)")
        return tarball
    say("fetching Bochs 3.0's source...")
    tarball = directory / _TARBALL
    # the sum is checked here, so the suite's keys need not be on this machine
    options = packages.private_apt("source", "deb-src", [_SOURCE_SUITE], trusted=True)
    try:
        run(["apt-get", *options, "update"])
        run(["apt-get", *options, "source", "--download-only", "bochs"], cwd=directory)
    except Failure:
        # some mirrors lack a file beside the tarball, which is the one wanted
        pass
    if not tarball.is_file() or not _is_bochs_source(tarball):
        raise _NoSource("the source of Bochs 3.0 cannot be had by apt")
    return tarball


def _rom(token):
    """What stands in place of a VGA BIOS: an option ROM that, whenever the machine
    starts or is reset, sends the token and a frame "P" as init.c does."""
    text = token + b"P\0\0"
    code = (b"\x55\xaa\x01"               # the signature, and its length: 512 bytes
            b"\x60\x1e\x0e\x1f"            # pusha; push ds; push cs; pop ds
            b"\xbe\x17\0\xb9" + bytes([len(text)]) + b"\0"   # mov si, text; mov cx, length
            b"\xba\xe9\0\xfc\xf3\x6e"      # mov dx, 0xe9; cld; rep outsb
            b"\x1f\x61\xcb")               # pop ds; popa; retf
    code = (code.ljust(0x17, b"\0") + text).ljust(511, b"\0")
    return code + bytes([-sum(code) % 256])


def _is_bochs_source(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() == _TARBALL_SHA256


def _write_iso(machine):
    tree = machine.directory / "iso"
    tree.mkdir()
    for source, name in ((_ISOLINUX, "isolinux.bin"), (_LDLINUX, "ldlinux.c32")):
        shutil.copy(source, tree / name)
    os.symlink(machine.kernel, tree / "vmlinuz")
    os.symlink(machine.initrd, tree / "initrd")
    (tree / "isolinux.cfg").write_text(
        f"SERIAL 0 115200\nDEFAULT linux\nPROMPT 0\nLABEL linux\n"
        f"KERNEL vmlinuz\nINITRD initrd\nAPPEND {machine.cmdline}\n")
    run(["genisoimage", "-quiet", "-f", "-o", machine.directory / "boot.iso",
         "-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4",
         "-boot-info-table", "-J", "-r", tree])
