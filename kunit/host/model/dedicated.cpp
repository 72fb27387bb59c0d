// SPDX-License-Identifier: GPL-2.0
/* CPUs that Linux does not have, the assembly that runs there, and what comes to their local APICs. */
#include "dedicated.hpp"

#include "arch/x86/dedicated/machine.hpp"
#include "arch/x86/x2apic.hpp"
#include "cpus.hpp"
#include "explore/fiber.hpp"
#include "violation.hpp"
#include "vmx.hpp"

#include "arch/x86/vmcs_field.hpp"

#include <linux_glue/entries.h>

#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

#include <utility>

/* What arch/x86/dedicated/traps.S and entry.S have; here they are addresses and no more. */
asm(R"(
	.section .rodata
	.globl kvmpp_enter_window, kvmpp_enter_window_end, kvmpp_enter_out
	.globl kvmpp_wait_window, kvmpp_wait_window_end, kvmpp_wait_out
	.globl kvmpp_dedicated_stubs, kvmpp_dedicated_nmi_stub, kvmpp_dedicated_exit
kvmpp_enter_window:
	.skip 16
kvmpp_enter_window_end:
	.skip 16
kvmpp_enter_out:
	.skip 16
kvmpp_wait_window:
	.skip 16
kvmpp_wait_window_end:
	.skip 16
kvmpp_wait_out:
	.skip 16
kvmpp_dedicated_exit:
	.skip 16
kvmpp_dedicated_nmi_stub:
	.skip 16
kvmpp_dedicated_stubs:
	.skip 256 * 16
	.previous
)");

extern "C" {
extern const char kvmpp_wait_window[], kvmpp_wait_window_end[], kvmpp_wait_out[];
extern const char kvmpp_enter_window[], kvmpp_enter_window_end[], kvmpp_enter_out[];

/* arch/x86/dedicated/bare.cpp */
[[noreturn]] void kvmpp_dedicated_main(kvmpp::DedicatedMachine *machine);
void kvmpp_dedicated_nmi(kvmpp::TrapFrame *frame);
void kvmpp_dedicated_interrupt(kvmpp::TrapFrame *frame);
void kvmpp_dedicated_exception(kvmpp::TrapFrame *frame);

/* The host's instructions do not fault. */
extern const glue_fixup *glue_fixups;
extern unsigned glue_fixup_count;
const glue_fixup *glue_fixups = nullptr;
unsigned glue_fixup_count = 0;
}

namespace kvmpp::host
{

namespace
{

constexpr int no_cpu = -1;
constexpr std::size_t stack_bytes = 256 * 1024;
alignas(4096) char stacks[cpu_count][stack_bytes];

struct Bare {
	enum class Waits { no, start, listen, hlt, guest, for_ever };

	explore::Fiber fiber;
	bool started = false, hung = false;
	Waits waits = Waits::no;
	unsigned late = 0;
	void (*entry)(void *) = nullptr;
	void *argument = nullptr;
	bool nmi_pending = false, nmi_blocked = false;
	TrapFrame exception{};
	bool raised = false;
	std::vector<u8> interrupts;

