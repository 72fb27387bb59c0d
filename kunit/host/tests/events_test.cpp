// SPDX-License-Identifier: GPL-2.0
/* Which event the next entry delivers, which windows are exited for, and what user space sees and sets. */
#include "guest.hpp"

#include "arch/x86/events.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

using Type = InterruptionInfo::Type;

class Events : public GuestTest
{
protected:
	Events()
	{
		protected_mode();
		s.rflags |= rflags::if_;
	}

	void expect_next(Delivery delivery, u32 info)
	{
		Event event = settle_events(s);

		EXPECT_EQ(s.delivering, delivery);
		EXPECT_EQ(event.info.raw, info);
	}
	void expect_nothing() { expect_next(Delivery::none, 0); }
	kvm_vcpu_events get()
	{
		kvm_vcpu_events k;
		get_vcpu_events(s, k);
		return k;
	}
	void expect_refused(void (*change)(kvm_vcpu_events &))
	{
		kvm_vcpu_events k = get(), before = k;

		k.nmi.injected = k.interrupt.injected = 1;
		change(k);
		Result<> r = set_vcpu_events(s, k);
		ASSERT_FALSE(r);
		EXPECT_EQ(r.error(), Errno::inval);
		k = get();
		EXPECT_EQ(std::memcmp(&k, &before, sizeof(k)), 0);
		EXPECT_TRUE(s.dirty.empty());
	}
	static Exit vectoring(u32 info, u32 length = 0)
	{
		Exit exit = exit_of(ExitReason::ept_violation, 0, length);
		exit.vectoring = {info};
		return exit;
	}
	static constexpr u32 nmi = 0x80000202;
};

} // namespace

TEST_F(Events, one_after_the_other_by_priority)
{
	queue_interrupt(s, 0x31);
	s.nmi.injected = true;
	ASSERT_TRUE(s.inject(Vector::invalid_opcode));
	expect_next(Delivery::exception, 0x80000306);
	end_delivery(s);
	expect_next(Delivery::nmi, nmi);
	end_delivery(s);
	expect_next(Delivery::interrupt, 0x80000031);
	end_delivery(s);
	expect_nothing();
	EXPECT_FALSE(has_events(s));
}

TEST_F(Events, faults_set_the_resume_flag)
{
	const struct {
		Vector vector;
		bool fault;
	} cases[] = {{Vector::invalid_opcode, true}, {Vector::general_protection, true},
		     {Vector::page_fault, true},     {Vector::alignment_check, true},
		     {Vector::debug, false},         {Vector::breakpoint, false},
		     {Vector::overflow, false},      {Vector::double_fault, false},
		     {Vector::machine_check, false}};

	for (auto [vector, fault] : cases) {
		ASSERT_TRUE(s.inject(vector));
		EXPECT_EQ(needs_window_state(s), fault);
		(void)settle_events(s);
		EXPECT_EQ(!!(s.rflags & rflags::rf), fault) << static_cast<unsigned>(vector);
		EXPECT_EQ(s.dirty.has(Group::rflags), fault);
		end_delivery(s);
		s.rflags &= ~rflags::rf;
		clean();
	}
	/* It is in the image already. */
	ASSERT_TRUE(s.inject(Vector::page_fault));
	s.event.again = true;
	(void)settle_events(s);
	EXPECT_FALSE(s.rflags & rflags::rf);
}

/* One that an exception has overtaken: its handler's gate has cleared IF, without which VM entry takes none. */
TEST_F(Events, interrupt_waits_where_it_cannot_be_taken)
{
	queue_interrupt(s, 0x31);
	ASSERT_TRUE(s.inject(Vector::debug));
	expect_next(Delivery::exception, 0x80000301);
	end_delivery(s);
	s.rflags &= ~rflags::if_;
	expect_nothing();
	EXPECT_EQ(s.windows, primary::interrupt_window_exiting);
	queue_nmi(s);
	expect_next(Delivery::nmi, nmi);
	end_delivery(s);
	s.rflags |= rflags::if_;
	s.interruptibility = blocking_by_sti;
	expect_nothing();
	s.interruptibility = 0;
	expect_next(Delivery::interrupt, 0x80000031);
	EXPECT_EQ(s.windows, 0u);
}

TEST_F(Events, fault_in_the_delivery_of_a_software_interrupt)
{
	deliver_again(s, vectoring(0x80000480, 2));
	ASSERT_TRUE(s.inject(Vector::alignment_check, 0));
	expect_next(Delivery::exception, 0x80000b11);
	end_delivery(s);
	expect_nothing();
	/* One from outside waits. */
	deliver_again(s, vectoring(0x80000031));
	ASSERT_TRUE(s.inject(Vector::alignment_check, 0));
	end_delivery(s);
	expect_next(Delivery::exception, 0x80000b11);
	end_delivery(s);
	expect_next(Delivery::interrupt, 0x80000031);
}

