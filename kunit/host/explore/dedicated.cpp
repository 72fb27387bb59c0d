// SPDX-License-Identifier: GPL-2.0
#include "dedicated.hpp"

#include "arch/x86/dedicated/machine.hpp"
#include "crash.hpp"
#include "hotplug.hpp"
#include "machine.hpp"
#include "memory.hpp"
#include "races.hpp"
#include "scenario.hpp"
#include "vmx.hpp"

#include <linux_glue/alloc.h>
#include <linux_glue/cpu.h>
#include <linux_glue/dedicated.h>
#include <linux_glue/guest.h>
#include <linux_glue/x86.h>

#include <asm/errno.h>

#include <cstring>
#include <utility>

/* The places of arch/x86/entry.S and dedicated/traps.S; here they are addresses and no more. */
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
struct glue_fixup;
void kvmpp_dedicated_start(void *machine);
int kvmpp_dedicated_wait(const std::atomic<kvmpp::u32> *bell);
extern const glue_fixup *glue_fixups;
extern unsigned glue_fixup_count;
const glue_fixup *glue_fixups = nullptr;
unsigned glue_fixup_count = 0;
}

struct glue_private_map {
	static constexpr int most = 16;
	int count;
	struct {
		kvmpp::u64 start, end;
	} ranges[most];
};

struct glue_bell {
	kvmpp::u64 rings;
};