	bool nmi_comes() const { return nmi_pending && !nmi_blocked; }
};

Bare bares[cpu_count];
/* The CPU whose coroutine runs. */
int bare_cpu = no_cpu;
std::function<void(Spot)> spot_hook;
unsigned sent, unclaimed;
bool broadcasts;
bool starts_broken[cpu_count];
unsigned lateness[cpu_count];
constexpr unsigned too_late = ~0u;
std::vector<Ipi> ipis;
std::vector<u8> self_ipis;
/* For the sanitizer, of who resumed. */
const void *resumer_stack;
std::size_t resumer_bytes;

Bare &here_bare()
{
	return bares[this_cpu()];
}

/* The coroutine gives way to whoever let it run. */
void suspend(Bare::Waits what)
{
	Bare &b = bares[bare_cpu];
	void *fake = nullptr;

	b.waits = what;
	__sanitizer_start_switch_fiber(&fake, resumer_stack, resumer_bytes);
	b.fiber.suspend();
	__sanitizer_finish_switch_fiber(fake, &resumer_stack, &resumer_bytes);
	b.waits = Bare::Waits::no;
}

void fiber_main()
{
	__sanitizer_finish_switch_fiber(nullptr, &resumer_stack, &resumer_bytes);
	Bare &b = bares[bare_cpu];

	b.waits = Bare::Waits::no;
	b.entry(b.argument);
	violation("the start of a dedicated CPU returns");
	for (;;)
		suspend(Bare::Waits::for_ever);
}

void resume(int cpu)
{
	interrupt(cpu, [cpu] {
		int before = std::exchange(bare_cpu, cpu);
		void *fake = nullptr;

		__sanitizer_start_switch_fiber(&fake, stacks[cpu], stack_bytes);
		bares[cpu].fiber.resume();
		__sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
		bare_cpu = before;
	});
}

/* What waits for this CPU comes, between two instructions of which the next is at @rip. */
u64 come_in(u64 rip)
{
	Bare &b = here_bare();
	TrapFrame frame{};

	frame.rip = rip;
	if (std::exchange(b.raised, false)) {
		frame = b.exception;
		kvmpp_dedicated_exception(&frame);
	}
	while (b.nmi_comes()) {
		b.nmi_pending = false;
		b.nmi_blocked = true;
		frame.vector = static_cast<u64>(Vector::nmi);
		kvmpp_dedicated_nmi(&frame);
		b.nmi_blocked = false; /* IRET */
	}
	return frame.rip;
}

bool can_go(const Bare &b)
{
	if (!b.started || b.hung || b.late)
		return false;
	switch (b.waits) {
	case Bare::Waits::hlt:
	case Bare::Waits::guest:
	case Bare::Waits::for_ever:
		return b.nmi_comes() || (b.raised && b.waits != Bare::Waits::for_ever);
	default:
		return true;
	}
}

u64 address_of(const char *label)
{
	return reinterpret_cast<u64>(label);
}

void at(Spot m)
{
	if (auto hook = spot_hook)
		hook(m);
}

} // namespace

void reset_dedicated_linux();
void set_lateness_passed();

void reset_dedicated()
{
	for (Bare &b : bares)
		b = Bare();
	for (int cpu = 0; cpu < cpu_count; cpu++) {
		starts_broken[cpu] = false;
		lateness[cpu] = 0;
	}
	bare_cpu = no_cpu;
	spot_hook = nullptr;
	sent = unclaimed = 0;
	broadcasts = false;
	ipis.clear();
	self_ipis.clear();
	reset_dedicated_linux();
}

bool is_bare()
{
	return bare_cpu != no_cpu;
}

void forbid_bare(const char *what)
{
	if (is_bare())
		violation("%s on CPU %d, which Linux does not have", what, bare_cpu);
}

bool run_dedicated_cpus()
{
	bool any = false;

	if (is_bare())
		return false;
	for (int cpu = 0; cpu < cpu_count; cpu++) {
		if (!can_go(bares[cpu]))
			continue;
		any = any || bares[cpu].waits != Bare::Waits::listen;
		resume(cpu);
	}
	return any;
}

bool is_started(int cpu)
{
	return bares[cpu].started;
}

bool is_halted(int cpu)
{
	return bares[cpu].waits == Bare::Waits::for_ever;
}

void start_cpu(int cpu, void (*entry)(void *), void *argument)
{
	Bare &b = bares[cpu];

	if (starts_broken[cpu])
		return;
	b = Bare();
	b.started = true;
	b.waits = Bare::Waits::start;
	b.late = lateness[cpu];
	b.entry = entry;
	b.argument = argument;
	__asan_unpoison_memory_region(stacks[cpu], stack_bytes);
	b.fiber.start(stacks[cpu], stack_bytes, fiber_main);
}

void stop_cpu(int cpu)
{
	if (bares[cpu].late > too_late / 2) {
		bares[cpu].late = 0;
		run_dedicated_cpus();
	}
	if (processor(cpu).vmx)
		violation("INIT to CPU %d, which is in VMX operation and does not take it", cpu);
	/* "Processor State After Reset": of CR4, nothing is left. */
	processor(cpu).vmxe = processor(cpu).vmxe_is_ours = false;
	bares[cpu] = Bare();
}

void pass_millisecond()
{
	for (Bare &b : bares)
		if (b.late)
			b.late--;
}

void wait_for_nmi(Vmcs &vmcs)
{
	Bare &b = here_bare();

	while (!b.nmi_comes() && is_bare())
		suspend(Bare::Waits::guest);
	b.nmi_pending = false;
	b.nmi_blocked = true;
	vmcs.fields[field::exit_reason.encoding] = static_cast<u64>(ExitReason::exception_or_nmi);
	vmcs.fields[field::vm_exit_interruption_info.encoding] =
		InterruptionInfo::valid_bit | static_cast<u32>(InterruptionInfo::Type::nmi) << 8 |
		static_cast<u32>(Vector::nmi);
}

void send_nmi(int cpu)
{
	sent++;
	if (bares[cpu].started) {
		bares[cpu].nmi_pending = true;
	} else if (is_online(cpu)) {
		int before = std::exchange(bare_cpu, no_cpu);

		interrupt(cpu, [&] { unclaimed += !kvmpp_nmi(cpu) && !kvmpp_unclaimed_nmi(cpu); });
		bare_cpu = before;
	}
}

void nmi_comes(int cpu)
{
	bares[cpu].nmi_pending = true;
}

unsigned nmis_sent()
{
	return sent;
}

unsigned nmis_unclaimed()
{
	return unclaimed;
}

bool nmis_blocked()
{
	return here_bare().nmi_blocked;
}

void at_spot(std::function<void(Spot)> function)
{
	spot_hook = std::move(function);
}

void break_start(int cpu)
{
	starts_broken[cpu] = true;
}

void hang(int cpu)
{
	bares[cpu].hung = true;
}

void start_late(int cpu, unsigned ms)
{
	lateness[cpu] = ms;
}

void raise(int cpu, u64 vector, u64 error_code)
{
	bares[cpu].exception = {};
	bares[cpu].exception.vector = vector;
	bares[cpu].exception.error_code = error_code;
	bares[cpu].exception.rip = 0xbad;
	bares[cpu].raised = true;
}

void start_too_late(int cpu)
{
	lateness[cpu] = too_late;
}

void set_ipi_broadcast(bool on)
{
	broadcasts = on;
}

void note_broadcast()
{
	constexpr u8 call_function = 0xfb;

	for (int cpu = 0; broadcasts && cpu < cpu_count; cpu++)
		if (bares[cpu].started &&
		    (processor(cpu).msrs[x2apic::svr] & LocalApic::svr_enabled))
			add_interrupt(cpu, call_function);
}

void add_interrupt(int cpu, u8 vector)
{
	bares[cpu].interrupts.push_back(vector);
}

std::vector<Ipi> take_ipis()
{
	return std::exchange(ipis, {});
}

std::vector<u8> take_self_ipis()
{
	return std::exchange(self_ipis, {});
}

void add_apic_msrs(int cpu)
{
	std::map<u32, u64> &m = processor(cpu).msrs;

	for (u32 msr = x2apic::id; msr <= x2apic::self_ipi; msr++)
		m[msr] = 0;
	m[x2apic::svr] = 0xff;
	m[x2apic::id] = apic_id_of(cpu);
	m[msr::apic_base] = 0xfee00000 | apic_base_bit::enabled | (cpu ? 0 : apic_base_bit::bsp);
	for (u32 msr : {msr::efer, msr::pat, msr::gs_base, msr::mcg_status, u32{0x48}})
		m[msr] = 0;
}

void written_msr(u32 index, u64 value)
{
	constexpr u32 nmi = 4;
	Processor &p = here();

	if (x2apic::is_msr(index) && !(p.msrs[msr::apic_base] & apic_base_bit::extended))
		violation("WRMSR of %#x without x2APIC mode", index);
	if (index == msr::apic_base && !(value & apic_base_bit::enabled))
		for (u32 reset = x2apic::tpr; reset <= x2apic::self_ipi; reset++)
			p.msrs[reset] = reset == x2apic::svr ? 0xff : 0;
	if (index == x2apic::self_ipi)
		self_ipis.push_back(static_cast<u8>(value));
	if (index != x2apic::icr)
		return;
	u32 to = static_cast<u32>(value >> 32);
	if ((value >> 8 & 7) != nmi) {
		ipis.push_back({this_cpu(), to, static_cast<u8>(value)});
		return;
	}
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (apic_id_of(cpu) == to)
			send_nmi(cpu);
}

} // namespace kvmpp::host