TEST_F(Events, entry_that_fails_takes_nothing)
{
	queue_interrupt(s, 0x31);
	expect_next(Delivery::interrupt, 0x80000031);
	s.delivering = Delivery::none;
	expect_next(Delivery::interrupt, 0x80000031);
}

TEST_F(Events, error_codes_in_real_mode_and_too_wide_ones)
{
	s.has_event = true;
	s.event = {.info = {0x80000b0d}, .error_code = 0x12345678, .instruction_length = 0};
	EXPECT_EQ(settle_events(s).error_code, 0x5678u);
	s.cr0 = 0;
	EXPECT_EQ(settle_events(s).info.raw, 0x8000030du);
}

TEST_F(Events, nmis_at_most_two)
{
	for (int i = 0; i < 300; i++)
		queue_nmi(s);
	EXPECT_TRUE(needs_window_state(s));
	expect_next(Delivery::nmi, nmi);
	EXPECT_EQ(s.windows, primary::nmi_window_exiting);
	EXPECT_TRUE(s.dirty.has(Group::controls));
	end_delivery(s);
	/* Its handler runs: one more has a place. */
	s.interruptibility = blocking_by_nmi;
	queue_nmi(s);
	expect_nothing();
	EXPECT_EQ(s.nmi.pending, 1);
	s.interruptibility = 0;
	expect_next(Delivery::nmi, nmi);
	EXPECT_EQ(s.windows, 0u);
	end_delivery(s);
	expect_nothing();
}

TEST_F(Events, nmi_waits)
{
	queue_nmi(s);
	s.interruptibility = blocking_by_mov_ss;
	expect_nothing();
	EXPECT_EQ(s.windows, primary::nmi_window_exiting);
	s.interruptibility = blocking_by_sti;
	expect_nothing();
	EXPECT_EQ(s.windows, primary::interrupt_window_exiting);
	s.interruptibility = 0;
	s.debug.control = GuestDebug::enable | GuestDebug::block_irq;
	expect_nothing();
	EXPECT_EQ(s.windows, 0u);
	s.debug.control = 0;
	queue_interrupt(s, 0x31);
	expect_next(Delivery::interrupt, 0x80000031);
	EXPECT_EQ(s.windows, primary::nmi_window_exiting);
}

TEST_F(Events, window_is_switched_when_it_changes_only)
{
	s.window_wanted = true;
	expect_nothing();
	EXPECT_EQ(s.windows, primary::interrupt_window_exiting);
	EXPECT_TRUE(s.dirty.has(Group::controls));
	s.dirty = {};
	expect_nothing();
	EXPECT_TRUE(s.dirty.empty());
	s.window_wanted = false;
	expect_nothing();
	EXPECT_EQ(s.windows, 0u);
	EXPECT_TRUE(s.dirty.has(Group::controls));
}

TEST_F(Events, ready_for_an_interrupt)
{
	s.rflags = rflags::fixed;
	EXPECT_FALSE(ready_for_interrupt(s));
	s.rflags |= rflags::if_;
	EXPECT_TRUE(ready_for_interrupt(s));
	for (u32 blocking : {blocking_by_sti, blocking_by_mov_ss}) {
		s.interruptibility = blocking;
		EXPECT_FALSE(ready_for_interrupt(s));
	}
	s.interruptibility = blocking_by_nmi;
	EXPECT_TRUE(ready_for_interrupt(s));
	s.has_event = true;
	EXPECT_FALSE(ready_for_interrupt(s));
	s.has_event = false;
	s.nmi.injected = true;
	EXPECT_FALSE(ready_for_interrupt(s));
	s.nmi = {.injected = false, .queued = 0, .pending = 1};
	EXPECT_TRUE(ready_for_interrupt(s));
	queue_interrupt(s, 0x31);
	EXPECT_FALSE(ready_for_interrupt(s));
}

TEST_F(Events, interrupted_in_its_delivery)
{
	deliver_again(s, vectoring(0x80000031));
	expect_next(Delivery::interrupt, 0x80000031);
	end_delivery(s);

	/* INT n with its length. */
	deliver_again(s, vectoring(0x80000480, 2));
	Event event = settle_events(s);
	EXPECT_EQ(event.info.raw, 0x80000480u);
	EXPECT_EQ(event.instruction_length, 2u);
	end_delivery(s);

	/* VM entry delivers no NMI while they are blocked. */
	s.interruptibility = blocking_by_nmi;
	Exit exit = vectoring(nmi);
	EXPECT_TRUE(exit_state(exit).has(Group::interruptibility));
	deliver_again(s, exit);
	EXPECT_EQ(s.interruptibility, 0u);
	EXPECT_TRUE(s.dirty.has(Group::interruptibility));
	expect_next(Delivery::nmi, nmi);
}

