// SPDX-License-Identifier: GPL-2.0
#include "dedicated_cpus.hpp"

#include "arch/x86/cpu_insn.hpp"
#include "arch/x86/dedicated/machine.hpp"
#include "arch/x86/vmx_cpu.hpp"
#include "include/kvmpp/owned.hpp"

#include <linux_glue/debugfs.h>
#include <linux_glue/entries.h>
#include <linux_glue/guest.h>
#include <linux_glue/log.h>
#include <linux_glue/parameters.h>

namespace kvmpp
{

namespace
{

/* Where dedicated CPUs call: the one that never goes offline. */
constexpr CpuId called{0};
/* "Comes up", "leaves", "answers a kick": what a CPU has to do within this time, in milliseconds. */
constexpr unsigned patience = 1000;

constinit NmiAccount calls;

template <class Condition> bool within_patience(Condition condition) MAY_SLEEP
{
	for (unsigned ms = 0; ms < patience; ms++) {
		if (condition())
			return true;
		glue_msleep(1);
	}
	return condition();
}

} // namespace

class DedicatedSlot
{
public:
	enum class State : u32 { unused, coming, taken, going, lost };

	static constinit SpinLock lock;
	static constinit DedicatedSlot *all;
	/* A suspend is under way; or the machine goes down. */
	static constinit bool asleep GUARDED_BY(lock);
	static constinit bool down GUARDED_BY(lock);
	/* The host was seen not to send interrupts to all CPUs when it could have. */
	static constinit std::atomic<bool> never_broadcasts;
	static constinit std::atomic<bool> any_lost;

	static DedicatedSlot *of(CpuId cpu) { return &all[cpu.value]; }

	Result<> bring_up(DedicatedRun &run, std::size_t seen_count,
			  const SeenMemory *seen) MAY_SLEEP;
	void let_go(Dedicated &owner) MAY_SLEEP;
	/* For those who have it from outside: gives it back, or waits for who does. Only @whose, if that is given. */
	void give_back(const Dedicated *whose = nullptr) MAY_SLEEP;
	void nmi();
	/* Once, whoever finds it first. */
	void report_death();
	/* It does not answer: what it may still touch stays for ever, the module included. */
	void lose();

	DedicatedCpu &record() { return machine_.load(std::memory_order_acquire)->record; }
	bool has_died();
	bool has_machine() const { return machine_.load(std::memory_order_acquire); }

	CpuId cpu;
	State state GUARDED_BY(lock) = State::unused;
	Dedicated *owner GUARDED_BY(lock) = nullptr;
	/* For those who look. */
	DedicatedOwner who GUARDED_BY(lock);
	/* Of the owner, while there is one. */
	KickTarget *kick = nullptr;
	DedicatedRun *run = nullptr;
	glue_bell *bell = nullptr;
	std::atomic<u64> out_online{0}, out_user{0};
	/* What it died of is in the log. */
	std::atomic<bool> death_reported{false};
	/* Its coming online is ours. */
	std::atomic<bool> admitted{false};
	/* It did not answer; found where no lock may be taken. `state` follows when it is given back. */
	std::atomic<bool> lost{false};

	void destroy();

private:
	Result<> prepare(const glue_cpu_registers &registers, std::size_t seen_count,
			 const SeenMemory *seen) MAY_SLEEP;
	Result<> start() MAY_SLEEP;
	bool host_broadcasts() MAY_SLEEP;
	static int count_taken();
	/* It may be there by then: @was_there. */
	Result<> add_to_linux(bool *was_there = nullptr) MAY_SLEEP;
	void drop_map() MAY_SLEEP;
	void withdraw_from_apics() MAY_SLEEP;

