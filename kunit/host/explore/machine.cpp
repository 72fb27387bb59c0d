// SPDX-License-Identifier: GPL-2.0
#include "machine.hpp"

#include "crash.hpp"
#include "memory.hpp"
#include "races.hpp"
#include "rcu.hpp"
#include "scenario.hpp"
#include "vmx.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <utility>

namespace kvmpp::explore
{

Process processes[max_processes];
Cpu cpus[max_cpus];
int cpu_count;
int process_count;
int running = nobody;
Step current_step;
const char *failure;

namespace
{

constexpr unsigned long stack_bytes = 64 * 1024;
alignas(4096) char stacks[max_processes][stack_bytes];
char failure_text[300];

/* Outside of exploration: where all is done at once. */
int here_at_once;
bool irq_off_at_once;

/*
 * Addresses to objects, by open addressing. An object keeps its number from run to run: what the search
 * remembers of a step in one run, it compares with steps of others.
 */
struct Slot {
	const volatile void *address;
	u16 object;
};
Slot slots[max_objects * 2];
u16 next_object = static_cast<u16>(Fixed::count);
/* How often each was written, in this run. */
u32 writes_to[max_objects];

void touch(u16 object, Kind kind)
{
	current_step.accesses.add(object, kind);
}

void publish(u16 object)
{
	published_by(object).join(release_now());
}

void acquire(u16 object)
{
	seen[running].join(published_by(object));
}

/* Pre-emption and interrupts are on again. */
void leave_cpu(Process &p)
{
	if (p.steady) {
		p.steady = false;
		touch(object_of(Fixed::standstill, 0), Kind::publish_read);
	}
	if (p.cpu == nobody)
		return;
	u16 queue = object_of(Fixed::run_queue, p.cpu);

	cpus[p.cpu].thread = nobody;
	touch(queue, Kind::publish);
	publish(queue);
	p.cpu = nobody;
}

void handler_main()
{
	Process &p = self();
	u16 interrupts = object_of(Fixed::interrupts, p.target),
	    done = object_of(Fixed::done, running);

	p.function(p.argument);
	/* IRET serialises. */
	full_barrier("returns");
	cpus[p.target].irq_off = nobody;
	touch(interrupts, Kind::publish);
	publish(interrupts);
	touch(done, Kind::publish);
	publish(done);
	if (p.interrupted != nobody)
		seen[p.interrupted].join(release_now());
	p.state = Process::State::finished;
	p.fiber.suspend();
}

void thread_main()
{
	Process &p = self();

	reinterpret_cast<void (*)()>(p.function)();
	if (p.cpu != nobody || p.preempt_depth)
		fail("the thread ends with interrupts or pre-emption off");
	p.state = Process::State::finished;
	p.fiber.suspend();
}

int new_process()
{
	if (process_count == max_processes)
		fail("more processes than the model has");
	int id = process_count++;
	Process &p = processes[id];

	p.state = Process::State::ready;
	p.handler = p.irq_off = p.ticked = p.steady = p.daemon = p.nmi = p.at_once = false;
	p.bare = nobody;
	p.polled = {};
	p.preempt_depth = 0;
	p.cpu = p.last_cpu = p.pinned = p.target = p.interrupted = nobody;
	p.buffered = 0;
	p.stores = 0;
	p.sent = 0;
	p.next = {.what = "begins"};
	return id;
}

} // namespace

void Accesses::add(u16 object, Kind kind)
{
	for (int i = 0; i < count; i++)
		if (items[i].object == object && items[i].kind == kind)
			return;
	if (count == capacity)
		fail("a step touches more than the model can say");
	items[count++] = {object, kind};
}

bool Accesses::conflict_with(const Accesses &other) const
{
	auto shared = [](Kind k) { return k == Kind::read || k == Kind::publish_read; };
	auto commute = [&](Kind a, Kind b) {
		return (shared(a) && shared(b)) || (a == b && a != Kind::write);
	};

	for (const Access &a : *this)
		for (const Access &b : other)
			if (a.object == b.object && !commute(a.kind, b.kind))
				return true;
	return false;
}

u16 object_at(const volatile void *address)
{
	for (u64 i = reinterpret_cast<u64>(address) * 0x9e3779b97f4a7c15 >> 50;;
	     i = (i + 1) % (max_objects * 2)) {
		Slot &slot = slots[i];

		if (slot.address == address)
			return slot.object;
		if (!slot.address) {
			if (next_object == max_objects)
				fail("more objects than the model has");
			slot = {address, next_object++};
			return slot.object;
		}
	}
}

int this_cpu()
{
	if (!exploring())
		return here_at_once;
	Process &p = self();
	if (p.cpu == nobody && p.pinned != nobody)
		return p.pinned;
	if (p.cpu == nobody && p.preempt_depth > 0)
		step({.what = "finds itself on a CPU", .takes = Op::Takes::preemption});
	if (p.cpu != nobody)
		return p.cpu;
	fail("the CPU's number is looked at where the thread may migrate");
}

bool irqs_off()
{
	return exploring() ? self().irq_off || self().bare != nobody : irq_off_at_once;
}

void step(Op &&op)
{
	if (!exploring())
		return;
	crash_may_come(op.what, op.argument);
	Process &p = self();
	if (p.at_once)
		return;
	p.next = op;
	p.fiber.suspend();
}

void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	std::vsnprintf(failure_text, sizeof(failure_text), format, args);
	va_end(args);
	if (crashing())
		crash_fails(failure_text, sizeof(failure_text));
	failure = failure_text;
	abandon();
}

