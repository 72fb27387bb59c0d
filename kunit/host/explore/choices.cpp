// SPDX-License-Identifier: GPL-2.0
/* Who could go on, by which CPU, and what that touches. */
#include "machine.hpp"
#include "races.hpp"

namespace kvmpp::explore
{

namespace
{

bool stores_wait_on(int cpu, int except)
{
	for (int q = 0; q < process_count; q++)
		if (q != except && processes[q].last_cpu == cpu && processes[q].buffered)
			return true;
	return false;
}

bool becomes_steady(const Process &p)
{
	return !p.steady && !p.handler &&
	       (p.preempt_depth > 0 || p.next.takes != Op::Takes::nothing);
}

bool needs_cpu(const Process &p)
{
	return p.next.takes != Op::Takes::nothing && p.cpu == nobody;
}

} // namespace

bool can_go(int process, int cpu)
{
	const Process &p = processes[process];

	if (p.state != Process::State::ready || (p.next.fence && p.buffered) ||
	    (p.next.ready && !p.next.ready(p.next.ready_argument)))
		return false;
	if (!needs_cpu(p))
		return p.cpu == nobody || p.irq_off || cpus[p.cpu].irq_off == nobody;
	const Cpu &c = cpus[cpu];
	/* What interrupts a CPU or switches its thread, drains its store buffer ("Store Buffer"). */
	if (!(c.online || (c.bare && p.handler)) || c.irq_off != nobody ||
	    stores_wait_on(cpu, process))
		return false;
	if (p.handler)
		return cpu == p.target;
	return c.thread == nobody && (p.pinned == cpu || (p.pinned == nobody && c.open)) &&
	       (!p.buffered || p.last_cpu == cpu || p.last_cpu == somewhere);
}

u8 imaginable_choices(int process)
{
	const Process &p = processes[process];

	if (!needs_cpu(p))
		return 1;
	if (p.handler)
		return static_cast<u8>(1 << p.target);
	if (p.pinned != nobody)
		return static_cast<u8>(1 << p.pinned);
	u8 set = 0;
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (cpus[cpu].online && cpus[cpu].open)
			set |= static_cast<u8>(1 << cpu);
	return set;
}

u8 choices(int process)
{
	u8 imaginable = imaginable_choices(process), set = 0;

	for (int cpu = 0; cpu < cpu_count; cpu++)
		if ((imaginable & (1 << cpu)) && can_go(process, cpu))
			set |= static_cast<u8>(1 << cpu);
	return set;
}

Accesses accesses_of(int process, int cpu)
{
	const Process &p = processes[process];
	Accesses a = p.next.accesses;

	if (p.next.fence)
		a.add(object_of(Fixed::buffer, process), Kind::join);
	if (needs_cpu(p)) {
		if (!p.handler) {
			a.add(object_of(Fixed::run_queue, cpu), Kind::write);
			if (p.pinned == nobody)
				for (int c = 0; c < cpu_count; c++)
					a.add(object_of(Fixed::online, c), Kind::read);
		}
	} else {
		cpu = p.cpu;
	}
	if (becomes_steady(p))
		a.add(object_of(Fixed::standstill, 0), Kind::read);
	/* INIT ends what it does. */
	if (p.bare != nobody && !p.handler)
		a.add(object_of(Fixed::run_queue, p.bare), Kind::read);
	/* Of bare code, those steps say so that an NMI makes a difference to. */
	if (cpu != nobody && !p.irq_off && p.bare == nobody)
		a.add(object_of(Fixed::interrupts, cpu),
		      p.next.takes == Op::Takes::interrupts ? Kind::write : Kind::read);
	return a;
}

void go(int process, int cpu)
{
	Process &p = processes[process];

	running = process;
	seen[process].last[process]++;
	if (becomes_steady(p))
		p.steady = true;
	if (needs_cpu(p)) {
		p.cpu = cpu;
		seen[process].join(published_by(object_of(Fixed::run_queue, cpu)));
		seen[process].join(published_by(object_of(Fixed::interrupts, cpu)));
		if (p.handler) {
			p.interrupted = cpus[cpu].thread;
			if (p.interrupted != nobody)
				seen[process].join(seen[p.interrupted]),
					seen[p.interrupted].last[p.interrupted]++;
		} else {
			cpus[cpu].thread = process;
			for (int q = 0; q < process_count; q++)
				if (processes[q].last_cpu == cpu)
					processes[q].last_cpu = nobody;
		}
		p.last_cpu = cpu;
	}
	if (p.next.takes == Op::Takes::interrupts) {
		p.irq_off = true;
		cpus[p.cpu].irq_off = process;
	}
	current_step.cpu = static_cast<s8>(p.cpu);
	p.fiber.resume();
	running = nobody;
}

} // namespace kvmpp::explore
