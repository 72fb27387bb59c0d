# SPDX-License-Identifier: GPL-2.0
"""What make check runs, besides the host tests."""

import dataclasses
import sys
import typing

import build
from build import CHECKOUT, TESTHOST, cache, packages

import kernels

# besides compiler, CMake and GoogleTest
HOST_PACKAGES = ["libzydis-dev"]

_TESTS = build.SCRIPTS / "tests"
_KUNIT = "modprobe kvmpp_kunit && dmesg | grep -A100000 'KTAP version 1'"
# the rules of kunit/break_rule.c, and what the kernel's own checks have to say; they do not go on
# after a report, so that each takes a boot
_BROKEN_RULES = {
    "usage_lock_inside_cpus_read_lock": r"circular locking[\s\S]*\(kvmpp_usage_lock\)",
    "vm_lock_inside_slots_lock": r"circular locking[\s\S]*\(kvmpp_vm_lock\)",
    "synchronize_srcu_inside_its_read_side": r"Illegal synchronize_srcu\(\)[\s\S]*\(kvmpp_srcu\)",
    "ipi_waited_for_with_irqs_off": r"WARNING: .* smp_call_function_single\+",
    "sleeps_in_atomic_context": r"sleeping function called[\s\S]*\(kvmpp_mmu_lock\)",
    "mmu_lock_in_interrupt": r"inconsistent lock state[\s\S]*\(kvmpp_mmu_lock\)",
    "lock_held_at_return_to_user_space":
        r"lock held when returning to user space[\s\S]*\(kvmpp_vcpu_mutex\)",
}
_OFF_AND_ON = ("for state in 0 1; do for i in 1 2 3; do echo $state > /sys/devices/system/cpu/cpu$i/online || exit; "
               "done; done; [ $(cat /sys/devices/system/cpu/online) = 0-3 ]")
_QEMU = ["--memory", "1536", "--timeout", "900", "--qemu"]
# of scripts/tests/testhost-selftest, quick ones that no other job shows in passing
_SELFTESTS = ["bad-command-lines", "status", "arguments", "expect-panic", "expect-reboot"]


@dataclasses.dataclass
class Job:
    name: str
    command: typing.Callable[[], list]
    status: int = 0
    # what it prints is TAP, else it passes or fails as a whole
    tap: bool = True
    # it is the kernel's log with what KUnit says
    kunit: bool = False
    must_print: str = None
    must_not_print: str = None
    # it shows that the test host and the tests are right, and has nothing of the module: needed once for each
    # state of those
    once: bool = False


def state_of_the_tests():
    """A name for it: of the test host, the programs in it, and the kernel."""
    files = [CHECKOUT / name for name in _sources("") if name.startswith(("scripts/", "tools/testing/", "include/uapi/"))]
    return cache.key_of(kernels.get("stock-6.1").key, *map(str, files), *files)


def static():
    """Checks that need no machine."""
    return [
        Job("explorer: every schedule of the life cycle, and mutants",
            lambda: [CHECKOUT / "scripts/explore", "--seconds", "45"]),
        Job("clang, with its thread-safety analysis", _analyze, tap=False),
        Job("clang refuses what breaks a rule", lambda: [*_analyze(), "--selftest"]),
        Job("kvmpp, the command: its own tests", _kvmpp_selftest),
        Job("format", _clang_format, tap=False),
        Job("api.rst has all of KVM's ABI, as the source has it",
            lambda: [sys.executable, "-B", build.SCRIPTS / "check.d/abi.py"]),
    ]


def of_the_module():
    """What builds the module, each with both cores."""
    return [
        Job("sparse, with its checks of contexts, and what it must refuse",
            lambda: [CHECKOUT / "scripts/sparse"],
            must_not_print=r"(?m)^[^#]*(warning|error):"),
        Job("the build refuses bare code that calls what is not", _bare),
    ]