void give_back(u16 object, Kind kind)
{
	if (!exploring())
		return;
	touch(object, kind);
	publish(object);
}

void buffer_store(void *address, unsigned bytes, u64 value, const Clock &published, Kind kind)
{
	Process &p = self();

	if (p.buffered == max_buffered)
		fail("more stores are under way than the model has room for");
	if (!p.buffered && p.cpu == nobody)
		p.last_cpu = somewhere;
	p.stores++;
	if (p.at_once) {
		std::memcpy(address, &value, bytes);
		note_write(address);
		published_by(object_at(address)) = published;
		touch(object_at(address), kind);
		return;
	}
	p.buffer[p.buffered++] = {.address = address,
				  .value = value,
				  .bytes = static_cast<u8>(bytes),
				  .kind = kind,
				  .object = object_at(address),
				  .step = current_step.number,
				  .published = published};
}

const Store *buffered_store(const void *address)
{
	Process &p = self();

	for (int i = p.buffered; i-- > 0;)
		if (p.buffer[i].address == address)
			return &p.buffer[i];
	return nullptr;
}

void drain_one(int process)
{
	Process &p = processes[process];
	Store s = p.buffer[0];

	std::memmove(&p.buffer[0], &p.buffer[1],
		     sizeof(Store) * static_cast<unsigned>(--p.buffered));
	std::memcpy(s.address, &s.value, s.bytes);
	writes_to[s.object]++;
	published_by(s.object) = s.published;
}

int add_process(const char *name)
{
	int id = new_process();

	processes[id].name = name;
	processes[id].sent = current_step.number;
	seen[id] = release_now();
	return id;
}

int send_ipi(int cpu, void (*function)(void *), void *argument)
{
	int id = add_process("IPI");
	Process &p = processes[id];

	p.handler = true;
	p.target = cpu;
	p.function = function;
	p.argument = argument;
	p.next = {.what = "interrupts CPU %llu",
		  .argument = static_cast<u64>(cpu),
		  .takes = Op::Takes::interrupts};
	p.fiber.start(stacks[id], stack_bytes, handler_main);
	return id;
}

void wait_for_ipi(int handler)
{
	u16 done = object_of(Fixed::done, handler);

	step(Op{.what = "sees that the IPI to CPU %llu is done",
		.argument = static_cast<u64>(processes[handler].target)}
		     .join(done)
		     .when([](u64 h) { return processes[h].state == Process::State::finished; },
			   static_cast<u64>(handler)));
	acquire(done);
}

