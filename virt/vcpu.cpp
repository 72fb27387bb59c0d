// SPDX-License-Identifier: GPL-2.0
#include "vcpu.hpp"

#include "arch/x86/cpuid.hpp"
#include "arch/x86/events.hpp"
#include "arch/x86/guest_debug.hpp"
#include "hardware.hpp"
#include "irqchip/lapic.hpp"
#include "logged_run.hpp"
#include "vm.hpp"

#include <linux/kvm.h>
#include <linux_glue/entries.h>

#include <cstring>

namespace kvmpp
{

namespace
{

/* A field of the shared page: user space may change it at any time, so it is read once. */
template <class T> T read_once(const T &field)
{
	return *const_cast<const volatile T *>(&field);
}

/* The thread's FPU state and the notice of being scheduled away, for the time of a KVM_RUN. */
class InRun
{
public:
	InRun(Vcpu &vcpu, glue_guest_fpu *fpu, glue_sched_notifier &notifier)
		: vcpu_(vcpu), fpu_(fpu), notifier_(notifier)
	{
		glue_guest_fpu_enter(fpu_);
		glue_sched_notifier_register(&notifier_, &vcpu_);
	}
	~InRun()
	{
		{
			/* Scheduled away in between, nobody would take the guest's MSRs out. */
			PreemptOff preempt;
			{
				IrqOff irq;
				vcpu_.sched_out(irq, false);
			}
			glue_sched_notifier_unregister(&notifier_);
		}
		glue_guest_fpu_leave(fpu_);
	}
	InRun(const InRun &) = delete;
	InRun &operator=(const InRun &) = delete;

private:
	Vcpu &vcpu_;
	glue_guest_fpu *fpu_;
	glue_sched_notifier &notifier_;
};

} // namespace

Vcpu::Vcpu(Vm &vm, u32 id)
	: vm_(vm), identity_{.id = id,
			     .physical_address_bits = guest_features().physical_address_bits},
	  vmx_(hardware_config(), vm.mmu().ept())
{
}

/* Nobody has it any more. */
Vcpu::~Vcpu() NO_THREAD_SAFETY_ANALYSIS
{
	vm_.clock().remove(clock_);
	/* Others may still post, but nobody sets it again. */
	if (lapic_)
		lapic_->timer().stop();
	if (fpu_)
		glue_guest_fpu_free(fpu_);
}

/* Nobody else has it yet. */
Result<> Vcpu::init() NO_THREAD_SAFETY_ANALYSIS
{
	mutex_.init(GLUE_LOCK_VCPU);
	entry_ = Owned<VcpuEntry>::create(identity_.id);
	run_page_ = Page::create();
	port_page_ = Page::create();
	fpu_image_ = Page::create();
	cpuid_ = Owned<GuestCpuid>::create();
	machine_check_ = Owned<MachineCheck>::create();
	fpu_ = glue_guest_fpu_alloc();
	if (!entry_ || !run_page_ || !port_page_ || !fpu_image_ || !cpuid_ || !machine_check_ ||
	    !fpu_)
		return Errno::nomem;
	state_.cpuid = cpuid_.get();
	state_.machine_check = machine_check_.get();
	state_.tsc_record = &vm_.tsc();
	state_.reset(identity_.id, vm_.tsc().offset());
	state_.port_page = port_page_.as<u8>();
	if (Result<> r = create_apic(); !r)
		return r;
	tsc_khz_ = static_cast<u32>(glue_tsc_khz());
	run_page_.as<kvm_run>()->apic_base = state_.apic_base;
	if (Result<> r =
		    vmx_.create({.process = vm_.process(), .vm = vm_.id(), .vcpu = identity_.id});
	    !r)
		return r;
	seen_vmcs_ = vmx_.lent_vmcs();
	state_.clock.wall_clock = &vm_.clock().wall_clock();
	vm_.clock().add(clock_, identity_.id, state_);
	return {};
}

void *Vcpu::shared_page(unsigned long index) const
{
	switch (index) {
	case 0:
		return run_page_.as<void>();
	case 1:
		return port_page_.as<void>();
	case ring_page:
		return vm_.io_bus().ring_page();
	default:
		return nullptr;
	}
}

/* VcpuState::user into the pages that user space sees. */
void Vcpu::show_exit()
{
	kvm_run &run = *run_page_.as<kvm_run>();
	const UserExit &user = state_.user;

	run.exit_reason = user.reason;
	switch (user.reason) {
	case KVM_EXIT_IO:
		run.io.direction = user.io.direction;
		run.io.size = user.io.size;
		run.io.port = user.io.port;
		run.io.count = user.io.string_count ? user.io.string_count : 1;
		run.io.data_offset = page_size;
		if (!user.io.string_count)
			std::memcpy(port_page_.as<u8>(), user.io.data, user.io.size);
		break;
	case KVM_EXIT_MMIO:
		run.mmio.phys_addr = user.mmio.phys_addr;
		run.mmio.len = user.mmio.len;
		run.mmio.is_write = user.mmio.is_write;
		std::memcpy(run.mmio.data, user.mmio.data, sizeof(user.mmio.data));
		break;
	case KVM_EXIT_FAIL_ENTRY:
		run.fail_entry.hardware_entry_failure_reason =
			user.fail_entry.hardware_entry_failure_reason;
		run.fail_entry.cpu = user.fail_entry.cpu;
		break;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		run.msr.error = 0;
		run.msr.reason = KVM_MSR_EXIT_REASON_UNKNOWN;
		run.msr.index = user.msr.index;
		run.msr.data = user.msr.data;
		break;
	case KVM_EXIT_IOAPIC_EOI:
		run.eoi.vector = user.eoi.vector;
		break;
	case KVM_EXIT_DEBUG:
		run.debug.arch = {.exception = user.debug.exception,
				  .pad = 0,
				  .pc = user.debug.pc,
				  .dr6 = user.debug.dr6,
				  .dr7 = user.debug.dr7};
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		run.internal.suberror = user.internal.suberror;
		run.internal.ndata = user.internal.ndata;
		std::memcpy(run.internal.data, user.internal.data, sizeof(user.internal.data));
		break;
	}
}

/* False: it has none, and the guest's own flags are to be written. */
bool Vcpu::give_up_accessed_bits()
{
	u64 pointer = vm_.mmu().give_up_accessed_bits();

	if (state_.ept_pointer == pointer)
		return false;
	state_.ept_pointer = pointer;
	state_.mark_dirty(Group::ept_pointer);
	return true;
}

Result<Next> Vcpu::handle_ept_violation(const Exit &exit)
{
	{
		SrcuRead read(vm_.srcu());
		EptViolation violation(exit.qualification);
		Result<FaultOutcome> outcome = vm_.mmu().fault(
			vm_.slots(read), exit.guest_phys,
			{.write = violation.write, .fetch = violation.fetch}, table_pages_);

		if (!outcome)
			return outcome.error();
		if (*outcome == FaultOutcome::resume)
			return Next::resume;
		if (violation.page_walk && violation.write &&
		    GuestMemory(vm_.slots(read)).is_ram(exit.guest_phys) && give_up_accessed_bits())
			return Next::resume;
	}
	if (Result<> r = vmx_.fetch(state_, emulation_state); !r)
		return r.error();
	/* As KVM has it: what an emulated access leaves in the cache an attacker can choose, unlike a fault's. */
	vmx_.flush_l1d_at_entry();
	SrcuRead read(vm_.srcu());
	return emulate_mmio(state_, exit, GuestMemory(vm_.slots(read)));
}

Result<Next> Vcpu::handle(const Exit &exit)
{
	Next next;

	/* The VM's memory has to say what is there. */
	if (exit.reason() == ExitReason::ept_violation) {
		deliver_again(state_, exit);
		return handle_ept_violation(exit);
	}
	if (exit.reason() == ExitReason::preemption_timer && lapic_) {
		lapic_->timer().run_down();
		return Next::resume;
	}
	/* It is emulated: see handle_ept_violation(). */
	if (exit.reason() == ExitReason::io_instruction && IoAccess(exit.qualification).string)
		vmx_.flush_l1d_at_entry();
	{
		SrcuRead read(vm_.srcu());
		next = handle_exit(state_, identity_, exit, GuestMemory(vm_.slots(read)));
	}
	if (next == Next::spin) {
		vm_.yield_from(*entry_);
		return Next::resume;
	}
	return next;
}

/* Into the guest, on this CPU, and what the exit that ends it asks for. */
[[gnu::always_inline]] inline Result<Next> Vcpu::step()
{
	Exit &exit = exit_;
	Next next = Next::needs_linux;
	Result<Entry> entry = Entry::exited;
	{
		LoggedRun logged(vm_, *entry_, vmx_, state_);
		entry = vmx_.enter(state_, identity_, exit, next, entry_->kick);
	}
	if (!entry)
		return entry.error();
	switch (*entry) {
	case Entry::
		interrupted: /* by what has brought it, often; but what before_next() may have comes first */
		if (user_wants_window())
			return Next::resume;
		[[fallthrough]];
	case Entry::work:
		if (Result<> r = from_errno(glue_work_handle()); !r)
			return r.error();
		return Next::resume;
	case Entry::vmx_off:
		if (glue_signal_pending())
			return Errno::intr;
		glue_wait_a_tick();
		return Next::resume;
	case Entry::vmfail:
		state_.user = {.reason = KVM_EXIT_FAIL_ENTRY,
			       .fail_entry = {.hardware_entry_failure_reason = exit.raw_reason,
					      .cpu = static_cast<u32>(exit.cpu.value)}};
		return Next::user;
	case Entry::asked:
		return Next::resume;
	case Entry::exited:
		break;
	}
	return past_bus(next == Next::needs_linux ? handle(exit) : Result<Next>(next));
}

Result<Next> Vcpu::complete_in_guests_memory(const u8 (&data)[8])
{
	if (Result<> r = vmx_.fetch(state_, emulation_state); !r)
		return r.error();
	SrcuRead read(vm_.srcu());
	return complete_in_memory(state_, GuestMemory(vm_.slots(read)), data);
}

/* An access that waits for @data, or for its end. */
[[gnu::always_inline]] inline Result<Next> Vcpu::complete_pending(const u8 (&data)[8])
{
	if (state_.pending.kind == PendingAccess::Kind::none)
		return Next::resume;
	if (state_.pending.needs_memory())
		return complete_in_guests_memory(data);
	if (Result<> r = vmx_.fetch(state_, skip_state); !r)
		return r.error();
	return complete_in_registers(state_, data);
}

/* What user space has for the access that waits for it. */
Result<Next> Vcpu::complete_by_user()
{
	using Kind = PendingAccess::Kind;
	const kvm_run &run = *run_page_.as<kvm_run>();
	u8 data[8] = {};

	switch (state_.pending.kind) {
	case Kind::port_in:
		std::memcpy(data, port_page_.as<u8>(), state_.pending.size);
		break;
	case Kind::mmio_read:
		std::memcpy(data, run.mmio.data, sizeof(data));
		break;
	case Kind::msr_read:
	case Kind::msr_write: {
		u64 value = read_once(run.msr.data);

		state_.pending.refused = read_once(run.msr.error);
		std::memcpy(data, &value, sizeof(data));
		break;
	}
	default:
		break;
	}
	return complete_pending(data);
}

/* The access that the last KVM_RUN left to user space. */
Result<Next> Vcpu::finish_pending()
{
	static constexpr u8 nothing[8] = {};

	switch (state_.pending.kind) {
	case PendingAccess::Kind::none:
		return Next::resume;
	case PendingAccess::Kind::port_out:
	case PendingAccess::Kind::mmio_write:
		return past_bus(complete_pending(nothing));
	default:
		return past_bus(complete_by_user());
	}
}

/* INS and OUTS, one datum after the other. False: those that are left go to user space. */
bool Vcpu::take_string()
{
	UserExit &user = state_.user;
	bool is_out = user.io.direction == KVM_EXIT_IO_OUT;
	u32 size = user.io.size, count = user.io.string_count, done = 0;
	u8 *page = port_page_.as<u8>();

	for (; done < count; done++) {
		IoWrite write{.space = IoSpace::port, .address = user.io.port, .length = size};

		if (is_out)
			std::memcpy(write.data, page + done * size, size);
		if (!(lapic_ &&
		      access_device(IoSpace::port, write.address, size, is_out, write.data)) &&
		    !(is_out && vm_.io_bus().take(write)))
			break;
		if (!is_out)
			std::memcpy(page + done * size, write.data, size);
	}
	/* What reads is a device that stays: it has done all or none. */
	user.io.string_count = count - done;
	std::memmove(page, page + done * size, is_out ? (count - done) * size : 0);
	return done == count;
}

/* What of @next need not go to user space, since somebody in the kernel does it, is done here. */
Result<Next> Vcpu::past_bus(Result<Next> next)
{
	if (lapic_)
		follow_apic();
	return next && *next == Next::user ? offer_to_bus() : next;
}

/* A write to a device that user space is to see, and is not: somebody has asked for it. */
bool Vcpu::take_on_bus()
{
	const UserExit &user = state_.user;
	IoBus &bus = vm_.io_bus();
	IoWrite write;

	switch (user.reason) {
	case KVM_EXIT_IO:
		if (user.io.direction != KVM_EXIT_IO_OUT || !bus.has_takers(IoSpace::port))
			return false;
		write = {.space = IoSpace::port, .address = user.io.port, .length = user.io.size};
		std::memcpy(write.data, user.io.data, user.io.size);
		return bus.take(write);
	case KVM_EXIT_MMIO:
		if (!user.mmio.is_write || !bus.has_takers(IoSpace::mmio))
			return false;
		write = {.space = IoSpace::mmio,
			 .address = user.mmio.phys_addr,
			 .length = user.mmio.len};
		std::memcpy(write.data, user.mmio.data, user.mmio.len);
		return bus.take(write);
	default:
		return false;
	}
}

Result<Next> Vcpu::offer_to_bus()
{
	Result<Next> next = Next::user;

	while (next && *next == Next::user) {
		u8 data[8] = {};

		bool taken = state_.user.reason == KVM_EXIT_IO && state_.user.io.string_count
				     ? take_string()
				     : (lapic_ && take_in_kernel(data)) || take_on_bus();
		if (!taken)
			break;
		next = complete_pending(data);
	}
	return next;
}

bool Vcpu::user_wants_window() const
{
	return read_once(run_page_.as<kvm_run>()->request_interrupt_window) && takes_from_user();
}

bool Vcpu::read_immediate_exit() const
{
	return read_once(run_page_.as<kvm_run>()->immediate_exit);
}

/* The host's TSC may have gone back since the last call. */
void Vcpu::follow_sleep()
{
	u64 lost = vm_.clock().follow_sleep(clock_, state_);

	if (lost && lapic_)
		lapic_->timer().tsc_lost(lost);
}

/* The guest is about to go on: if its time is another than it was told, it is told. */
void Vcpu::follow_clock()
{
	follow_sleep();
	if (vm_.clock().is_due(clock_, state_)) [[unlikely]]
		tell_time();
}

void Vcpu::tell_time()
{
	SrcuRead read(vm_.srcu());
	vm_.clock().update(clock_, state_, GuestMemory(vm_.slots(read)));
}

/* Likewise of the time that its thread has waited. */
void Vcpu::follow_steal_time()
{
	if (!state_.paravirtual.steal_due) [[likely]]
		return;
	SrcuRead read(vm_.srcu());
	steal_time_.tell(state_, GuestMemory(vm_.slots(read)));
}

void Vcpu::sched_out(const IrqOff &irq, bool preempted)
{
	entry_->set_preempted(preempted);
	vmx_.leave_guest(irq, state_);
	/* As KVM: not while the host does an instruction for it, which may use what others expect it not to. */
	if (!preempted || !state_.paravirtual.between_instructions ||
	    !state_.paravirtual.wants_steal_time())
		return;
	SrcuRead read(vm_.srcu());
	steal_time_.tell_preempted(state_, GuestMemory(vm_.slots(read)));
}

void Vcpu::sched_in()
{
	entry_->set_preempted(false);
	vmx_.flush_l1d_at_entry();
	if (!state_.paravirtual.wants_steal_time())
		return;
	state_.paravirtual.steal_due = true;
	/* It may be on its way into the guest. */
	entry_->kick.ask(Request::come_out);
}

/* Before the guest goes on: what user space wants to know of first. */
Result<Next> Vcpu::before_next()
{
	if (state_.debug.step_due) {
		if (Result<> r = vmx_.fetch(state_, debug_state); !r)
			return r.error();
		return debug_exit(state_, Vector::debug, dr6::bs | dr6::fixed);
	}
	state_.window_wanted = user_wants_window();
	if (!state_.window_wanted)
		return Next::resume;
	if (Result<> r = vmx_.fetch(state_, window_state); !r)
		return r.error();
	if (!ready_for_interrupt(state_))
		return Next::resume;
	state_.user = {.reason = KVM_EXIT_IRQ_WINDOW_OPEN, .io = {}};
	return Next::user;
}

/* On CPUs of Linux, until it has to go back to user space or gets a CPU of its own. */
Result<Next> Vcpu::run_shared()
{
	InRun in_run(*this, fpu_, notifier_);
	Result<Next> next = Next::resume;

	vmx_.flush_l1d_at_entry();

	while (next && *next == Next::resume && dedicated_.place() == Dedicated::Place::shared) {
		if (lapic_) {
			next = settle_apic();
			if (!next || *next != Next::resume)
				break;
		}
		follow_clock();
		follow_steal_time();
		if (lapic_)
			follow_timer();
		next = step();
		if (next && *next == Next::resume)
			next = before_next();
	}
	/* For kvm_run: here, where VMX may be on for this thread only. */
	if (Result<> r = vmx_.fetch(state_, window_state); !r && next)
		next = r.error();
	return next;
}

/* Its state goes to the CPU that it has. */
Result<> Vcpu::lend()
{
	DedicatedRun &run = dedicated_run_;

	/* Before anything is looked at that is another way with another CPU. */
	lent_for_ = dedicated_.times_taken();
	run.identity = &identity_;
	run.state = &state_;
	run.kick = &entry_->kick;
	run.fpu_image = fpu_image_.as<void>();
	run.apics = &vm_.apics();
	state_.apic.map = &vm_.apics();
	if (Result<> r = vmx_.lend(state_, run); !r)
		return r;
	glue_guest_fpu_save(fpu_, run.fpu_image, fpu_features());
	lent_ = true;
	/* It was asked to move, which it does; and that CPU begins with INVEPT. */
	(void)entry_->kick.take();
	state_.apic.owned = run.passthrough;
	return {};
}

/* And back, that CPU being gone. A guest that has halted there is one for user space to wake, unless it has. */
Result<Next> Vcpu::take_back()
{
	DedicatedRun &run = dedicated_run_;
	constexpr u32 activity_hlt = 1;

	lent_ = false;
	vmx_.take_back(state_, run);
	if (Result<> r = from_errno(glue_guest_fpu_load(fpu_, run.fpu_image, fpu_features())); !r)
		return r.error();
	/* Unless user space has set it elsewhere since. */
	if (std::exchange(run.left.activity, 0) != activity_hlt || state_.dirty.has(Group::rip) ||
	    has_events(state_))
		return Next::resume;
	state_.user = {.reason = KVM_EXIT_HLT, .io = {}};
	return Next::user;
}

/* One run on the CPU that it has, and what it comes out for. */
Result<Next> Vcpu::run_dedicated()
{
	DedicatedRun &run = dedicated_run_;

	/* Each time: a guest may exit without end, and then no signal has it come out. */
	if (Result<> r = from_errno(glue_work_handle()); !r)
		return r.error();
	if (!lent_)
		if (Result<> r = lend(); !r)
			return r.error();
	/* After lend(), which takes what has been asked of it: from here on that CPU sees it. */
	if (lapic_) {
		lapic_->timer().watch_by_linux();
		if (Result<Next> next = settle_apic(); !next || *next != Next::resume)
			return next;
	}
	follow_clock();
	if (steal_time_.has_grown(state_))
		state_.paravirtual.steal_due = true;
	follow_steal_time();
	{
		LoggedRun logged(vm_, *entry_, vmx_, state_);
		if (!dedicated_.post(lent_for_))
			return Next::resume;
		if (Result<> r = dedicated_.wait(true); !r) {
			/* A signal: the guest is to come out. */
			run.kick->ask(Request::come_out);
			kick(*run.kick);
			if (r = dedicated_.wait(false); !r) {
				logged.lose();
				return internal_error(state_,
						      KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON);
			}
		}
	}
	switch (run.answer.load(std::memory_order_acquire)) {
	case Answer::interrupted:
		return Next::resume;
	case Answer::vmfail:
		state_.user = {.reason = KVM_EXIT_FAIL_ENTRY,
			       .fail_entry = {.hardware_entry_failure_reason = run.exit.raw_reason,
					      .cpu = static_cast<u32>(run.exit.cpu.value)}};
		return Next::user;
	case Answer::failed:
		return Errno::io;
	case Answer::exited: {
		Result<Next> next = past_bus(
			run.next == Next::needs_linux ? handle(run.exit) : Result<Next>(run.next));

		if (next && *next == Next::resume)
			dedicated_.count_online();
		else
			dedicated_.count_user();
		return next;
	}
	default:
		return internal_error(state_, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON);
	}
}

[[gnu::always_inline]] inline Result<> Vcpu::run_guest()
{
	if (is_lost()) {
		(void)internal_error(state_, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON);
		return {};
	}
	if (mp_state_ == KVM_MP_STATE_UNINITIALIZED)
		return wait_for_init();
	Result<Next> next = finish_pending();
	if (next && *next == Next::resume) {
		state_.window_wanted = user_wants_window();
		if (state_.debug.step_due)
			next = before_next();
	}
	if (next && *next == Next::resume && read_immediate_exit())
		next = Errno::intr;
	if (next && *next == Next::resume && std::exchange(state_.shutdown_pending, false)) {
		state_.user = {.reason = KVM_EXIT_SHUTDOWN, .io = {}};
		next = Next::user;
	}
	while (next && *next == Next::resume) {
		has_run_ = true;
		switch (dedicated_.place()) {
		case Dedicated::Place::shared:
			next = lent_ ? take_back() : run_shared();
			break;
		case Dedicated::Place::own:
			/* It may have come from another one, of which it has not been taken back. */
			if (lent_ && lent_for_ != dedicated_.times_taken()) {
				next = take_back();
				break;
			}
			next = run_dedicated();
			if (next && *next == Next::resume)
				next = before_next();
			break;
		case Dedicated::Place::moving:
			if (Result<> r = dedicated_.wait_until_moved(); !r)
				next = r.error();
			break;
		case Dedicated::Place::lost:
			next = internal_error(state_, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON);
			break;
		}
	}
	return next ? Result<>() : next.error();
}

Result<> Vcpu::run()
{
	kvm_run &run = *run_page_.as<kvm_run>();
	u64 cr8 = read_once(run.cr8);

	/* Registers are not synchronised through the shared page: KVM_CAP_SYNC_REGS is 0. */
	if ((!lapic_ && cr8 > 15) || read_once(run.kvm_valid_regs) || read_once(run.kvm_dirty_regs))
		return Errno::inval;
	if (Result<> r = entry_->set_thread_to_current(); !r)
		return r;
	run.flags = 0;
	/* Else the CPU has the state. */
	if (!is_lost()) {
		if (!lapic_)
			state_.cr8 = cr8;
		state_.paravirtual.between_instructions = false;
		if (steal_time_.has_grown(state_))
			state_.paravirtual.steal_due = true;
	}

	if (has_signal_mask_)
		glue_signal_mask_enter(signal_mask_);
	Result<> result = run_guest();
	if (has_signal_mask_)
		glue_signal_mask_leave();
	if (result)
		show_exit();
	else if (result.error() == Errno::intr)
		run.exit_reason = KVM_EXIT_INTR;
	run.cr8 = state_.cr8;
	run.apic_base = state_.apic_base;
	/* What the guest has not run for is not fetched yet; and a CPU that is lost has it. */
	bool known = !is_lost() && vmx_.fetch(state_, window_state);
	run.if_flag = known && (state_.rflags & rflags::if_);
	run.ready_for_interrupt_injection = known && is_ready_for_user();
	return result;
}

bool Vcpu::end()
{
	dedicated_.end();
	return dedicated_.place() != Dedicated::Place::lost;
}

} // namespace kvmpp

using namespace kvmpp;

void *kvmpp_vcpu_page(void *vcpu, unsigned long index)
{
	return static_cast<Vcpu *>(vcpu)->shared_page(index);
}

void kvmpp_vcpu_release(void *vcpu)
{
	auto *v = static_cast<Vcpu *>(vcpu);

	v->vm().destroy_vcpu(v);
}

/* The thread holds the vCPU's mutex since it went into KVM_RUN. */
void kvmpp_vcpu_sched_out(void *vcpu, int preempted) NO_THREAD_SAFETY_ANALYSIS
{
	IrqOff irq;

	static_cast<Vcpu *>(vcpu)->sched_out(irq, preempted);
}

void kvmpp_vcpu_sched_in(void *vcpu) NO_THREAD_SAFETY_ANALYSIS
{
	static_cast<Vcpu *>(vcpu)->sched_in();
}