def emulated():
    """Tests in the emulated host, the long ones first."""
    return [
        # some ten times as slow as the stock kernel there: what moves VMCSs and memory about
        _tests("debug-6.1: KUnit with VMX, guests, memory, life cycle, S3",
               ["guest_test",
                "memory_test churn slot_removed_under_running_guest remapped_under_running_guest",
                "life_test vmcs_follows_thread cpu_offline_under_guest cpu_offline_under_idle_vmcs",
                "machine_test suspend_to_ram"],
               "--kernel", "debug-6.1", "--timeout", "900", "--cmdline", "kmemleak=off kunit.enable=1",
               before=f"{_KUNIT}; "),
        _tests("stock-6.1: QEMU 7.2 boots Linux, all interrupt controllers its own, and its gdbstub stops it",
               ["qemu_test microvm_host_two_cpus has_a_screen debugged"],
               "--cpus", "1", *_QEMU, "7.2", before="export IRQCHIP=off; "),
        _tests("stock-6.1: QEMU 10.0: microvm with local APICs, pc with all controllers in the kernel, and without any",
               ["qemu_test microvm_host_two_cpus pc_host_two_cpus", "IRQCHIP=off qemu_test pc_qemu64"],
               "--cpus", "1", *_QEMU, "10.0"),
        _tests("stock-6.1: QEMU's vCPU goes to a CPU of its own and back",
               ["qemu_test moves_to_a_cpu_of_its_own"], "--cpus", "2", *_QEMU, "10.0"),
        _tests("debug-6.1: ABI, signals, storm, kill -9, failing allocations",
               ["abi_test", "irqchip_abi_test", "pit_test", "vcpu_test", "signal_test", "storm_test rounds=6",
                "kill_test making_vcpus running_on_all_cpus as_a_cpu_goes_or_comes vcpu_passed_on",
                "fault_test create_vm create_vcpu set_memory map_run first_run registers ends dedicate"],
               "--kernel", "debug-6.1", "--timeout", "1200", "--cmdline", "kmemleak=off",
               before="export KILL_SHARE=6; "),
        _tests("stock-6.1, one instruction a turn: NMIs and exceptions at each of a dedicated CPU's, its interrupts and TSC",
               ["kick_test", "death_test", "owned_test"], "--exact", "--cpus", "3", "--timeout", "900"),
        _tests("stock-6.1: any call of the ABI, any instruction of a guest",
               ["fuzz_test calls=20000", "hostile_test blocks=60"],
               "--cpus", "2", "--timeout", "900",
               "--cmdline", "no_ipi_broadcast=1"),
        Job("debug-6.1 under TCG: KUnit",
            lambda: [TESTHOST, "--kernel", "debug-6.1", "--emulator", "tcg", "--no-insmod",
                     "--cmdline", "kmemleak=off kunit.enable=1", "--", "sh", "-c", _KUNIT], kunit=True),
        *(_broken_rule(rule, says) for rule, says in _BROKEN_RULES.items()),
        _tests("stock-6.1: guests, MMIO, signals, host state, ABI; as QEMU has them, the vCPU on a CPU of its own, and moving",
               ["guest_test", "register_test", "mmio_test", "emulate_test", "signal_test", "state_test", "events_test",
                "vcpu_test", "abi_test", "irqchip_abi_test", "pit_test", "eventfd_test", "clock_test", "steal_time_test",
                # a program for /dev/kvm, unchanged
                "kvm_sample",
                "apic_test",
                *(f"DEDICATED=1 {one}" for one in ("injection_test", "events_test", "dirty_log_test", "large_page_test"))],
               before="ln -s kvmpp /dev/kvm; "),
        _tests("stock-6.1: memory, swap, KSM, life cycle, directed yield, S3",
               ["memory_test", "large_page_test", "dirty_log_test", "reclaim_test", "life_test", "yield_test",
                "machine_test"]),
        _tests("stock-6.1, mitigations=off: executed pages may be large; a page of 1 GiB; no accessed bits in EPT entries",
               ["large_page_test", "dirty_log_test exact_in_large_pages copy_in_step", "reclaim_test swapped_out"],
               "--memory", "5376", "--module-args", "eptad=0",
               "--cmdline", "mitigations=off hugepagesz=1G hugepages=1"),
        _page_log(),
        _tests("stock-6.1, four CPUs: storm; dedicated CPUs, and what comes back of them",
               ["storm_test rounds=200", "dedicated_test", "given_back_test"], "--cpus", "4",
               "--cmdline", "no_ipi_broadcast=1"),
        _tests("stock-6.1, four CPUs, off and on: a dedicated CPU where Linux sends interrupts to all",
               ["dedicated_test broadcasts_do_not_reach_the_guest while_it_runs killed memory_follows"],
               "--cpus", "4", before=f"{_OFF_AND_ON} || exit; "),
        _tests("stock-6.1, four CPUs: another hypervisor, limits, kill -9, kvmpp status and check",
               ["enable_test", "limits_test", "kill_test", "command_test"], "--cpus", "4",
               "--cmdline", "no_ipi_broadcast=1"),
        _second_kernel("stock-6.1: a crash under guests, and a crash kernel with all CPUs", "crash", "-p",
                       "--memory", "1536", "--cmdline", "crashkernel=448M no_ipi_broadcast=1"),
        _second_kernel("stock-6.1: kexec under guests", "kexec", "-l", "--cmdline", "no_ipi_broadcast=1"),
        dataclasses.replace(
            _tests("stock-6.1: the same tests on KVM",
                   ["guest_test", "register_test", "mmio_test", "emulate_test", "events_test", "injection_test", "vcpu_test",
                    "abi_test", "irqchip_abi_test", "pit_test", "tls32_test",
                    "eventfd_test", "clock_test", "steal_time_test",
                    "stress_test", "yield_test", "machine_test", "storm_test rounds=20",
                    "large_page_test", "dirty_log_test", "reclaim_test",
                    "kill_test running_on_all_cpus as_a_cpu_goes_or_comes vcpu_passed_on vcpu_inherited"],
                   "--no-insmod", before="modprobe kvm_intel; export KVM_DEVICE=/dev/kvm; "), once=True),
        _tests("stock-6.12: guests, signals, life cycle, dedicated CPUs",
               ["guest_test", "signal_test", "life_test", "dedicated_test", "large_page_test", "dirty_log_test"],
               "--kernel", "stock-6.12"),
        _tests("stock-6.1, one CPU, full preemption, no FSGSBASE: host state, stress",
               ["state_test", "tls32_test", "stress_test"],
               "--cpus", "1", "--cmdline", "preempt=full nofsgsbase"),
        dataclasses.replace(
            _tests("the emulator's test device, one instruction a turn", ["bochs_test"],
                   "--no-insmod", "--exact", "--cpus", "3",
                   before="modprobe kvm_intel; export KVM_DEVICE=/dev/kvm; "), once=True),
        Job("make bench runs, and a dedicated CPU's guest has no exit for ticks, HLT and IPIs",
            lambda: [CHECKOUT / "scripts/bench", "--quick"], tap=False, must_print=r"(?m)^bench: ok$"),
        Job("the emulated CPU does as hardware: INIT, x2APIC, IPIs, NMIs, HLT",
            lambda: [TESTHOST, "--no-insmod", "--cpus", "4", "--", "sh", "-c",
                     "modprobe emulated_cpu; status=$?; dmesg | grep -A100000 'TAP version'; "
                     "exit $status"], once=True),
        # in a row: each of them boots a host or two, mostly in QEMU
        Job("the test host keeps its word",
            lambda: [_TESTS / "testhost-selftest", *_SELFTESTS], once=True),
        Job("demo", lambda: [CHECKOUT / "scripts/demo"], tap=False, must_print=r"(?m)^demo: ok$"),
        *(_reboot(how) for how in ("reboot_by_init", "reboot_forced", "reboot_by_sysrq")),
        _refusal("a CPU without VMX", "Operation not supported", "no VMX", ("CPU", "without VMX"),
                 "--emulator", "tcg", "--cpus", "1"),
        _refusal("VMX disabled by firmware", "Operation not supported", "disabled by firmware",
                 ("firmware", "enable VT-x"), "--feat-ctl", "1"),
        _refusal("a CPU without EPT", "Input/output error", "no EPT", ("VMX features", "no EPT"),
                 "--cpu-model", "core2_penryn_t9600"),
    ]


