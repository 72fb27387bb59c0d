// SPDX-License-Identifier: GPL-2.0
/* The glue that lets processes meet: CPUs, IPIs, locks, pages of the VMM. */
#include "linux.hpp"
#include "machine.hpp"
#include "memory.hpp"
#include "races.hpp"
#include "scenario.hpp"
#include "vmx.hpp"

#include <linux_glue/alloc.h>
#include <linux_glue/cpu.h>
#include <linux_glue/lock.h>
#include <linux_glue/memory.h>

#include <asm/errno.h>

#include <utility>

namespace kvmpp::explore
{

namespace
{

constexpr int pages = 4;
constexpr u64 first_frame = 0x100, frames_a_time = 0x100;

struct State {
	/* cpus_read_lock() and the write side of hotplug. */
	u64 readers, writer;
	/* The VMM's page table. */
	u64 frame_of[pages];
	int pages_held;
	void *notified;
	void *file;
};
State state;
u16 srcu_entered[max_processes];
/* The end of a process's n-th read side, which a grace period may wait for. */
u16 srcu_section(int process)
{
	static char sections[max_processes][16];

	return object_at(&sections[process][srcu_entered[process] % 16]);
}

u64 holder()
{
	return static_cast<u64>(running + 2);
}

/* Takes a lock whose holder is in *word. */
void take(u64 &word, const char *what)
{
	if (word == holder() && !gives_back(&word))
		fail("a lock is taken that the thread holds already");
	step(Op{.what = what, .fence = true}
		     .write(object_at(&word))
		     .when([](u64 w) { return *reinterpret_cast<u64 *>(w) == 0; },
			   reinterpret_cast<u64>(&word)));
	if (word)
		fail("deadlock");
	word = holder();
	if (exploring())
		seen[running].join(published_by(object_at(&word)));
}

void free_word(void *word)
{
	*static_cast<u64 *>(word) = 0;
}

void give(u64 &word)
{
	if (word != holder())
		fail("a lock is given back by who does not hold it");
	give_back(object_at(&word), Kind::publish, free_word, &word);
}

/* Something with a full barrier in it. */
void drain(const char *what)
{
	step({.what = what, .fence = true});
}

struct Targets {
	int ipis[max_cpus];
	int count = 0;
};

} // namespace

void reset_linux()
{
	state = {};
	for (int i = 0; i < pages; i++)
		state.frame_of[i] = first_frame + static_cast<u64>(i);
	keep(&state, sizeof(state));
}

void hotplug_write_lock()
{
	might_sleep("cpus_write_lock()");
	step(Op{.what = "takes the hotplug lock", .fence = true}
		     .write(object_at(&state.readers))
		     .when([](u64) { return !state.readers && !state.writer; }, 0));
	state.writer = holder();
	if (exploring())
		seen[running].join(published_by(object_at(&state.readers)));
}

void hotplug_write_unlock()
{
	drain("gives the hotplug lock back");
	give_back(
		object_at(&state.readers), Kind::publish, [](void *) { state.writer = 0; },
		nullptr);
}

void check_linux_at_rest()
{
	if (state.readers || state.writer)
		fail("the hotplug lock is left held");
	if (state.pages_held)
		fail("references to %d pages are left behind", state.pages_held);
}

u64 frame_of_page(u64 page)
{
	return state.frame_of[page];
}

void take_page_away(u64 page)
{
	void *vm = state.notified;
	u64 address = user_memory + (page << page_shift);

	variant->invalidate_begin(vm, address, address + page_size);
	step(Op{.what = "Linux gives page %llu another frame", .argument = page}.write(
		object_at(&state.frame_of[page])));
	u64 old = std::exchange(state.frame_of[page], state.frame_of[page] + frames_a_time);
	take_frame_away(old);
	variant->invalidate_end(vm);
}

void *new_file()
{
	return state.file;
}

} // namespace kvmpp::explore

using namespace kvmpp::explore;
using kvmpp::u64;

int glue_this_cpu(void)
{
	return this_cpu();
}

int glue_nr_cpus(void)
{
	return cpu_count;
}

int glue_cpu_online(int cpu)
{
	return cpus[cpu].online;
}

void glue_preempt_disable(void)
{
	preempt_disable();
}

void glue_preempt_enable(void)
{
	preempt_enable();
}

glue_u64 glue_irq_save(void)
{
	return irq_save();
}

void glue_irq_restore(glue_u64 flags)
{
	irq_restore(flags);
}

static void call_here(void (*function)(void *), void *argument)
{
	bool flags = irq_save();

	function(argument);
	irq_restore(flags);
}

/* As smp_call_function_many_cond(): to the others first, then here, then the wait. */
static void call_on(u64 set, void (*function)(void *), void *argument)
{
	Targets sent;
	int here = this_cpu();

	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (cpu != here && (set >> cpu & 1))
			sent.ipis[sent.count++] = send_ipi(cpu, function, argument);
	if (set >> here & 1)
		call_here(function, argument);
	for (int i = 0; i < sent.count; i++)
		wait_for_ipi(sent.ipis[i]);
}

