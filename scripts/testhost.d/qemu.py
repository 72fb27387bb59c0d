# SPDX-License-Identifier: GPL-2.0
"""QEMU for inside the host, from Debian's packages, with a Linux guest for it.

Inside are qemu-system-x86_64 with the firmware of its machines, and in /guest the
kernel stock-6.1, an initramfs (guest-init, busybox, virtio) and a disk with its sum.
"""

import gzip
import hashlib
import os
import pathlib
import random

import cache
import kernels
import packages
from image import Archive, libraries
from tools import run

# Each with the suite that has it, after the name of the machine's own release. The 7.2.22 of the release
# has its second vCPU's thread spin at its SIPI, on KVM as well: apic_sipi() does not take the request.
_SUITES = {"10.0": "-backports", "7.2": "-security"}
VERSIONS = tuple(_SUITES)
NEWEST = VERSIONS[0]
PROGRAM = "qemu-system-x86_64"

_PACKAGES = ("qemu-system-x86", "qemu-system-data")
_FIRMWARE = ("bios-256k.bin", "bios-microvm.bin", "qboot.rom", "linuxboot_dma.bin", "pvh.bin",
             "kvmvapic.bin", "vgabios-stdvga.bin")
# where Debian's QEMU looks for it, in this order
_FIRMWARE_PLACES = ("usr/share/qemu", "usr/share/seabios")
_GUEST_INIT = pathlib.Path(__file__).with_name("guest-init")
# in the order in which they are inserted
_GUEST_MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
                  "virtio_pci", "virtio_mmio", "virtio_blk")
_DISK_SIZE = 1 << 20


def archive(version):
    """The archive of that QEMU and its guest."""
    guest = kernels.get("stock-6.1")
    busybox = packages.extracted("busybox-static") / "bin/busybox"
    program = packages.unpacked(
        f"qemu-{version}", {**dict.fromkeys(_PACKAGES, _SUITES[version]), "seabios": ""})

    def fill(directory):
        whole = Archive(directory / "qemu.cpio")
        binary = program / "usr/bin" / PROGRAM
        whole.file(f"usr/bin/{PROGRAM}", binary.read_bytes(), 0o755)
        for path in libraries(binary):
            whole.file(path.lstrip("/"), pathlib.Path(path).read_bytes(), 0o755)
        for name in _FIRMWARE:
            found = next(program / place / name for place in _FIRMWARE_PLACES
                         if (program / place / name).exists())
            whole.file(f"usr/share/qemu/{name}", found.read_bytes())
        _write_guest(directory / "guest.cpio", busybox, guest)
        disk = random.Random(0).randbytes(_DISK_SIZE)
        whole.file("guest/vmlinuz", guest.image.read_bytes())
        whole.file("guest/initrd", gzip.compress((directory / "guest.cpio").read_bytes(), 1))
        whole.file("guest/disk", disk)
        whole.file("guest/disk.sha256", hashlib.sha256(disk).hexdigest().encode() + b"\n")
        whole.close()
        os.unlink(directory / "guest.cpio")

    key = cache.key_of(pathlib.Path(__file__), _GUEST_INIT, str(program), str(busybox), guest.key)
    return cache.entry("qemu", key, fill) / "qemu.cpio"


def _write_guest(path, busybox, kernel):
    guest = Archive(path)
    guest.console()
    guest.file("init", _GUEST_INIT.read_bytes(), 0o755)
    guest.file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in run([busybox, "--list"]).split():
        if applet != "busybox":
            guest.link(f"bin/{applet}", "busybox")
    for name in ("proc", "sys", "dev"):
        guest.directory(name)
    for number, name in enumerate(_GUEST_MODULES):
        guest.file(f"modules/{number}-{name}.ko",
                   next(kernel.modules.rglob(f"{name}.ko")).read_bytes())
    guest.close()