def further():
    """Only in "all": what others show as well, of which little is expected."""
    return [
        _tests("stock-6.1: QEMU 7.2, with other machines and CPUs",
               ["qemu_test microvm_qemu64 microvm_host pc_qemu64 pc_qemu64_two_cpus"],
               "--cpus", "1", *_QEMU, "7.2", before="export IRQCHIP=off; "),
        _tests("stock-6.1: QEMU 10.0, with other machines and CPUs", ["qemu_test microvm_qemu64 pc_host"],
               "--cpus", "1", *_QEMU, "10.0"),
        _tests("stock-6.12: registers, MMIO", ["register_test", "mmio_test"], "--kernel", "stock-6.12"),
    ]


def _tests(name, commands, *options, before=""):
    def command():
        # a command may begin with what is in its environment
        programs = {next(word for word in one.split() if "=" not in word): None for one in commands}
        script = "".join(f"{one} || status=1; " for one in commands)
        return [TESTHOST, "--overlay", build.overlay(*programs), *options, "--", "sh", "-c",
                f"PATH=/overlay:$PATH; {before}status=0; {script}exit $status"]

    return Job(name, command)


def _page_log():
    def command():
        return [TESTHOST, "--overlay", build.overlay("dirty_log_test"), "--cpus", "2",
                "--cpu-model", "corei7_skylake_x", "--", "sh", "-c",
                (_TESTS / "page-log.sh").read_text()]

    return Job("stock-6.1, a CPU that logs pages: the dirty log with that and without, on a CPU of its own, and KVM",
               command)