int glue_call_on_cpu(int cpu, void (*function)(void *), void *argument)
{
	if (irqs_off())
		fail("waits for an IPI with interrupts off");
	if (!exploring()) {
		if (!cpus[cpu].online)
			return -ENXIO;
		run_at_once(cpu, function, argument);
		return 0;
	}
	int error = 0;
	preempt_disable();
	if (cpu == this_cpu()) {
		call_here(function, argument);
	} else {
		step(Op{.what = "sends an IPI to CPU %llu",
			.argument = static_cast<u64>(cpu),
			.fence = true}
			     .read(object_of(Fixed::online, cpu)));
		if (cpus[cpu].online)
			wait_for_ipi(send_ipi(cpu, function, argument));
		else
			error = -ENXIO;
	}
	preempt_enable();
	return error;
}

static u64 online_set()
{
	u64 set = 0;

	for (int cpu = 0; cpu < cpu_count; cpu++)
		set |= u64{cpus[cpu].online} << cpu;
	return set;
}

void glue_call_on_all_cpus(void (*function)(void *), void *argument)
{
	if (irqs_off())
		fail("waits for IPIs with interrupts off");
	if (!exploring()) {
		for (int cpu = 0; cpu < cpu_count; cpu++)
			if (cpus[cpu].online)
				run_at_once(cpu, function, argument);
		return;
	}
	preempt_disable();
	Op op{.what = "sends IPIs to all CPUs", .fence = true};
	for (int cpu = 0; cpu < cpu_count; cpu++)
		op.accesses.add(object_of(Fixed::online, cpu), Kind::read);
	step(std::move(op));
	call_on(online_set(), function, argument);
	preempt_enable();
}

void glue_cpus_read_lock(void)
{
	might_sleep("cpus_read_lock()");
	if (state.writer && state.writer == holder())
		fail("cpus_read_lock() inside a hotplug callback");
	step(Op{.what = "cpus_read_lock()"}
		     .read(object_at(&state.readers))
		     .when([](u64) { return state.writer == 0; }, 0));
	state.readers++;
	if (exploring())
		seen[running].join(published_by(object_at(&state.readers)));
}

void glue_cpus_read_unlock(void)
{
	drain("cpus_read_unlock()");
	if (state.readers == 0)
		fail("cpus_read_unlock() without lock");
	give_back(
		object_at(&state.readers), Kind::publish_read, [](void *) { state.readers--; },
		nullptr);
}

int glue_hotplug_register(void)
{
	return 0;
}

void glue_hotplug_unregister(void)
{
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (cpus[cpu].online)
			run_at_once(
				cpu, [](void *) { variant->cpu_offline(0); }, nullptr);
}

struct glue_cpumask {
	bool has[max_cpus];
};

glue_cpumask *glue_cpumask_alloc(void)
{
	return static_cast<glue_cpumask *>(glue_zalloc(sizeof(glue_cpumask)));
}

void glue_cpumask_free(glue_cpumask *mask)
{
	glue_free(mask);
}

void glue_cpumask_set(glue_cpumask *mask, int cpu)
{
	check_alive(mask);
	step(Op{.what = "CPU %llu joins the set", .argument = static_cast<u64>(cpu), .fence = true}
		     .write(object_at(&mask->has[cpu])));
	mask->has[cpu] = true;
}

void glue_call_on_cpumask(glue_cpumask *mask, void (*function)(void *), void *argument)
{
	if (irqs_off())
		fail("waits for IPIs with interrupts off");
	u64 set = 0;

	preempt_disable();
	/* The set is read without any order; sending is a barrier, but comes after that. */
	if (exploring()) {
		check_alive(mask);
		Op op{.what = "reads the set of CPUs"};
		for (int cpu = 0; cpu < cpu_count; cpu++) {
			op.accesses.add(object_of(Fixed::online, cpu), Kind::read);
			op.accesses.add(object_at(&mask->has[cpu]), Kind::read);
		}
		step(std::move(op));
	}
	for (int cpu = 0; cpu < cpu_count; cpu++)
		set |= u64{mask->has[cpu]} << cpu;
	set &= online_set();
	if (!exploring()) {
		for (int cpu = 0; cpu < cpu_count; cpu++)
			if (set >> cpu & 1)
				run_at_once(cpu, function, argument);
	} else {
		if (set & ~(u64{1} << this_cpu()))
			drain("sends IPIs to the set");
		call_on(set, function, argument);
	}
	preempt_enable();
}

void glue_mutex_init(glue_mutex *mutex, glue_lock_class)
{
	mutex->opaque[0] = 0;
}

void glue_mutex_lock(glue_mutex *mutex)
{
	might_sleep("a mutex");
	take(mutex->opaque[0], "locks a mutex");
}

int glue_mutex_lock_killable(glue_mutex *mutex)
{
	glue_mutex_lock(mutex);
	return 0;
}

void glue_mutex_unlock(glue_mutex *mutex)
{
	drain("unlocks a mutex");
	give(mutex->opaque[0]);
}

