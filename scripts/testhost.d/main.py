# SPDX-License-Identifier: GPL-2.0
"""scripts/testhost: an emulated Intel host to run a command in.

The rooms: emulator.py (Bochs, QEMU), kernels.py (the kernels), module.py (this
checkout's module), qemu.py with guest-init (a VMM and its guest), image.py with init.c (what is inside), machine.py (a run, and
how it ended), reports.py (what the kernel's log may not say), cache.py,
packages.py and tools.py (what these stand on).
"""

import argparse
import os
import pathlib
import secrets
import shlex
import shutil
import signal
import sys

import cache
import emulator
import image
import kernels
import machine
import module
import qemu

# A CPU that sleeps waits for its next timer, and the emulated one was seen to wait
# too long; ignore_loglevel and the rest let no message be lost, whatever COMMAND
# does to the console's level.
_CMDLINE = ("console=ttyS0,115200 ignore_loglevel printk.devkmsg=on "
            "idle=halt nohz=off highres=off cryptomgr.notests")
_TOKEN_LENGTH = 16


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        cache.say(message)
        sys.exit(2)


def _arguments():
    parser = _Parser(
        prog="testhost", allow_abbrev=False,
        description="Boots an emulated Intel host, runs COMMAND as root in it and exits with "
        "its status; 124: time ran out; 125: the host itself failed (no boot, emulator hung, "
        "module not inserted, or a warning, oops, panic or report in the kernel's log).",
        epilog="Inside are busybox, kmod and taskset; DIR's content is in /overlay, the "
        "module in /lib/modules. With --expect kexec also kexec, /boot/vmlinuz and "
        "/boot/initrd (under Bochs, kexec --no-checks saves a minute); the second kernel runs "
        "/overlay/second-command, without inserting the module, and its output and status are "
        "passed on. A COMMAND that names qemu-system-x86_64 has it, and a guest for it in /guest.")
    parser.add_argument("--kernel", choices=kernels.NAMES, default="stock-6.1")
    parser.add_argument("--emulator", choices=("bochs", "tcg"), default="bochs",
                        help="tcg: QEMU, which has no VMX")
    parser.add_argument("--cpus", type=_positive, default=2, metavar="N")
    parser.add_argument("--memory", type=_positive, default=1024, metavar="MiB")
    parser.add_argument("--cpu-model", metavar="NAME",
                        help=f"a CPU that Bochs knows (default {emulator.DEFAULT_CPU_MODEL})")
    parser.add_argument("--feat-ctl", type=_feat_ctl, metavar="VALUE",
                        help="IA32_FEAT_CTL as the firmware locks it on every CPU (default 5: "
                        "locked with VMX on; 1: locked with VMX off)")
    parser.add_argument("--exact", action="store_true",
                        help="Bochs runs one instruction at a time: NMIs can be aimed at any; the "
                        "boot takes two to three times as long")
    parser.add_argument("--module-args", type=shlex.split, default=[], metavar="ARGS",
                        help="given to the module when it is inserted")
    parser.add_argument("--no-insmod", action="store_true", help="do not insert the module")
    parser.add_argument("--qemu", choices=qemu.VERSIONS,
                        help="put in this QEMU, and a guest for it in /guest (default: "
                        f"{qemu.NEWEST} if COMMAND names {qemu.PROGRAM})")
    parser.add_argument("--overlay", type=_directory, metavar="DIR")
    parser.add_argument("--cmdline", default="", help="added to the kernel's command line")
    parser.add_argument("--timeout", type=_positive, default=600, metavar="S",
                        help="in seconds, from the start of the emulator (default 600)")
    parser.add_argument("--expect", choices=("reboot", "panic", "kexec"),
                        help="the end that is wanted: 0 if it comes")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.command[:1] == ["--"]:
        given.command.pop(0)
    if not given.command:
        parser.error("no COMMAND given")
    if not given.qemu and any(qemu.PROGRAM in word for word in given.command):
        given.qemu = qemu.NEWEST
    if given.emulator == "tcg" and (given.cpu_model or given.feat_ctl is not None or given.exact):
        parser.error("--cpu-model, --feat-ctl and --exact are for --emulator bochs")
    return given


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _feat_ctl(text):
    value = int(text, 0)
    if not 0 < value <= 0xffffffff or not value & 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 32 bits with bit 0 (locked)")
    return value


def _directory(text):
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"no directory {text}")
    return pathlib.Path(text)


def _run(given, directory):
    if given.emulator == "bochs":
        host = emulator.Bochs(given.cpu_model or emulator.DEFAULT_CPU_MODEL, given.feat_ctl,
                              given.exact)
    else:
        host = emulator.Tcg()
    kernel = kernels.get(given.kernel)
    modules = directory / "modules"
    if module.exists() or not given.no_insmod:
        module.build(kernel, modules)
    else:
        shutil.copytree(kernel.modules, modules)

    token = secrets.token_bytes(_TOKEN_LENGTH)
    insert = None if given.no_insmod else ["modprobe", "kvmpp", *given.module_args]
    parts = [image.tools(given.expect == "kexec"), directory / "run.cpio"]
    if given.qemu:
        parts.append(qemu.archive(given.qemu))
    image.write_run(parts[1], token, modules, kernel.version, given.overlay, given.command,
                    insert)
    initrd = directory / "initrd"
    _concatenate(parts, initrd)
    if given.expect == "kexec":
        image.write_boot(directory / "boot.cpio", kernel.image, initrd)
        _concatenate([*parts, directory / "boot.cpio"], initrd)

    computer = machine.Machine(directory, token, kernel.image, initrd,
                               f"{_CMDLINE} {given.cmdline}".strip(), given.cpus, given.memory)
    return computer.run(host, given.expect, given.timeout)


def _concatenate(parts, target):
    with open(target, "wb") as whole:
        for part in parts:
            with open(part, "rb") as source:
                shutil.copyfileobj(source, whole)


def main():
    given = _arguments()
    machine.end_on_signals()
    try:
        with cache.run_directory() as directory:
            return _run(given, directory)
    except cache.Failure as why:
        cache.say(str(why))
        return machine.HOST_FAILED
    except BrokenPipeError:
        # nobody reads COMMAND's output any longer: end as SIGPIPE would have it
        return 128 + signal.SIGPIPE


sys.exit(main())