namespace kvmpp::explore
{

namespace
{

/* Where the CPU's next instruction is, as an NMI finds it. */
enum class Place : u8 { elsewhere, enter_window, guest, wait_window, hlt };
constexpr int most_deeds = 4;
constexpr unsigned long stack_bytes = 64 * 1024;
alignas(4096) char stacks[max_cpus][stack_bytes];
alignas(4096) char nmi_stacks[max_processes][stack_bytes];

struct Bare {
	bool started;
	Fiber fiber;
	int process; /* nobody: in setup or end */
	void (*entry)(void *);
	void *argument;
	const glue_private_map *map;
	Place place;
	/* An NMI has sent it the way out of a window; has ended HLT; is the guest's exit. */
	bool redirected, woken, exited;
	Deed deeds[most_deeds];
	int deed_count, deeds_done;
};

/* An NMI that a CPU has not taken yet, of which there is no more than one. */
struct Latch {
	bool pending;
	int process;
	bool taken; /* by Linux, whose handler is under way */
};

struct State {
	Bare bares[max_cpus];
	Latch latches[max_cpus];
	bool signals[max_processes];
	/* In setup and end: the CPU whose code runs. */
	int bare_at_once;
	bool used;
	u64 devices; /* who holds the device-hotplug lock */
};
State state;

Bare &here()
{
	return state.bares[this_cpu()];
}

u16 latch_object(int cpu)
{
	return object_at(&state.latches[cpu]);
}

u64 address_of(const char *label)
{
	return reinterpret_cast<u64>(label);
}

/* What arch/x86/dedicated/bare.cpp makes of an NMI. */
void handle_nmi(int cpu)
{
	Bare &b = state.bares[cpu];
	TrapFrame frame{};

	frame.vector = 2;
	frame.rip = b.place == Place::enter_window  ? address_of(kvmpp_enter_window) + 4
		    : b.place == Place::wait_window ? address_of(kvmpp_wait_window) + 4
		    : b.place == Place::hlt         ? address_of(kvmpp_wait_window_end)
						    : 0;
	u64 before = frame.rip;
	variant->dedicated_nmi(&frame);
	b.redirected = frame.rip != before;
	if (b.redirected &&
	    frame.rip !=
		    address_of(b.place == Place::enter_window ? kvmpp_enter_out : kvmpp_wait_out))
		fail("an NMI sends the CPU somewhere else");
	b.woken = b.place == Place::hlt;
}

void suspend_at_once()
{
	Bare &b = state.bares[state.bare_at_once];

	(b.process == nobody ? b.fiber : processes[b.process].fiber).suspend();
}

/* In setup and end: true when there was one. */
bool take_nmi_at_once(int cpu)
{
	if (!std::exchange(state.latches[cpu].pending, false))
		return false;
	handle_nmi(cpu);
	return true;
}

void bare_main()
{
	Bare &b = here();

	b.entry(b.argument);
	fail("the start of a dedicated CPU returns");
}

void run_at_once_on(int cpu)
{
	run_at_once(
		cpu,
		[](void *argument) {
			int c = static_cast<int>(reinterpret_cast<u64>(argument));
			Bare &b = state.bares[c];
			int before = std::exchange(state.bare_at_once, c);

			(b.process == nobody ? b.fiber : processes[b.process].fiber).resume();
			state.bare_at_once = before;
		},
		reinterpret_cast<void *>(static_cast<u64>(cpu)));
}

void run_all_at_once()
{
	if (state.bare_at_once != nobody)
		return;
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (state.bares[cpu].started)
			run_at_once_on(cpu);
}

void become_process(int cpu, int id)
{
	Bare &b = state.bares[cpu];
	Process &p = processes[id];

	b.process = id;
	p.bare = p.cpu = p.last_cpu = p.pinned = cpu;
	p.daemon = true;
	cpus[cpu].thread = id;
	cpus[cpu].bare = true;
	cpus[cpu].irq_off = nobody;
	p.next.accesses.add(object_of(Fixed::interrupts, cpu), Kind::read);
}

/* On a CPU that runs code of the module's. */
void bare_nmi_main()
{
	Process &p = self();
	int cpu = p.target;
	Bare &b = state.bares[cpu];
	Process &interrupted = processes[b.process];

	state.latches[cpu].pending = false;
	if (b.place == Place::guest) {
		b.exited = true;
		/* NMIs are blocked from the exit on, until kvmpp_unblock_nmis(). */
		cpus[cpu].irq_off = b.process;
		interrupted.irq_off = true;
	} else {
		p.bare = cpu;
		p.at_once = true;
		handle_nmi(cpu);
		cpus[cpu].irq_off = nobody;
	}
	current_step.accesses.add(object_of(Fixed::interrupts, cpu), Kind::publish);
	published_by(object_of(Fixed::interrupts, cpu)).join(release_now());
	seen[b.process].join(release_now());
	p.state = Process::State::finished;
	p.fiber.suspend();
}

void linux_nmi_main()
{
	Process &p = self();
	int cpu = p.target;
	Latch &latch = state.latches[cpu];

	latch.pending = false;
	latch.taken = true;
	if (!variant->nmi(cpu) && !variant->unclaimed_nmi(cpu))
		fail("an NMI on CPU %d that Linux does not know", cpu);
	step(Op{.what = "returns", .fence = true}.write(latch_object(cpu)));
	latch.taken = false;
	p.state = Process::State::finished;
	p.fiber.suspend();
}

/*
 * The handler is one step: none of its CPU's comes in between, and what others see of it is that it
 * accounts for the NMI.
 */
void note_accesses_of_handler(int cpu, Accesses &a)
{
	const DedicatedCpu &record =
		static_cast<DedicatedMachine *>(state.bares[cpu].argument)->record;
	auto account = reinterpret_cast<const u64 *>(&record.nmis);

	a.add(object_at(account), Kind::read);
	a.add(object_at(account + 1), Kind::write);
	a.add(object_at(&record.crash), Kind::read);
	a.add(object_at(&record.nmis_unknown), Kind::write);
}

/* The interrupts of the CPU this is on: a step at which it makes a difference whether an NMI came. */
u16 nmis_here()
{
	return object_of(Fixed::interrupts, this_cpu());
}

void spawn_nmi(int cpu)
{
	int id = add_process("NMI");
	Process &p = processes[id];

	p.daemon = true;
	p.target = cpu;
	state.latches[cpu].process = id;
	if (state.bares[cpu].started) {
		p.handler = true;
		p.next = {.what = "NMI on CPU %llu",
			  .argument = static_cast<u64>(cpu),
			  .takes = Op::Takes::interrupts};
		p.next.accesses.add(latch_object(cpu), Kind::write);
		note_accesses_of_handler(cpu, p.next.accesses);
		p.fiber.start(nmi_stacks[id], stack_bytes, bare_nmi_main);
		return;
	}
	p.daemon = false;
	p.nmi = true;
	p.next = {.what = "Linux takes an NMI on CPU %llu", .argument = static_cast<u64>(cpu)};
	p.next.accesses.add(latch_object(cpu), Kind::write);
	p.next.ready = [](u64 c) { return !state.latches[c].taken; };
	p.next.ready_argument = static_cast<u64>(cpu);
	p.fiber.start(nmi_stacks[id], stack_bytes, linux_nmi_main);
}

/* It has come to a place where an NMI makes a difference; true when one came before it went on. */
bool sent_out(Op &&op)
{
	step(static_cast<Op &&>(op).read(nmis_here()));
	return std::exchange(here().redirected, false);
}

int exit_by_nmi()
{
	note_exit(0, 0x80000202);
	here().place = Place::elsewhere;
	return 0;
}

} // namespace

void reset_dedicated()
{
	state = {};
	state.bare_at_once = nobody;
	for (Bare &b : state.bares)
		b.process = nobody;
	keep(&state, sizeof(state));
}

void go_on_with_dedicated()
{
	for (int cpu = 0; cpu < cpu_count; cpu++) {
		Bare &b = state.bares[cpu];
		constexpr const char *names[max_cpus] = {"CPU 0", "CPU 1", "CPU 2"};

		if (!b.started)
			continue;
		int id = add_thread(names[cpu], nullptr, cpu);
		processes[id].fiber = b.fiber;
		become_process(cpu, id);
	}
}

bool is_dedicated(int cpu)
{
	return state.bares[cpu].started;
}

void guest_does(int cpu, Deed deed)
{
	Bare &b = state.bares[cpu];

	b.deeds[b.deed_count++] = deed;
}

void send_nmi(int cpu)
{
	Latch &latch = state.latches[cpu];

	if (!exploring()) {
		if (state.bares[cpu].started)
			latch.pending = true;
		else if (cpus[cpu].online)
			variant->nmi(cpu);
		return;
	}
	step(Op{.what = "sends an NMI to CPU %llu",
		.argument = static_cast<u64>(cpu),
		.fence = true}
		     .write(latch_object(cpu)));
	/* One that waits for SIPI takes none. */
	if (latch.pending || !(state.bares[cpu].started || cpus[cpu].online))
		return;
	latch.pending = true;
	spawn_nmi(cpu);
}

void send_signal(int number)
{
	step(Op{.what = "sends a signal", .fence = true}.write(object_at(&state.signals[number])));
	state.signals[number] = true;
}

bool signal_is_pending()
{
	if (!exploring() || !state.used)
		return false;
	step(Op{.what = "looks for a signal"}.read(object_at(&state.signals[running])));
	return state.signals[running];
}

bool waits_for_dedicated()
{
	return state.used;
}

void check_mapped(const void *address)
{
	if (!exploring() || self().bare == nobody)
		return;
	const glue_private_map *map = state.bares[self().bare].map;
	u64 at = reinterpret_cast<u64>(address);

	/* A guest's page walk goes by physical addresses. */
	if (!in_arena(arena_offset(address)) || state.bares[self().bare].place == Place::guest)
		return;
	for (int i = 0; i < map->count; i++)
		if (at >= map->ranges[i].start && at < map->ranges[i].end)
			return;
	fail("CPU %d accesses memory that its page tables do not map: +%#llx of the arena",
	     self().bare, static_cast<unsigned long long>(arena_offset(address)));
}

void note_fence()
{
	if (exploring())
		full_barrier("MFENCE");
}

u64 gdt_of(int cpu)
{
	return reinterpret_cast<u64>(
		static_cast<DedicatedMachine *>(state.bares[cpu].argument)->gdt);
}

void write_icr(u64 value)
{
	int cpu = static_cast<int>(value >> 32);

	if ((value >> 8 & 7) == 4)
		return send_nmi(cpu);
	step(Op{.what = "sends the guest's IPI to CPU %llu", .argument = static_cast<u64>(cpu)}
		     .read(object_of(Fixed::online, cpu)));
	if (!state.bares[cpu].started)
		fail("a guest's IPI to CPU %d, which is not a guest's", cpu);
}

} // namespace kvmpp::explore