TEST_F(Events, software_interrupt_does_not_displace_one_that_waits)
{
	queue_interrupt(s, 0x31);
	deliver_again(s, vectoring(0x80000480, 2));
	expect_next(Delivery::interrupt, 0x80000031);
}

TEST_F(Events, iret_that_exits_after_unblocking_nmis)
{
	Exit exit = exit_of(ExitReason::ept_violation, 1 << 12);
	EXPECT_TRUE(exit_state(exit).has(Group::interruptibility));
	deliver_again(s, exit);
	EXPECT_EQ(s.interruptibility, blocking_by_nmi);

	s.interruptibility = 0;
	exit = exit_of(ExitReason::exception_or_nmi);
	exit.interruption = {0x80001b11};
	deliver_again(s, exit);
	EXPECT_EQ(s.interruptibility, blocking_by_nmi);

	/* Where the bit means nothing. */
	s.interruptibility = 0;
	exit.interruption = {0x80001b08};
	deliver_again(s, exit);
	exit = vectoring(0x80000031);
	exit.qualification = 1 << 12;
	deliver_again(s, exit);
	EXPECT_EQ(s.interruptibility, 0u);
}

TEST_F(Events, shown_and_set)
{
	ASSERT_TRUE(s.inject(Vector::general_protection, 0x18));
	queue_interrupt(s, 0x31);
	queue_nmi(s);
	s.interruptibility = blocking_by_mov_ss | blocking_by_nmi;
	kvm_vcpu_events k = get();
	EXPECT_TRUE(k.exception.injected);
	EXPECT_TRUE(k.exception.pending);
	EXPECT_EQ(k.exception.nr, 13);
	EXPECT_TRUE(k.exception.has_error_code);
	EXPECT_EQ(k.exception.error_code, 0x18u);
	EXPECT_TRUE(k.interrupt.injected);
	EXPECT_EQ(k.interrupt.nr, 0x31);
	EXPECT_EQ(k.interrupt.shadow, KVM_X86_SHADOW_INT_MOV_SS);
	EXPECT_TRUE(k.nmi.pending);
	EXPECT_TRUE(k.nmi.masked);
	EXPECT_FALSE(k.nmi.injected);

	s.reset(0, 0);
	protected_mode();
	ASSERT_TRUE(set_vcpu_events(s, k));
	EXPECT_TRUE(s.has_event);
	EXPECT_TRUE(s.event.again);
	EXPECT_EQ(s.event.info.raw, 0x80000b0du);
	EXPECT_EQ(s.event.error_code, 0x18u);
	EXPECT_TRUE(s.interrupt.queued);
	EXPECT_EQ(s.nmi.pending, 1);
	EXPECT_EQ(s.interruptibility, blocking_by_mov_ss | blocking_by_nmi);
	EXPECT_TRUE(s.dirty.has(Group::interruptibility));

	/* What no flag names stays; what is not said is not there. */
	k = {};
	ASSERT_TRUE(set_vcpu_events(s, k));
	EXPECT_FALSE(s.has_event || s.interrupt.queued || s.nmi.injected);
	EXPECT_EQ(s.nmi.pending, 1);
	EXPECT_EQ(s.interruptibility, blocking_by_mov_ss);
}

TEST_F(Events, software_exceptions_are_raised_anew)
{
	s.has_event = true;
	s.event = {.info = {0x80000603}, .error_code = 0, .instruction_length = 1};
	EXPECT_FALSE(get().exception.injected);
	EXPECT_FALSE(get().exception.pending);
	s.soft_length = 1;
	kvm_vcpu_events k{};
	k.exception.injected = 1;
	k.exception.nr = 3;
	ASSERT_TRUE(set_vcpu_events(s, k));
	EXPECT_EQ(s.event.info.raw, 0x80000603u);
	EXPECT_EQ(s.event.instruction_length, 1u);
}

TEST_F(Events, refused_and_nothing_changed)
{
	expect_refused([](kvm_vcpu_events &k) { k.flags |= 0x100; });
	expect_refused([](kvm_vcpu_events &k) { k.flags |= KVM_VCPUEVENT_VALID_PAYLOAD; });
	expect_refused([](kvm_vcpu_events &k) { k.flags |= 0x20; }); /* a triple fault */
	expect_refused([](kvm_vcpu_events &k) { k.exception.injected = 1, k.exception.nr = 32; });
	expect_refused([](kvm_vcpu_events &k) { k.exception.injected = 1, k.exception.nr = 2; });
	expect_refused([](kvm_vcpu_events &k) { k.smi.smm = 1; });
	expect_refused([](kvm_vcpu_events &k) { k.smi.pending = 1; });
}