using namespace kvmpp;
using namespace kvmpp::host;

extern "C" {

void kvmpp_dedicated_start(void *machine)
{
	auto *m = static_cast<DedicatedMachine *>(machine);

	here().gdt_base = reinterpret_cast<u64>(m->gdt_pointer.base);
	kvmpp_dedicated_main(m);
}

int kvmpp_dedicated_enter(kvmpp_gprs *gprs, int launched, const std::atomic<u32> *asked)
{
	constexpr int guest_did_not_run = 2;
	Bare &b = here_bare();

	at(Spot::before_look);
	come_in(0);
	if (asked->load(std::memory_order_relaxed))
		return guest_did_not_run;
	at(Spot::in_window);
	u64 out = address_of(kvmpp_enter_out);
	if (u64 rip = come_in(address_of(kvmpp_enter_window) + 3); rip == out)
		return guest_did_not_run;
	if (come_in(address_of(kvmpp_enter_window_end) - 3) == out)
		return guest_did_not_run;
	if (b.nmi_blocked)
		violation("VM entry on a dedicated CPU with NMIs blocked");
	return enter_guest(*gprs, launched);
}

int kvmpp_dedicated_wait(const std::atomic<u32> *bell)
{
	at(Spot::before_wait);
	come_in(0);
	if (bell->load(std::memory_order_relaxed))
		return 0;
	at(Spot::in_wait);
	if (come_in(address_of(kvmpp_wait_window) + 5) == address_of(kvmpp_wait_out))
		return 0;
	suspend(Bare::Waits::hlt);
	come_in(address_of(kvmpp_wait_window_end));
	return 0;
}

void kvmpp_unblock_nmis(void)
{
	here_bare().nmi_blocked = false;
	come_in(0);
}

void kvmpp_take_interrupts(void)
{
	Bare &b = here_bare();

	for (u8 vector : std::exchange(b.interrupts, {})) {
		TrapFrame frame{};

		/* As PUSH of 8 bits has it. */
		frame.vector = static_cast<u64>(static_cast<s64>(static_cast<signed char>(vector)));
		kvmpp_dedicated_interrupt(&frame);
	}
	if (is_bare())
		suspend(Bare::Waits::listen);
	come_in(0);
}

void kvmpp_fpu_save(void *image, u64)
{
	*static_cast<u64 *>(image) = here().fpu;
}

void kvmpp_fpu_load(const void *image, u64)
{
	here().fpu = *static_cast<const u64 *>(image);
}
}

namespace kvmpp::insn
{

void halt()
{
	for (;;) {
		come_in(0);
		suspend(Bare::Waits::for_ever);
	}
}

} // namespace kvmpp::insn