using namespace kvmpp;
using namespace kvmpp::explore;

extern "C" {

void kvmpp_dedicated_start(void *machine)
{
	variant->dedicated_main(static_cast<DedicatedMachine *>(machine));
}

int kvmpp_dedicated_enter(kvmpp_gprs *gprs, int launched, const std::atomic<u32> *asked)
{
	constexpr int guest_did_not_run = 2;
	Bare &b = here();
	u64 *registers = gprs->gpr;

	b.redirected = b.exited = false;
	/* Before the window, that is. */
	step(Op{.what = "is about to look what is asked"}.read(nmis_here()));
	b.place = Place::enter_window;
	/* The look. */
	step(Op{.what = "looks what is asked", .argument = reinterpret_cast<u64>(asked)}
		     .read(object_at(asked))
		     .read(nmis_here()));
	u32 value;
	std::memcpy(&value, asked, sizeof(value));
	check_mapped(asked);
	check_mapped(gprs);
	if (std::exchange(b.redirected, false) || value) {
		b.place = Place::elsewhere;
		return guest_did_not_run;
	}
	if (sent_out(Op{.what = "loads the guest's registers"}) ||
	    sent_out(Op{.what = launched ? "VMRESUME" : "VMLAUNCH"}.write(current_vmcs()))) {
		b.place = Place::elsewhere;
		return guest_did_not_run;
	}
	enter_vmcs(launched);
	b.place = Place::guest;
	for (;;) {
		if (!exploring()) {
			if (std::exchange(state.latches[this_cpu()].pending, false))
				return exit_by_nmi();
			suspend_at_once();
			continue;
		}
		if (b.deeds_done == b.deed_count) {
			step(Op{.what = "guest is interrupted by an NMI"}
				     .read(nmis_here())
				     .when([](u64 c) { return state.bares[c].exited; },
					   static_cast<u64>(this_cpu())));
			if (exploring())
				return exit_by_nmi();
			continue;
		}
		Deed deed = b.deeds[b.deeds_done];
		if (deed == Deed::touches) {
			/* It has not done it when it exits for it. */
			if (guest_uses_first_page()) {
				b.place = Place::elsewhere;
				return 0;
			}
			if (b.exited)
				return exit_by_nmi();
			b.deeds_done++;
			continue;
		}
		step(Op{.what = deed == Deed::exits   ? "guest does HLT"
				: deed == Deed::stays ? "guest does WBINVD"
						      : "guest writes its ICR"}
			     .read(nmis_here()));
		if (b.exited)
			return exit_by_nmi();
		b.deeds_done++;
		b.place = Place::elsewhere;
		registers[1] = 0x830; /* RCX */
		registers[0] = 0x20;  /* RAX: the vector */
		registers[2] = 1;     /* RDX: the destination */
		note_exit(deed == Deed::exits ? 12 : deed == Deed::stays ? 54 : 32, 0);
		return 0;
	}
}

int kvmpp_dedicated_wait(const std::atomic<u32> *bell)
{
	Bare &b = here();

	for (;;) {
		if (!exploring()) {
			if (take_nmi_at_once(this_cpu()))
				return 0;
			if (bell->load(std::memory_order_relaxed))
				return 0;
			suspend_at_once();
			continue;
		}
		b.redirected = b.woken = false;
		step(Op{.what = "is about to look at its bell"}.read(nmis_here()));
		b.place = Place::wait_window;
		step(Op{.what = "looks at its bell"}.read(object_at(bell)).read(nmis_here()));
		u32 value;
		std::memcpy(&value, bell, sizeof(value));
		check_mapped(bell);
		if (std::exchange(b.redirected, false) || value) {
			b.place = Place::elsewhere;
			return 0;
		}
		if (sent_out(Op{.what = "HLT"})) {
			b.place = Place::elsewhere;
			return 0;
		}
		b.place = Place::hlt;
		step(Op{.what = "HLT ends"}
			     .read(nmis_here())
			     .when([](u64 c) { return state.bares[c].woken; },
				   static_cast<u64>(this_cpu())));
		b.place = Place::elsewhere;
		if (exploring())
			return 0;
	}
}

void kvmpp_unblock_nmis(void)
{
	int cpu = this_cpu();

	if (!exploring()) {
		while (take_nmi_at_once(cpu))
			;
		return;
	}
	step(Op{.what = "unblocks NMIs"}.write(nmis_here()));
	cpus[cpu].irq_off = nobody;
	self().irq_off = false;
	give_back(object_of(Fixed::interrupts, cpu), Kind::publish);
}

void kvmpp_take_interrupts(void)
{
}

void kvmpp_fpu_save(void *, u64)
{
}

void kvmpp_fpu_load(const void *, u64)
{
}
}

