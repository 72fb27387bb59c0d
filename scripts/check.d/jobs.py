# SPDX-License-Identifier: GPL-2.0
"""What make check runs, besides the host tests."""

import dataclasses
import shutil
import typing

import build
from build import CHECKOUT, TESTHOST, packages

import kernels

# besides compiler, CMake and GoogleTest
HOST_PACKAGES = ["libzydis-dev"]

_TESTS = build.SCRIPTS / "tests"
_KUNIT = "modprobe kvmpp_kunit && dmesg | grep -A100000 'KTAP version 1'"
# of scripts/tests/testhost-selftest, quick ones that no other job shows in passing
_SELFTESTS = ["bad-command-lines", "status", "arguments", "expect-panic", "expect-reboot"]


@dataclasses.dataclass
class Job:
    name: str
    command: typing.Callable[[], list]
    status: int = 0
    # what it prints is TAP, else it passes or fails as a whole
    tap: bool = True
    must_print: str = None
    must_not_print: str = None


def static():
    """Checks of the source that need no machine."""
    return [
        Job("clang, with its thread-safety analysis", _analyze, tap=False),
        Job("format", _clang_format, tap=False),
    ]


def emulated():
    """Tests in the emulated host, the long ones first."""
    return [
        # some ten times as slow as the stock kernel there: what moves VMCSs and memory about
        _tests("debug-6.1: KUnit with VMX, guests, memory, life cycle, failing allocations",
               ["guest_test",
                "memory_test churn slot_removed_under_running_guest remapped_under_running_guest",
                "life_test vmcs_follows_thread cpu_offline_under_guest cpu_offline_under_idle_vmcs",
                "storm_test rounds=6",
                "kill_test making_vcpus running_on_all_cpus as_a_cpu_goes_or_comes vcpu_passed_on",
                "fault_test create_vm create_vcpu set_memory map_run first_run registers ends"],
               "--kernel", "debug-6.1", "--timeout", "1200", "--cmdline", "kunit.enable=1",
               before=f"{_KUNIT}; export KILL_SHARE=6; "),
        Job("sparse, with its checks of contexts", _sparse, tap=False, must_not_print=r"warning:|error:"),
        Job("debug-6.1 under TCG: KUnit",
            lambda: [TESTHOST, "--kernel", "debug-6.1", "--emulator", "tcg", "--no-insmod",
                     "--cmdline", "kunit.enable=1", "--", "sh", "-c", _KUNIT]),
        _tests("stock-6.1: guests, MMIO, signals, host state, ABI",
               ["guest_test", "register_test", "mmio_test", "signal_test", "state_test", "vcpu_test",
                "abi_test"]),
        _tests("stock-6.1: memory, life cycle", ["memory_test", "life_test"]),
        _tests("stock-6.1, four CPUs: storm", ["storm_test rounds=200"], "--cpus", "4"),
        _tests("stock-6.1, four CPUs: another hypervisor, kill -9", ["enable_test", "kill_test"],
               "--cpus", "4"),
        _tests("stock-6.1: the same tests on KVM",
               ["guest_test", "register_test", "mmio_test", "vcpu_test", "abi_test", "tls32_test",
                "stress_test", "storm_test rounds=20",
                "kill_test running_on_all_cpus as_a_cpu_goes_or_comes vcpu_passed_on vcpu_inherited"],
               "--no-insmod", before="modprobe kvm_intel; export KVM_DEVICE=/dev/kvm; "),
        _tests("stock-6.12: guests, signals, life cycle",
               ["guest_test", "register_test", "mmio_test", "signal_test", "life_test"],
               "--kernel", "stock-6.12"),
        _tests("stock-6.1, one CPU, full preemption, no FSGSBASE: host state, stress",
               ["state_test", "tls32_test", "stress_test"],
               "--cpus", "1", "--cmdline", "preempt=full nofsgsbase"),
        # in a row: each of them boots a host or two, mostly in QEMU
        Job("the test host keeps its word",
            lambda: [_TESTS / "testhost-selftest", *_SELFTESTS]),
        Job("demo", lambda: [CHECKOUT / "scripts/demo"], tap=False, must_print=r"(?m)^demo: ok$"),
        Job("stock-6.1: a program for /dev/kvm, unchanged",
            lambda: [TESTHOST, "--overlay", build.make("tools/testing", "testing"), "--", "sh", "-c",
                     "ln -s kvmpp /dev/kvm && /overlay/kvm_sample"], tap=False),
        Job("stock-6.1: four CPUs off and on",
            lambda: [TESTHOST, "--cpus", "4", "--", "sh", "-c",
                     "for i in 1 2 3; do echo 0 > /sys/devices/system/cpu/cpu$i/online; done; "
                     "for i in 1 2 3; do echo 1 > /sys/devices/system/cpu/cpu$i/online; done; "
                     "cat /sys/devices/system/cpu/online"], tap=False, must_print=r"(?m)^0-3$"),
        _refusal("a CPU without VMX", "Operation not supported", "no VMX", "--emulator", "tcg"),
        _refusal("VMX disabled by firmware", "Operation not supported", "disabled by firmware",
                 "--feat-ctl", "1"),
        _refusal("a CPU without EPT", "Input/output error", "no EPT",
                 "--cpu-model", "core2_penryn_t9600"),
    ]


def _tests(name, commands, *options, before=""):
    def command():
        overlay = build.make("tools/testing", "testing")
        script = "".join(f"/overlay/{one} || status=1; " for one in commands)
        return [TESTHOST, "--overlay", overlay, *options, "--", "sh", "-c",
                f"{before}status=0; {script}exit $status"]

    return Job(name, command)


def _refusal(name, error, reason, *options):
    script = (_TESTS / "refused.sh").read_text()
    return Job(f"refused: {name}",
               lambda: [TESTHOST, "--no-insmod", *options, "--", "sh", "-c", script, "refused", error, reason])


def _sources(*endings):
    # what git would carry, so that nothing built is looked at
    names = build.run("git", "-C", CHECKOUT, "ls-files", "--cached", "--others", "--exclude-standard", "--",
                      *(f"*{ending}" for ending in endings)).split()
    return [name for name in names if (CHECKOUT / name).exists()]


def _analyze():
    packages.need("clang")
    return [CHECKOUT / "scripts/analyze"]


def _sparse():
    packages.need("g++", "make", "sparse")
    tree = kernels.get("stock-6.1").build_tree
    place = build.directory("sparse")
    for name in _sources(""):
        if name.startswith(("arch/", "virt/", "include/", "Kbuild", "Makefile")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, place / name)
    return ["make", "-C", place, f"KDIR={tree}", "sparse"]


def _clang_format():
    packages.need("clang-format")
    return ["clang-format", "--dry-run", "-Werror", *_sources(".cpp", ".hpp")]
