// SPDX-License-Identifier: GPL-2.0
/* What runs on a CPU that Linux does not have, from its first C++ to its last. */
#include "machine.hpp"

#include "arch/x86/cpu_insn.hpp"
#include "arch/x86/vmx_insn.hpp"

#include <utility>

/* traps.S, arch/x86/entry.S: what NMIs must not come into, and where they send it. */
extern "C" {
extern const char kvmpp_wait_window[], kvmpp_wait_window_end[], kvmpp_wait_out[];
extern const char kvmpp_enter_window[], kvmpp_enter_window_end[], kvmpp_enter_out[];
int kvmpp_dedicated_wait(const std::atomic<kvmpp::u32> *bell);
}

namespace kvmpp
{

namespace
{

constexpr u32 split_lock_detect = 1 << 29;
constexpr u32 lvt_masked = 1 << 16;

/* Which it is says the GDT register: nothing else here is the CPU's own. */
DedicatedMachine &this_machine()
{
	constexpr u64 offset = __builtin_offsetof(DedicatedMachine, gdt);
	return *reinterpret_cast<DedicatedMachine *>(insn::gdt_base() - offset);
}

/* "x2APIC State Transitions": by way of the disabled state, in which all of it is reset. */
void set_apic_mode(const DedicatedCpu &cpu, bool x2apic)
{
	using namespace apic_base_bit;

	/* Then it is in x2APIC mode, and INIT resets all else of it. */
	if (cpu.registers.x2apic_locked)
		return;
	u64 base = cpu.registers.apic_base & ~(extended | enabled);

	insn::wrmsr(msr::apic_base, base);
	insn::wrmsr(msr::apic_base, base | enabled);
	if (x2apic)
		insn::wrmsr(msr::apic_base, base | enabled | extended);
}

bool linux_has_x2apic(const DedicatedCpu &cpu)
{
	return cpu.registers.apic_base & apic_base_bit::extended;
}

/* Has Linux look: a thread waits for an answer, or there is none to come. */
void call_linux(DedicatedCpu &cpu)
{
	constexpr u64 nmi = 4 << 8, level_assert = 1 << 14;

	cpu.wants_linux.store(1, std::memory_order_seq_cst);
	cpu.calls->note(insn::rdtsc());
	insn::fence_before_ipi();
	insn::wrmsr(x2apic::icr, u64{cpu.linux_apic_id} << 32 | nmi | level_assert);
}

void answer(DedicatedCpu &cpu, Answer answer)
{
	cpu.posted->answer.store(answer, std::memory_order_release);
}

/* Out of VMX operation, in which INIT would be blocked; the APIC as Linux had it. */
void leave_vmx(DedicatedCpu &cpu)
{
	if (cpu.posted)
		cpu.posted->vmcs->clear_dedicated();
	(void)insn::vmxoff();
	insn::write_cr4(cpu.registers.cr4);
	/* What the guest taught the branch predictor is not for who comes next. */
	if (cpu.registers.has_ibpb)
		insn::wrmsr(msr::pred_cmd, 1);
}

[[noreturn]] void park(DedicatedCpu &cpu, DedicatedCpu::State state)
{
	leave_vmx(cpu);
	set_apic_mode(cpu, linux_has_x2apic(cpu));
	/* INIT may come from here on. */
	cpu.state.store(state, std::memory_order_seq_cst);
	insn::halt();
}

/* It goes on with the interrupts that the host sends to all CPUs, if it does. */
void listen(DedicatedCpu &cpu)
{
	cpu.listening.store(1, std::memory_order_seq_cst);
	while (!(cpu.bell.load(std::memory_order_acquire) & DedicatedCpu::quiet))
		kvmpp_take_interrupts();
	kvmpp_take_interrupts();
	cpu.bell.fetch_and(~u32{DedicatedCpu::quiet}, std::memory_order_relaxed);
	cpu.listening.store(0, std::memory_order_seq_cst);
}

bool vmx_on(const DedicatedCpu &cpu)
{
	insn::write_cr4(cpu.registers.cr4 | cr4::vmxe);
	if (!insn::vmxon(cpu.vmxon_region))
		return false;
	(void)insn::invept(insn::Invalidate::all_contexts, 0);
	(void)insn::invvpid(insn::Invalidate::all_contexts, 0);
	return true;
}

void take_registers(const DedicatedCpu &cpu)
{
	const glue_cpu_registers &r = cpu.registers;

	insn::write_cr4(r.cr4);
	insn::wrmsr(msr::efer, r.efer);
	insn::wrmsr(msr::pat, r.pat);
	insn::wrmsr(msr::gs_base, r.gs_base);
	if (r.has_spec_ctrl)
		insn::wrmsr(msr::spec_ctrl, r.spec_ctrl);
	if (r.xcr0)
		insn::xsetbv(0, r.xcr0);
	/* Linux's #AC for split locks: there is nobody here who would slow the guest down for it. */
	if (r.has_split_lock_detect)
		insn::wrmsr(msr::test_ctrl, insn::rdmsr(msr::test_ctrl) & ~u64{split_lock_detect});
	if (r.has_ibpb)
		insn::wrmsr(msr::pred_cmd, 1);
}

/* Where an instruction goes on that may fault. */
bool fix_up(TrapFrame &frame)
{
	for (unsigned i = 0; i < glue_fixup_count; i++) {
		const glue_fixup &f = glue_fixups[i];

		if (reinterpret_cast<u64>(&f.instruction) + static_cast<s64>(f.instruction) !=
		    frame.rip)
			continue;
		frame.rip = reinterpret_cast<u64>(&f.target) + static_cast<s64>(f.target);
		return true;
	}
	return false;
}

bool is_in(u64 rip, const char *first, const char *end)
{
	return rip >= reinterpret_cast<u64>(first) && rip < reinterpret_cast<u64>(end);
}

/* Who looked and has not entered, or halted, yet is to look again: what comes now would be missed. */
void leave_window(TrapFrame &frame)
{
	if (is_in(frame.rip, kvmpp_enter_window, kvmpp_enter_window_end))
		frame.rip = reinterpret_cast<u64>(kvmpp_enter_out);
	else if (is_in(frame.rip, kvmpp_wait_window, kvmpp_wait_window_end))
		frame.rip = reinterpret_cast<u64>(kvmpp_wait_out);
}

} // namespace

extern "C" [[noreturn]] void kvmpp_dedicated_main(DedicatedMachine *machine)
{
	DedicatedCpu &cpu = machine->record;

	take_registers(cpu);
	set_apic_mode(cpu, true);
	insn::wrmsr(x2apic::lvt_lint0, lvt_masked);
	insn::wrmsr(x2apic::lvt_lint1, lvt_masked);
	/* From here on what is sent to the vCPU waits for it, also before it is there. */
	insn::wrmsr(x2apic::svr, LocalApic::svr_enabled | 0xff);
	if (!vmx_on(cpu))
		park(cpu, DedicatedCpu::State::died);
	/* Who started it may have given it up a moment before. */
	auto expected = DedicatedCpu::State::starts;
	if (!cpu.state.compare_exchange_strong(expected, DedicatedCpu::State::up,
					       std::memory_order_seq_cst))
		park(cpu, DedicatedCpu::State::parked);

	for (;;) {
		/* Its NMI has come and gone, or was not sent: dedicated_crash(). From here on one comes. */
		if (cpu.crash.load(std::memory_order_seq_cst))
			park(cpu, DedicatedCpu::State::parked);
		kvmpp_dedicated_wait(&cpu.bell);
		u32 told = cpu.bell.fetch_and(DedicatedCpu::quiet, std::memory_order_seq_cst);

		if (told & DedicatedCpu::run) {
			Answer how = run_dedicated(cpu, *cpu.posted);

			/* There is nobody to call any more. */
			if (cpu.crash.load(std::memory_order_relaxed))
				park(cpu, DedicatedCpu::State::parked);
			answer(cpu, how);
			call_linux(cpu);
		}
		if (told & DedicatedCpu::listen)
			listen(cpu);
		if (told & DedicatedCpu::stop) {
			if (cpu.posted)
				detach_dedicated(cpu, *cpu.posted);
			park(cpu, DedicatedCpu::State::parked);
		}
	}
}

/* On the stack of NMIs, interrupts and NMIs blocked. */
extern "C" void kvmpp_dedicated_nmi(TrapFrame *frame)
{
	DedicatedCpu &cpu = this_machine().record;

	cpu.note_nmi();
	if (cpu.crash.load(std::memory_order_relaxed))
		park(cpu, DedicatedCpu::State::parked);
	leave_window(*frame);
}

/* Nobody sends one here but who broadcasts. */
extern "C" void kvmpp_dedicated_interrupt(TrapFrame *frame)
{
	DedicatedCpu &cpu = this_machine().record;

	cpu.last_stray.store(frame->vector & 0xff, std::memory_order_relaxed);
	cpu.strays.store(cpu.strays.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
	insn::wrmsr(x2apic::eoi, 0);
}

extern "C" void kvmpp_dedicated_exception(TrapFrame *frame)
{
	DedicatedCpu &cpu = this_machine().record;

	/* Linux patches text by way of INT3: whoever runs into it tries again until it is done. */
	if (static_cast<Vector>(frame->vector) == Vector::breakpoint) {
		frame->rip--;
		insn::cpuid(0);
		/* An NMI in this handler has not seen that it is in the window. */
		leave_window(*frame);
		return;
	}
	bool machine_check = static_cast<Vector>(frame->vector) == Vector::machine_check;
	if (!machine_check && fix_up(*frame))
		return;
	/* Of the way down itself: as little as will do. INIT is blocked while VMX is on. */
	if (std::exchange(cpu.dying, true)) {
		(void)insn::vmxoff();
		cpu.state.store(DedicatedCpu::State::died, std::memory_order_seq_cst);
		insn::halt();
	}
	cpu.fault = {.vector = frame->vector,
		     .error_code = frame->error_code,
		     .rip = frame->rip,
		     .address = insn::read_cr2()};
	/* A second one would reset the machine. What it was stays in the banks, for Linux to find. */
	if (machine_check)
		insn::wrmsr(msr::mcg_status, 0);
	/* The VMCS goes to memory first: the thread reads it there. */
	leave_vmx(cpu);
	if (cpu.posted) {
		/* Nobody waits for what it is asked from here on. */
		cpu.posted->kick->leave_dedicated();
		answer(cpu, Answer::died);
		call_linux(cpu);
	}
	set_apic_mode(cpu, linux_has_x2apic(cpu));
	/* INIT may come from here on. */
	cpu.state.store(DedicatedCpu::State::died, std::memory_order_seq_cst);
	insn::halt();
}

} // namespace kvmpp