namespace kvmpp::insn
{

void halt()
{
	for (;;) {
		if (exploring())
			step(Op{.what = "is parked"}.when([](u64) { return false; }, 0));
		else
			suspend_at_once();
	}
}

} // namespace kvmpp::insn

int glue_may_dedicate(void)
{
	return 1;
}

int glue_cpu_present(int cpu)
{
	return cpu >= 0 && cpu < cpu_count;
}

int glue_online_cpus(void)
{
	int count = 0;

	for (int cpu = 0; cpu < cpu_count; cpu++)
		count += cpus[cpu].online;
	return count;
}

int glue_present_cpus(void)
{
	return cpu_count;
}

int glue_cpu_sibling_online(int)
{
	return 0;
}

int glue_cpus_share_core(int one, int other)
{
	return one == other;
}

int glue_cpu_may_be_mistaken(int)
{
	return 0;
}

namespace
{

/* The device-hotplug lock. */
void lock_devices()
{
	might_sleep("the device-hotplug lock");
	step(Op{.what = "takes the device-hotplug lock", .fence = true}
		     .write(object_at(&state.devices))
		     .when([](u64) { return state.devices == 0; }, 0));
	state.devices = holder();
	if (exploring())
		seen[running].join(published_by(object_at(&state.devices)));
}

void unlock_devices()
{
	full_barrier("gives the device-hotplug lock back");
	state.devices = 0;
	give_back(object_at(&state.devices), Kind::publish);
}

int add(int cpu)
{
	step(Op{.what = "looks whether CPU %llu is online", .argument = static_cast<u64>(cpu)}.read(
		object_of(Fixed::online, cpu)));
	if (cpus[cpu].online)
		return 0;
	if (int error = variant->cpu_prepare(cpu))
		return error;
	if (state.bares[cpu].started)
		fail("CPU %d comes online while it runs code of the module's", cpu);
	return bring_online(cpu);
}

} // namespace