def _second_kernel(name, case, load, *options):
    # its CPUs, and VMX on each, are judged by second-command there
    return _tests(name, [f"machine_test {case}"], "--expect", "kexec", "--cpus", "4", *options,
                  before=f"kexec --no-checks {load} /boot/vmlinuz --initrd=/boot/initrd --reuse-cmdline "
                  "|| exit; ")


def _reboot(case):
    # the emulator says if a CPU was in VMX operation when it was reset
    return dataclasses.replace(
        _tests(f"stock-6.1: {case} under guests", [f"machine_test {case}"], "--expect", "reboot",
               "--cpus", "4", "--cmdline", "no_ipi_broadcast=1"),
        tap=False)


def _refusal(name, error, reason, check, *options):
    script = (_TESTS / "refused.sh").read_text()
    return Job(f"refused: {name}",
               lambda: [TESTHOST, "--no-insmod", "--overlay", build.overlay(), *options,
                        "--", "sh", "-c", script, "refused", error, reason, *check])


def _broken_rule(rule, says):
    return Job(f"debug-6.1 under TCG reports: {rule}",
               lambda: [TESTHOST, "--kernel", "debug-6.1", "--emulator", "tcg", "--no-insmod",
                        "--memory", "512", "--cmdline", "kmemleak=off", "--", "modprobe", "kvmpp_kunit", f"break_rule={rule}"],
               status=125, tap=False, must_print=says)


def _sources(*endings):
    # what git would carry, so that nothing built is looked at
    names = build.run("git", "-C", CHECKOUT, "ls-files", "--cached", "--others", "--exclude-standard", "--",
                      *(f"*{ending}" for ending in endings)).split()
    return [name for name in names if (CHECKOUT / name).exists()]


def _analyze():
    packages.need("clang")
    return [CHECKOUT / "scripts/analyze"]


def _bare():
    return [sys.executable, "-B", build.SCRIPTS / "check.d/bare.py"]


def _kvmpp_selftest():
    return [build.make("tools/kvmpp", "kvmpp", "selftest") / "kvmpp-build/selftest"]


def _clang_format():
    packages.need("clang-format")
    return ["clang-format", "--dry-run", "-Werror", *_sources(".cpp", ".hpp")]