	bool was_online_ = false;
	/* Kept from the first time on: an NMI may look at it at any time. */
	std::atomic<DedicatedMachine *> machine_{nullptr};
	glue_private_map *map_ = nullptr;
};

constinit SpinLock DedicatedSlot::lock;
constinit DedicatedSlot *DedicatedSlot::all = nullptr;
constinit bool DedicatedSlot::asleep = false;
constinit bool DedicatedSlot::down = false;
constinit std::atomic<bool> DedicatedSlot::never_broadcasts{false};
constinit std::atomic<bool> DedicatedSlot::any_lost{false};

void DedicatedSlot::nmi()
{
	record().nmis.note(insn::rdtsc());
	glue_cpu_nmi(cpu.value);
}

void DedicatedSlot::lose()
{
	if (lost.exchange(true, std::memory_order_seq_cst))
		return;
	any_lost.store(true, std::memory_order_relaxed);
	glue_module_keep();
	glue_log_err("CPU %d does not answer any more and is lost", cpu.value);
	glue_bell_ring(bell);
}

void DedicatedSlot::destroy()
{
	if (bell)
		glue_bell_destroy(bell);
	if (has_machine())
		glue_free(machine_.load(std::memory_order_relaxed));
}

/* As its answer it comes before the state, for which it has left the APIC. */
bool DedicatedSlot::has_died()
{
	return record().state.load(std::memory_order_acquire) == DedicatedCpu::State::died ||
	       (record().posted && run->answer.load(std::memory_order_acquire) == Answer::died);
}

void DedicatedSlot::report_death()
{
	const DedicatedCpu &there = record();

	if (!has_died() || death_reported.exchange(true, std::memory_order_relaxed))
		return;
	glue_log_err("CPU %d: exception %llu, error code %llx, at %pS, address %llx", cpu.value,
		     static_cast<unsigned long long>(there.fault.vector),
		     static_cast<unsigned long long>(there.fault.error_code),
		     reinterpret_cast<void *>(there.fault.rip),
		     static_cast<unsigned long long>(there.fault.address));
}

void DedicatedSlot::drop_map()
{
	if (map_)
		glue_private_map_destroy(map_);
	map_ = nullptr;
}

Result<> DedicatedSlot::prepare(const glue_cpu_registers &registers, std::size_t seen_count,
				const SeenMemory *seen)
{
	if (!bell)
		bell = glue_bell_create();
	if (!has_machine())
		machine_.store(
			static_cast<DedicatedMachine *>(glue_zalloc_kept(sizeof(DedicatedMachine))),
			std::memory_order_release);
	map_ = glue_private_map_create();
	if (!bell || !has_machine() || !map_)
		return Errno::nomem;

	DedicatedMachine &machine = *machine_.load(std::memory_order_relaxed);
	DedicatedCpu &cpu_record = *new (&machine.record) DedicatedCpu;
	machine.prepare();
	death_reported.store(false, std::memory_order_relaxed);
	cpu_record.cpu = cpu;
	cpu_record.registers = registers;
	cpu_record.registers.cr4 &= ~cr4::vmxe;
	cpu_record.host_state = {.tr_base = reinterpret_cast<u64>(&machine.tss),
				 .gdt_base = reinterpret_cast<u64>(machine.gdt),
				 .idt_base = reinterpret_cast<u64>(machine.idt),
				 .gs_base = registers.gs_base,
				 .sysenter_esp = 0,
				 .sysenter_eip = 0,
				 .efer = registers.efer,
				 .pat = registers.pat,
				 .sysenter_cs = 0,
				 .cs = DedicatedMachine::code_selector,
				 .ss = DedicatedMachine::data_selector,
				 .tr = DedicatedMachine::tss_selector};
	cpu_record.vmxon_region = VmxCpu::vmxon_region(cpu);
	cpu_record.exits = VmxCpu::exit_counters(cpu);
	cpu_record.calls = &calls;
	cpu_record.cr3 = glue_private_map_root(map_);

	int error = glue_private_map_add(map_, &machine, sizeof(machine));
	if (!error)
		error = glue_private_map_add(map_, cpu_record.exits, VmxCpu::exit_counters_size);
	if (!error)
		error = glue_private_map_add_cpu(map_, cpu.value);
	for (std::size_t i = 0; !error && i < seen_count; i++)
		error = glue_private_map_add(map_, seen[i].start, seen[i].bytes);
	return from_errno(error);
}

Result<> DedicatedSlot::start()
{
	DedicatedMachine &machine = *machine_.load(std::memory_order_relaxed);
	glue_cpu_start start{.entry = kvmpp_dedicated_start,
			     .argument = &machine,
			     .stack = machine.stack_top(),
			     .map = map_,
			     .cr4 = machine.record.registers.cr4,
			     .efer = machine.record.registers.efer};

	machine.record.state.store(DedicatedCpu::State::starts, std::memory_order_relaxed);
	if (Result<> r = from_errno(glue_cpu_start_begin(cpu.value, &start)); !r)
		return r;
	auto arrived = [&] {
		return machine.record.state.load(std::memory_order_acquire) !=
		       DedicatedCpu::State::starts;
	};
	(void)within_patience(arrived);
	/* From here on it does not come up any more: it parks where it would. */
	auto state = DedicatedCpu::State::starts;
	bool given_up = machine.record.state.compare_exchange_strong(
		state, DedicatedCpu::State::off, std::memory_order_seq_cst);
	bool up = !given_up && state == DedicatedCpu::State::up;
	report_death();
	/* Before the page has its content back: it may still be running there. */
	if (!up)
		glue_cpu_stop(cpu.value);
	glue_cpu_start_end();
	if (given_up)
		return Errno::timedout;
	return up ? Result<>() : Errno::io;
}

int DedicatedSlot::count_taken()
{
	Locked locked(lock);
	int count = 0;

	for (int i = 0; i < glue_nr_cpus(); i++)
		count += of({i})->state != State::unused;
	return count;
}

/*
 * "IPI shorthand": a host that addresses all online CPUs may address all there are. It is made to, and the CPU
 * listens. True also when it could not be made to, and may do so later.
 */
bool DedicatedSlot::host_broadcasts()
{
	/* To one CPU, or to none, Linux sends it by name: that takes three online besides this one. */
	constexpr int enough = 3;
	DedicatedCpu &there = record();

	if (glue_cpu_may_be_mistaken(cpu.value))
		return true;
	if (glue_present_cpus() - 1 < enough || never_broadcasts.load(std::memory_order_relaxed))
		return false;
	/* It does so only when all CPUs there are have been online once. */
	if (glue_online_cpus() < enough || glue_online_cpus() + count_taken() < glue_present_cpus())
		return true;
	there.bell.fetch_or(DedicatedCpu::listen, std::memory_order_seq_cst);
	nmi();
	if (!within_patience([&] { return there.listening.load(std::memory_order_acquire) != 0; }))
		return true;
	for (int i = 0; i < 3; i++)
		glue_call_on_all_cpus([](void *) {}, nullptr);
	there.bell.fetch_or(DedicatedCpu::quiet, std::memory_order_seq_cst);
	if (!within_patience([&] { return there.listening.load(std::memory_order_acquire) == 0; }))
		return true;
	bool heard = there.strays.load(std::memory_order_relaxed) != 0;
	never_broadcasts.store(!heard, std::memory_order_relaxed);
	return heard;
}

Result<> DedicatedSlot::add_to_linux(bool *was_there)
{
	admitted.store(true, std::memory_order_seq_cst);
	int error = glue_cpu_add(cpu.value);
	admitted.store(false, std::memory_order_seq_cst);
	if (was_there)
		*was_there = error > 0;
	return from_errno(error);
}

Result<> DedicatedSlot::bring_up(DedicatedRun &run, std::size_t seen_count, const SeenMemory *seen)
{
	glue_cpu_registers registers{};
	u32 called_apic_id;

	was_online_ = glue_cpu_online(cpu.value);
	/* Who began to bring it online before it was `coming` wants it online afterwards. */
	if (!was_online_)
		if (Result<> r = add_to_linux(&was_online_); !r)
			return r;
	auto read = [](void *argument) {
		IrqOff irq;
		glue_cpu_registers_read(static_cast<glue_cpu_registers *>(argument));
	};
	int error = glue_call_on_cpu(called.value, read, &registers);
	called_apic_id = registers.apic_id;
	if (!error)
		error = glue_call_on_cpu(cpu.value, read, &registers);
	/* One of the two goes offline at this moment. */
	Result<> result = error ? Errno::busy : Result<>();
	if (result && !registers.has_x2apic)
		result = Errno::opnotsupp;
	if (result && !glue_parameters.allow_smt && glue_cpu_sibling_online(cpu.value)) {
		glue_log_ratelimited("CPU %d shares a core with a CPU of Linux: see allow_smt",
				     cpu.value);
		result = Errno::busy;
	}
	if (result)
		result = prepare(registers, seen_count, seen);
	if (result) {
		record().linux_apic_id = called_apic_id;
		if (int failed = glue_cpu_remove(cpu.value); failed)
			/* Linux gives positive numbers, too. */
			result = failed < 0 ? from_errno(failed) : Errno::busy;
	}
	if (result) {
		/* From `coming` on that one may not go, but it may have been on its way. */
		result = glue_cpu_online(called.value) ? start() : Errno::busy;
		if (result) {
			run.apic_is_free = !host_broadcasts();
			if (!run.apic_is_free && run.apic_wanted.load(std::memory_order_relaxed))
				glue_log_ratelimited(
					"CPU %d may get interrupts that Linux sends to others: the "
					"guest's exit, unless with no_ipi_broadcast=1",
					cpu.value);
			return result;
		}
		if (Result<> r = add_to_linux(); !r)
			glue_log_err("CPU %d does not come online again: errno %d", cpu.value,
				     static_cast<int>(r.error()));
	}
	drop_map();
	if (!was_online_)
		(void)glue_cpu_remove(cpu.value);
	return result;
}

/* No IPI of another vCPU goes to this CPU any more: who looked it up before has sent it. */
void DedicatedSlot::withdraw_from_apics()
{
	if (!run->apics)
		return;
	run->apics->set_shared(run->identity->id);
	for (int i = 0; i < glue_nr_cpus(); i++) {
		DedicatedSlot &other = *of({i});

		if (other.has_machine())
			(void)within_patience([&] {
				return other.record().sending.load(std::memory_order_seq_cst) == 0;
			});
	}
}

void DedicatedSlot::let_go(Dedicated &of)
{
	DedicatedCpu &there = record();
	auto gone = [&] {
		auto s = there.state.load(std::memory_order_acquire);
		return s == DedicatedCpu::State::parked || s == DedicatedCpu::State::died;
	};

	withdraw_from_apics();
	there.bell.fetch_or(DedicatedCpu::stop, std::memory_order_seq_cst);
	kick->ask(Request::come_out);
	kvmpp::kick(*kick);
	nmi();
	bool parked = within_patience(gone);
	/* Nobody who saw the vCPU there is still about to send it an NMI. */
	glue_synchronize_rcu();
	if (!parked) {
		lose();
		Locked locked(lock);
		state = State::lost;
		return;
	}
	report_death();
	if (u64 unknown = there.nmis_unknown.load(std::memory_order_relaxed))
		glue_log_ratelimited("CPU %d: %llu NMIs of unknown origin while it was dedicated",
				     cpu.value, static_cast<unsigned long long>(unknown));
	glue_cpu_stop(cpu.value);
	there.nmis.settle();
	there.state.store(DedicatedCpu::State::off, std::memory_order_relaxed);
	drop_map();
	if (Result<> r = add_to_linux(); !r)
		glue_log_err("CPU %d does not come online again: errno %d", cpu.value,
			     static_cast<int>(r.error()));
	else if (!was_online_)
		(void)glue_cpu_remove(cpu.value);

	{
		Locked locked(lock);
		state = State::unused;
		owner = nullptr;
		of.slot_.store(nullptr, std::memory_order_release);
	}
	glue_bell_ring(bell);
}

void DedicatedSlot::give_back(const Dedicated *whose)
{
	for (;;) {
		Dedicated *found = nullptr;
		{
			Locked locked(lock);

			if (state == State::unused || state == State::lost ||
			    (whose && owner != whose))
				return;
			if (state == State::taken) {
				state = State::going;
				found = owner;
			}
		}
		/* It stays: its end waits until this is over. */
		if (found)
			return let_go(*found);
		glue_msleep(1);
	}
}

Result<> Dedicated::take(CpuId cpu, const DedicatedOwner &who, KickTarget &kick, DedicatedRun &run,
			 std::size_t seen_count, const SeenMemory *seen)
{
	DedicatedSlot *slot = DedicatedSlot::of(cpu);

	{
		Locked locked(DedicatedSlot::lock);

		if (cpu == called || DedicatedSlot::asleep || DedicatedSlot::down ||
		    slot->state != DedicatedSlot::State::unused ||
		    slot_.load(std::memory_order_relaxed))
			return Errno::busy;
		slot->state = DedicatedSlot::State::coming;
		slot->owner = this;
		slot->who = who;
		slot->kick = &kick;
		slot->run = &run;
		slot_.store(slot, std::memory_order_relaxed);
	}
	Result<> result = slot->bring_up(run, seen_count, seen);
	{
		Locked locked(DedicatedSlot::lock);

		slot->state = result ? DedicatedSlot::State::taken : DedicatedSlot::State::unused;
		if (result) {
			times_taken_.fetch_add(1, std::memory_order_relaxed);
		} else {
			slot->owner = nullptr;
			slot_.store(nullptr, std::memory_order_relaxed);
		}
	}
	if (result) {
		/* It may be in its guest elsewhere: there it hears of it. */
		kick.ask(Request::come_out);
		kvmpp::kick(kick);
	}
	return result;
}

Result<> Dedicated::give_back()
{
	DedicatedSlot *slot;
	{
		Locked locked(DedicatedSlot::lock);

		slot = slot_.load(std::memory_order_relaxed);
		if (!slot)
			return Errno::inval;
		if (slot->state == DedicatedSlot::State::lost)
			return Errno::io;
		if (slot->state != DedicatedSlot::State::taken)
			return Errno::busy;
		slot->state = DedicatedSlot::State::going;
	}
	slot->let_go(*this);
	return slot_.load(std::memory_order_acquire) ? Errno::io : Result<>();
}

void Dedicated::end()
{
	/* From here on nobody takes one for it: its file is closed. */
	if (DedicatedSlot *slot = slot_.load(std::memory_order_acquire))
		/* Given back meanwhile, it may be somebody else's. */
		slot->give_back(this);
}

CpuId Dedicated::cpu() const
{
	Locked locked(DedicatedSlot::lock);
	DedicatedSlot *slot = slot_.load(std::memory_order_relaxed);

	return slot && slot->state != DedicatedSlot::State::coming ? slot->cpu : CpuId();
}

Dedicated::Place Dedicated::place_of_slot() const
{
	Locked locked(DedicatedSlot::lock);
	DedicatedSlot *slot = slot_.load(std::memory_order_relaxed);

	if (!slot)
		return Place::shared;
	switch (slot->state) {
	case DedicatedSlot::State::taken:
		return slot->lost.load(std::memory_order_relaxed) ? Place::lost : Place::own;
	case DedicatedSlot::State::lost:
		return Place::lost;
	case DedicatedSlot::State::going:
		return Place::moving;
	default:
		/* It runs where it did until the CPU is there. */
		return Place::shared;
	}
}

bool Dedicated::post(u32 taking)
{
	Locked locked(DedicatedSlot::lock);
	DedicatedSlot *slot = slot_.load(std::memory_order_relaxed);

	if (!slot || slot->state != DedicatedSlot::State::taken || times_taken() != taking)
		return false;
	if (slot->run->passthrough)
		slot->run->apics->set_own(slot->run->identity->id,
					  slot->record().registers.apic_id);
	posted_on_ = slot;
	posted_run_ = slot->run;
	/* One that has died answers no more. */
	if (slot->run->answer.exchange(Answer::none, std::memory_order_acq_rel) == Answer::died &&
	    slot->record().posted)
		slot->run->answer.store(Answer::died, std::memory_order_release);
	slot->record().posted = slot->run;
	slot->record().bell.fetch_or(DedicatedCpu::run, std::memory_order_seq_cst);
	slot->nmi();
	return true;
}

int Dedicated::answered(void *dedicated)
{
	auto *d = static_cast<Dedicated *>(dedicated);

	return d->posted_run_->answer.load(std::memory_order_acquire) != Answer::none ||
	       d->posted_on_->record().state.load(std::memory_order_acquire) ==
		       DedicatedCpu::State::died ||
	       d->slot_.load(std::memory_order_acquire) != d->posted_on_;
}

Result<> Dedicated::wait(bool interruptible)
{
	int error = glue_bell_wait(posted_on_->bell, answered, this, interruptible,
				   interruptible ? 0 : patience);

	if (error == -static_cast<int>(Errno::timedout))
		posted_on_->lose();
	if (!error && posted_on_->has_died())
		posted_on_->report_death();
	return from_errno(error);
}

Result<> Dedicated::wait_until_moved()
{
	while (place() == Place::moving) {
		if (glue_signal_pending())
			return Errno::intr;
		glue_wait_a_tick();
	}
	return {};
}

void Dedicated::count_online()
{
	if (DedicatedSlot *slot = slot_.load(std::memory_order_acquire))
		slot->out_online.fetch_add(1, std::memory_order_relaxed);
}

void Dedicated::count_user()
{
	if (DedicatedSlot *slot = slot_.load(std::memory_order_acquire))
		slot->out_user.fetch_add(1, std::memory_order_relaxed);
}

bool Dedicated::passthrough() const
{
	DedicatedSlot *slot = slot_.load(std::memory_order_acquire);

	return slot && slot->run->passthrough;
}

Result<> dedicated_init()
{
	int count = glue_nr_cpus();

	DedicatedSlot::lock.init(GLUE_LOCK_DEDICATED);
	DedicatedSlot::never_broadcasts.store(false, std::memory_order_relaxed);
	DedicatedSlot::all =
		static_cast<DedicatedSlot *>(glue_zalloc(count * sizeof(DedicatedSlot)));
	if (!DedicatedSlot::all)
		return Errno::nomem;
	for (int i = 0; i < count; i++)
		new (&DedicatedSlot::all[i]) DedicatedSlot;
	for (int i = 0; i < count; i++)
		DedicatedSlot::of({i})->cpu = {i};
	Result<> registered = from_errno(glue_dedicated_init());
	if (!registered) {
		glue_free(DedicatedSlot::all);
		DedicatedSlot::all = nullptr;
	}
	return registered;
}

void dedicated_exit()
{
	/* No vCPU is left, hence no CPU that would call or be kicked. */
	glue_dedicated_exit();
	for (int i = 0; i < glue_nr_cpus(); i++)
		DedicatedSlot::of({i})->destroy();
	glue_free(DedicatedSlot::all);
	DedicatedSlot::all = nullptr;
}

namespace
{

void give_all_back() MAY_SLEEP
{
	for (int i = 0; i < glue_nr_cpus(); i++)
		DedicatedSlot::of({i})->give_back();
}

} // namespace

void dedicated_machine_down()
{
	{
		Locked locked(DedicatedSlot::lock);
		DedicatedSlot::down = true;
	}
	give_all_back();
}

void dedicated_crash()
{
	static constinit std::atomic<bool> done{false};

	/* All CPUs come by here; one sees to it. */
	if (done.exchange(true, std::memory_order_seq_cst))
		return;
	using State = DedicatedCpu::State;
	auto state = [](int cpu) {
		DedicatedSlot &slot = *DedicatedSlot::of({cpu});

		return slot.has_machine() ? slot.record().state.load(std::memory_order_seq_cst)
					  : State::off;
	};
	for (int i = 0; i < glue_nr_cpus(); i++) {
		if (state(i) != State::starts && state(i) != State::up)
			continue;
		/* One that starts has nothing yet to take an NMI with, and looks by itself when it is up. */
		DedicatedSlot::of({i})->record().crash.store(1, std::memory_order_seq_cst);
		if (state(i) == State::up)
			glue_cpu_nmi(i);
	}
	for (int i = 0; i < glue_nr_cpus(); i++)
		for (unsigned us = 0;
		     us < 10'000 && (state(i) == State::starts || state(i) == State::up); us += 10)
			glue_udelay(10);
}

bool dedicated_any_lost()
{
	return DedicatedSlot::any_lost.load(std::memory_order_relaxed);
}

bool dedicated_may_offline(CpuId cpu)
{
	if (cpu != called)
		return true;
	Locked locked(DedicatedSlot::lock);

	for (int i = 0; i < glue_nr_cpus(); i++)
		if (DedicatedSlot::of({i})->state != DedicatedSlot::State::unused)
			return false;
	return true;
}

int dedicated_count_possible()
{
	int count = 0;
	glue_cpu_registers registers{};

	{
		IrqOff irq;
		glue_cpu_registers_read(&registers);
	}
	if (!registers.has_x2apic)
		return 0;
	Locked locked(DedicatedSlot::lock);
	for (int i = 0; i < glue_nr_cpus(); i++)
		count += i != called.value && glue_cpu_present(i) &&
			 DedicatedSlot::of({i})->state == DedicatedSlot::State::unused;
	return count;
}

void kick_dedicated(CpuId cpu)
{
	DedicatedSlot::of(cpu)->nmi();
}

void wait_until_seen(const KickTarget &target, Request request)
{
	constexpr unsigned step = 1;

	for (unsigned us = 0;; us += step) {
		if (Whereabouts where = target.where(); where.is_dedicated()) {
			DedicatedSlot &slot = *DedicatedSlot::of(where.cpu());

			if (us >= patience * 1000)
				slot.lose();
			if (slot.lost.load(std::memory_order_relaxed))
				return;
		}
		if (!target.is_unseen(request))
			return;
		glue_udelay(step);
	}
}

} // namespace kvmpp

using namespace kvmpp;

int kvmpp_cpu_prepare(int cpu)
{
	DedicatedSlot &slot = *DedicatedSlot::of({cpu});

	if (slot.admitted.load(std::memory_order_seq_cst))
		return 0;
	Locked locked(DedicatedSlot::lock);

	if (slot.state != DedicatedSlot::State::unused)
		return -static_cast<int>(Errno::busy);
	/* Nor beside a guest that has the rest of the core. */
	for (int i = 0; !glue_parameters.allow_smt && i < glue_nr_cpus(); i++)
		if (i != cpu && DedicatedSlot::of({i})->state != DedicatedSlot::State::unused &&
		    glue_cpus_share_core(i, cpu))
			return -static_cast<int>(Errno::busy);
	return 0;
}

int kvmpp_nmi(int cpu)
{
	int claimed = 0;
	DedicatedSlot &own = *DedicatedSlot::of({cpu});

	/* A kick that came late: the CPU has been given back meanwhile. */
	if (own.has_machine() && own.record().nmis.claim())
		claimed++;
	if (cpu != called.value)
		return claimed;
	for (int i = 0; i < glue_nr_cpus(); i++) {
		DedicatedSlot &slot = *DedicatedSlot::of({i});

		if (slot.has_machine() &&
		    slot.record().wants_linux.exchange(0, std::memory_order_seq_cst)) {
			glue_bell_ring(slot.bell);
			claimed++;
		}
	}
	return claimed;
}

/* Of two calls one NMI may have seen to both: what comes a moment later and finds nothing is the other. */
int kvmpp_unclaimed_nmi(int cpu)
{
	constexpr u64 ms = 10;

	return cpu == called.value && insn::rdtsc() - calls.last_sent() < glue_tsc_khz() * ms;
}

void kvmpp_machine_sleeps(void)
{
	{
		Locked locked(DedicatedSlot::lock);
		DedicatedSlot::asleep = true;
	}
	give_all_back();
}

void kvmpp_machine_woke(void)
{
	Locked locked(DedicatedSlot::lock);

	DedicatedSlot::asleep = false;
}

void kvmpp_show_dedicated(struct glue_text *text)
{
	constexpr const char *names[] = {"", "starting", "waiting", "leaving", "lost"};

	for (int i = 0; i < glue_nr_cpus(); i++) {
		DedicatedSlot &slot = *DedicatedSlot::of({i});
		DedicatedOwner who;
		const char *doing;
		bool runs, passthrough;
		{
			/* The vCPU stays until its CPU is unused. */
			Locked locked(DedicatedSlot::lock);

			if (slot.state == DedicatedSlot::State::unused || !slot.has_machine())
				continue;
			who = slot.who;
			doing = names[static_cast<u32>(slot.state)];
			runs = slot.state == DedicatedSlot::State::taken &&
			       !slot.kick->where().is_nowhere();
			passthrough = slot.run->apic_is_free &&
				      slot.run->apic_wanted.load(std::memory_order_relaxed);
		}
		DedicatedCpu &there = slot.record();
		if (slot.lost.load(std::memory_order_relaxed))
			doing = "lost";
		else if (there.state.load(std::memory_order_relaxed) == DedicatedCpu::State::died)
			doing = "dead";
		else if (runs)
			doing = "running";
		auto number = [](const std::atomic<u64> &value) {
			return static_cast<unsigned long long>(
				value.load(std::memory_order_relaxed));
		};
		glue_text_print(text,
				"cpu %d process %u vm %u vcpu %u state %s passthrough %s stay %llu "
				"online %llu "
				"user %llu kicks %llu nmis %llu unknown_nmis %llu strays %llu\n",
				i, who.process, who.vm, who.vcpu, doing, passthrough ? "yes" : "no",
				number(there.stayed), number(slot.out_online),
				number(slot.out_user),
				static_cast<unsigned long long>(there.nmis.sent()),
				static_cast<unsigned long long>(there.nmis.come()),
				number(there.nmis_unknown), number(there.strays));
	}
}