int glue_cpu_remove(int cpu)
{
	lock_devices();
	if (cpus[cpu].online)
		take_offline(cpu);
	unlock_devices();
	return 0;
}

int glue_cpu_add(int cpu)
{
	lock_devices();
	int error = add(cpu);
	unlock_devices();
	return error;
}

void glue_cpu_registers_read(glue_cpu_registers *r)
{
	*r = {};
	r->gs_base = 0x4000u + static_cast<unsigned>(this_cpu());
	r->apic_id = static_cast<unsigned>(this_cpu());
	r->has_x2apic = true;
}

glue_private_map *glue_private_map_create(void)
{
	return static_cast<glue_private_map *>(glue_zalloc(sizeof(glue_private_map)));
}

int glue_private_map_add(glue_private_map *map, const void *address, glue_size bytes)
{
	u64 start = reinterpret_cast<u64>(address) & ~u64{page_size - 1};

	if (map->count == glue_private_map::most)
		fail("a private map has more parts than the model has room for");
	map->ranges[map->count++] = {start, reinterpret_cast<u64>(address) + bytes};
	return 0;
}

int glue_private_map_add_cpu(glue_private_map *, int)
{
	return 0;
}

glue_u64 glue_private_map_root(const glue_private_map *)
{
	return 0x7000;
}

void glue_private_map_destroy(glue_private_map *map)
{
	for (const Bare &b : state.bares)
		if (b.started && b.map == map)
			fail("page tables are freed that a CPU uses");
	glue_free(map);
}

int glue_cpu_start_begin(int cpu, const glue_cpu_start *start)
{
	Bare &b = state.bares[cpu];

	might_sleep("starting a CPU");
	if (cpus[cpu].online)
		fail("CPU %d is started while Linux runs on it", cpu);
	step(Op{.what = "starts CPU %llu", .argument = static_cast<u64>(cpu), .fence = true}
		     .write(object_of(Fixed::interrupts, cpu))
		     .write(latch_object(cpu)));
	b.place = Place::elsewhere;
	b.redirected = b.woken = b.exited = false;
	state.used = b.started = true;
	b.process = nobody;
	b.entry = start->entry;
	b.argument = start->argument;
	b.map = start->map;
	if (!exploring()) {
		b.fiber.start(stacks[cpu], stack_bytes, bare_main);
		/* It goes on in each run from where it is at the end of the setup. */
		keep(stacks[cpu], stack_bytes);
		return 0;
	}
	int id = add_process("dedicated");
	processes[id].next = {.what = "begins"};
	become_process(cpu, id);
	processes[id].fiber.start(stacks[cpu], stack_bytes, bare_main);
	return 0;
}

void glue_cpu_start_end(void)
{
}