void glue_spin_init(glue_spinlock *lock, glue_lock_class)
{
	lock->opaque[0] = 0;
}

/*
 * A lock that is taken in an interrupt is never held with interrupts on, where that interrupt could
 * come and wait for ever. As lockdep does, this looks for the two uses, not for them to meet.
 */
void glue_spin_lock(glue_spinlock *lock)
{
	u64 &uses = lock->opaque[1];

	if (exploring())
		uses |= irqs_off() ? self().handler : 2;
	if (uses == 3)
		fail("a spin lock taken in an interrupt is also held with interrupts on");
	preempt_disable();
	take(lock->opaque[0], "locks a spin lock");
}

/* A plain store: behind those that were before it. */
void glue_spin_unlock(glue_spinlock *lock)
{
	give(lock->opaque[0]);
	preempt_enable();
}

int glue_srcu_init(glue_srcu *srcu)
{
	srcu->opaque[0] = 0;
	return 0;
}

void glue_srcu_cleanup(glue_srcu *srcu)
{
	if (srcu->opaque[0])
		fail("SRCU cleaned up with readers");
}

/* The readers' bits; a reader inside a reader is index 1 and changes nothing. */
int glue_srcu_read_lock(glue_srcu *srcu)
{
	if (!exploring() || (srcu->opaque[0] >> running & 1))
		return 1;
	step(Op{.what = "begins an SRCU read side", .fence = true}.read(object_at(srcu)));
	srcu->opaque[0] |= u64{1} << running;
	srcu_entered[running]++;
	seen[running].join(published_by(object_at(srcu)));
	return 0;
}

void glue_srcu_read_unlock(glue_srcu *srcu, int index)
{
	if (index == 1)
		return;
	drain("ends the SRCU read side");
	srcu->opaque[0] &= ~(u64{1} << running);
	published_by(object_at(&srcu->opaque[1])).join(seen[running]);
	give_back(
		srcu_section(running), Kind::publish, [](void *) {}, nullptr);
}

namespace
{
struct GracePeriod {
	glue_srcu *srcu;
	u64 waits_for;
	kvmpp::u16 entered[max_processes];

	bool over() const
	{
		for (u64 rest = srcu->opaque[0] & waits_for; rest; rest &= rest - 1)
			if (int p = __builtin_ctzll(rest); srcu_entered[p] == entered[p])
				return false;
		return true;
	}
};
} // namespace

void glue_srcu_synchronize(glue_srcu *srcu)
{
	might_sleep("synchronize_srcu()");
	if (!exploring())
		return;
	step(Op{.what = "synchronize_srcu() begins", .fence = true}.write(object_at(srcu)));
	published_by(object_at(srcu)).join(release_now());
	GracePeriod period{.srcu = srcu, .waits_for = srcu->opaque[0], .entered = {}};
	Clock ended = published_by(object_at(&srcu->opaque[1]));
	Op op{.what = "synchronize_srcu() has waited"};
	for (int p = 0; p < max_processes; p++) {
		period.entered[p] = srcu_entered[p];
		if (period.waits_for >> p & 1)
			op.accesses.add(srcu_section(p), Kind::join);
	}
	Accesses sections = op.accesses;
	step(std::move(op).when([](u64 g) { return reinterpret_cast<GracePeriod *>(g)->over(); },
				reinterpret_cast<u64>(&period)));
	/* Also what those did that had ended before. */
	seen[running].join(ended);
	for (const Access &section : sections)
		seen[running].join(published_by(section.object));
}

int glue_user_range_ok(glue_u64, glue_u64)
{
	return 1;
}

int glue_user_page_get(glue_u64 address, int, glue_u64 *frame, int *writable)
{
	u64 page = (address - user_memory) >> kvmpp::page_shift;

	might_sleep("get_user_pages()");
	if (page >= pages)
		return -EFAULT;
	step(Op{.what = "looks page %llu up", .argument = page}.read(
		object_at(&state.frame_of[page])));
	*frame = state.frame_of[page];
	*writable = 1;
	state.pages_held++;
	return 0;
}

void glue_user_page_put(glue_u64, int)
{
	state.pages_held--;
}

struct glue_mmu_notifier {
	int unused;
};

int glue_mmu_notifier_register(void *context, glue_mmu_notifier **notifier)
{
	state.notified = context;
	*notifier = static_cast<glue_mmu_notifier *>(glue_zalloc(sizeof(glue_mmu_notifier)));
	return 0;
}

void glue_mmu_notifier_unregister(glue_mmu_notifier *notifier)
{
	glue_free(notifier);
}

int glue_mmu_notifier_is_current(const glue_mmu_notifier *)
{
	return 1;
}

int glue_vm_fd_prepare(glue_new_fd *fd, void *vm)
{
	state.file = vm;
	fd->fd = 3;
	return 0;
}

int glue_vcpu_fd_prepare(glue_new_fd *fd, void *vcpu, int)
{
	state.file = vcpu;
	fd->fd = 4;
	return 0;
}

void glue_fd_install(glue_new_fd *)
{
}