void run_at_once(int cpu, void (*function)(void *), void *argument)
{
	int before = here_at_once;
	bool irq_before = irq_off_at_once;

	here_at_once = cpu;
	irq_off_at_once = true;
	function(argument);
	here_at_once = before;
	irq_off_at_once = irq_before;
}

void reset_machine(int count)
{
	cpu_count = count;
	process_count = 0;
	running = nobody;
	failure = nullptr;
	here_at_once = 0;
	irq_off_at_once = false;
	std::memset(writes_to, 0, sizeof(writes_to));
	reset_races(max_objects);
}

int add_thread(const char *name, void (*function)(), int pinned)
{
	int id = new_process();

	processes[id].name = name;
	processes[id].pinned = pinned;
	processes[id].function = reinterpret_cast<void (*)(void *)>(function);
	processes[id].fiber.start(stacks[id], stack_bytes, thread_main);
	seen[id] = {};
	return id;
}

void check_at_rest()
{
	for (int cpu = 0; cpu < cpu_count; cpu++)
		check_cpu_at_rest(cpu);
}

void preempt_disable()
{
	if (!exploring())
		return;
	self().preempt_depth++;
}

void preempt_enable()
{
	if (!exploring())
		return;
	Process &p = self();
	if (p.preempt_depth == 0)
		fail("pre-emption switched on once too often");
	if (--p.preempt_depth == 0 && !p.irq_off)
		leave_cpu(p);
}

bool irq_save()
{
	if (!exploring()) {
		bool before = irq_off_at_once;
		irq_off_at_once = true;
		return before;
	}
	if (self().irq_off)
		return true;
	step({.what = "switches interrupts off", .takes = Op::Takes::interrupts});
	return false;
}

void irq_restore(bool was_off)
{
	if (!irqs_off())
		fail("interrupts restored where they are on");
	if (!exploring()) {
		irq_off_at_once = was_off;
		return;
	}
	if (was_off)
		return;
	Process &p = self();
	u16 interrupts = object_of(Fixed::interrupts, p.cpu);

	if (p.handler)
		fail("interrupts switched on in the handler of an interrupt");
	cpus[p.cpu].irq_off = nobody;
	p.irq_off = false;
	touch(interrupts, Kind::publish);
	publish(interrupts);
	if (p.preempt_depth == 0)
		leave_cpu(p);
}

void full_barrier(const char *what)
{
	step({.what = what, .fence = true});
}

void note_load(const void *address)
{
	auto &loads = self().polled.loads;
	u16 object = object_at(address);

	/* What it looks at twice it may have judged by the first look. */
	if (loads[0].object == object || loads[1].object == object)
		return;
	loads[0] = loads[1];
	loads[1] = {object, writes_to[object]};
}

void note_write(const void *address)
{
	if (exploring())
		writes_to[object_at(address)]++;
}

static bool has_changed(u64 process)
{
	const Polled &p = processes[process].polled;

	for (const auto &load : p.loads)
		if (load.object && writes_to[load.object] != load.writes)
			return true;
	return p.lock_takes && *p.lock_takes != p.takes;
}

void wait_for_change(const char *what)
{
	Op op{.what = what};

	if (!exploring())
		return;
	for (const auto &load : self().polled.loads)
		if (load.object)
			op.accesses.add(load.object, Kind::read);
	if (self().polled.lock_takes)
		op.accesses.add(object_at(self().polled.lock_takes), Kind::read);
	step(static_cast<Op &&>(op).when(has_changed, static_cast<u64>(running)));
	/* The loop looks again at what it waits for, and not at what else there was. */
	self().polled = {};
}

int set_cpu_at_once(int cpu)
{
	return std::exchange(here_at_once, cpu);
}

void might_sleep(const char *what)
{
	if (exploring() ? self().preempt_depth || self().irq_off : irq_off_at_once)
		fail("%s may sleep, with interrupts or pre-emption off", what);
	if (exploring() && inside_rcu())
		fail("%s may sleep, inside RCU", what);
}

} // namespace kvmpp::explore