void glue_cpu_stop(int cpu)
{
	Bare &b = state.bares[cpu];
	Latch &latch = state.latches[cpu];

	might_sleep("waiting after an INIT");
	step(Op{.what = "INIT to CPU %llu", .argument = static_cast<u64>(cpu), .fence = true}
		     .write(object_of(Fixed::interrupts, cpu))
		     .write(object_of(Fixed::online, cpu))
		     .write(object_of(Fixed::run_queue, cpu))
		     .write(latch_object(cpu))
		     .when(
			     [](u64 c) {
				     int p = state.bares[c].process;
				     return p == nobody || !processes[p].buffered;
			     },
			     static_cast<u64>(cpu)));
	if (cpus[cpu].online)
		fail("INIT to CPU %d, which is Linux's", cpu);
	if (in_vmx_operation(cpu))
		fail("INIT to CPU %d in VMX operation, which does not take it", cpu);
	if (exploring() && b.process != nobody) {
		seen[running].join(seen[b.process]);
		processes[b.process].state = Process::State::finished;
		/*
		 * INIT also drops an NMI that waits. It is still there for the search, which has to
		 * see that it could have come before.
		 */
		for (int p = 0; p < process_count; p++)
			if (processes[p].handler && processes[p].daemon &&
			    processes[p].target == cpu) {
				processes[p].next.ready = [](u64) { return false; };
			}
	}
	latch = {};
	b.started = false;
	b.process = nobody;
	cpus[cpu].bare = false;
	cpus[cpu].thread = cpus[cpu].irq_off = nobody;
}

void glue_cpu_nmi(int cpu)
{
	send_nmi(cpu);
}

glue_u64 glue_tsc_khz(void)
{
	return 1000;
}

void glue_msleep(unsigned int)
{
	might_sleep("msleep()");
	if (exploring())
		wait_for_change("sleeps a millisecond");
	else
		run_all_at_once();
}

void glue_udelay(unsigned int)
{
	if (exploring())
		wait_for_change("waits a microsecond");
	else
		run_all_at_once();
}

void glue_cpu_relax(void)
{
	glue_udelay(0);
}

void glue_send_reschedule(int cpu)
{
	if (!exploring())
		return;
	step(Op{.what = "sends a reschedule IPI to CPU %llu",
		.argument = static_cast<u64>(cpu),
		.fence = true}
		     .read(object_of(Fixed::online, cpu))
		     .write(rescheduled(cpu)));
	reschedule(cpu);
	if (state.bares[cpu].started)
		fail("a reschedule IPI to CPU %d, which takes it into its guest", cpu);
}

glue_bell *glue_bell_create(void)
{
	return static_cast<glue_bell *>(glue_zalloc(sizeof(glue_bell)));
}

void glue_bell_destroy(glue_bell *bell)
{
	glue_free(bell);
}

void glue_bell_ring(glue_bell *bell)
{
	check_alive(bell);
	step(Op{.what = "rings the bell", .fence = true}.write(object_at(bell)));
	bell->rings++;
	if (exploring())
		published_by(object_at(bell)).join(release_now());
}

namespace
{
struct Waiter {
	const glue_bell *bell;
	u64 rings;
	int process;
	bool interruptible;
};
} // namespace

/* As wait_event(): who is not woken does not look; and it does not end by the clock. */
int glue_bell_wait(glue_bell *bell, int (*done)(void *), void *argument, int interruptible,
		   unsigned int)
{
	might_sleep("waiting for a dedicated CPU");
	for (;;) {
		check_alive(bell);
		Waiter waiter{bell, bell->rings, running, interruptible != 0};

		step(Op{.what = "is about to wait"}.read(object_at(bell)));
		waiter.rings = bell->rings;
		if (exploring())
			seen[running].join(published_by(object_at(bell)));
		if (done(argument))
			return 0;
		if (!exploring()) {
			run_all_at_once();
			continue;
		}
		Op op{.what = "is woken"};
		op.accesses.add(object_at(bell), Kind::read);
		if (interruptible)
			op.accesses.add(object_at(&state.signals[running]), Kind::read);
		step(static_cast<Op &&>(op).when(
			[](u64 w) {
				auto &waits = *reinterpret_cast<Waiter *>(w);
				return waits.bell->rings != waits.rings ||
				       (waits.interruptible && state.signals[waits.process]);
			},
			reinterpret_cast<u64>(&waiter)));
		if (interruptible && state.signals[running] && bell->rings == waiter.rings)
			return -EINTR;
	}
}

void glue_module_keep(void)
{
	fail("a CPU is given up as lost");
}

int glue_dedicated_init(void)
{
	return 0;
}

void glue_dedicated_exit(void)
{
}
