// SPDX-License-Identifier: GPL-2.0
/* The model's sense of locks and contexts: each rule of Documentation/locking.rst, broken on purpose. */
#include "vm_fixture.hpp"

#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/owned.hpp"

#include <linux_glue/dedicated.h>
#include <linux_glue/eventfd.h>
#include <linux_glue/guest.h>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class LockRules : public MachineTest
{
protected:
	LockRules()
	{
		usage.init(GLUE_LOCK_USAGE);
		vm.init(GLUE_LOCK_VM);
		vcpu.init(GLUE_LOCK_VCPU);
		slots.init(GLUE_LOCK_SLOTS);
		mmu.init(GLUE_LOCK_MMU);
		clock.init(GLUE_LOCK_CLOCK);
		dedicated.init(GLUE_LOCK_DEDICATED);
		irqchip.init(GLUE_LOCK_IRQCHIP);
		EXPECT_TRUE(srcu.init());
	}
	~LockRules() override { srcu.cleanup(); }

	/* What the model noted is one thing, and says @what. */
	static void expect_violation(const std::string &what)
	{
		std::vector<std::string> noted = take_violations();

		ASSERT_EQ(noted.size(), 1u) << "instead of: " << what;
		EXPECT_EQ(noted[0], what);
	}

	Mutex usage, vm, vcpu, slots;
	SpinLock mmu, clock, dedicated;
	IrqSpinLock irqchip;
	Srcu srcu;
};

class LockRulesOfTheModule : public ModuleTest
{
};

} // namespace

TEST_F(LockRules, order_that_is_kept)
{
	{
		Locked outermost(usage);
		CpusReadLock cpus;
		Locked inner(vm);
		Locked innermost(clock);
	}
	{
		Locked outer(vcpu);
		SrcuRead read(srcu);
		SrcuRead nested(srcu);
		Locked innermost(mmu);
	}
	{
		Locked outer(vcpu);
		Locked innermost(dedicated);
	}
	{
		Locked outer(slots);
		srcu.synchronize();
		Locked innermost(mmu);
	}
	return_to_user("a test");
}

TEST_F(LockRules, usage_lock_inside_cpus_read_lock)
{
	CpusReadLock cpus;
	Locked locked(usage);

	expect_violation("kvmpp_usage_lock taken inside cpus_read_lock");
}

TEST_F(LockRules, cpus_read_lock_inside_a_vms_lock)
{
	for (Mutex *mutex : {&vm, &vcpu, &slots}) {
		Locked locked(*mutex);
		{
			CpusReadLock cpus;
		}
		EXPECT_EQ(take_violations().size(), 1u);
	}
}

TEST_F(LockRules, vm_lock_inside_a_vcpus_mutex)
{
	Locked outer(vcpu);
	Locked inner(vm);

	expect_violation("kvmpp_vm_lock taken inside kvmpp_vcpu_mutex");
}

TEST_F(LockRules, vm_lock_inside_slots_lock)
{
	Locked outer(slots);
	Locked inner(vm);

	expect_violation("kvmpp_vm_lock taken inside kvmpp_slots_lock");
}

TEST_F(LockRules, slots_lock_inside_srcu)
{
	SrcuRead read(srcu);
	Locked locked(slots);

	expect_violation("kvmpp_slots_lock taken inside the SRCU read side");
}

TEST_F(LockRules, synchronize_srcu_inside_its_read_side)
{
	SrcuRead read(srcu);

	srcu.synchronize();
	expect_violation("synchronize_srcu() waits for its own caller");
}

TEST_F(LockRules, spin_lock_is_a_leaf)
{
	Locked outer(mmu);
	{
		Locked inner(clock);
	}
	expect_violation("kvmpp_clock_lock taken inside kvmpp_mmu_lock");
}

/* Irqchip::set_irq() may be called by who is told of a signal: it tells nobody, and holds nothing around it. */
TEST_F(LockRules, eventfd_signalled_by_who_is_told_of_one)
{
	struct Waiter : glue_eventfd_waiter {
		glue_eventfd *next;
	} waiter{};
	int fd = create_eventfd(), next = create_eventfd();

	ASSERT_EQ(glue_eventfd_get(fd, &waiter.eventfd), 0);
	ASSERT_EQ(glue_eventfd_get(next, &waiter.next), 0);
	waiter.signalled = [](glue_eventfd_waiter *told) {
		glue_eventfd_signal(static_cast<Waiter *>(told)->next);
	};
	ASSERT_EQ(glue_eventfd_wait(fd, &waiter), 0);
	signal_eventfd(fd);
	EXPECT_EQ(take_violations().back(), "an eventfd signalled by who is told of a signal");
	{
		Locked locked(irqchip);

		glue_eventfd_signal(waiter.next);
	}
	expect_violation("an eventfd's wait queue lock taken inside kvmpp_irqchip_lock");
	glue_eventfd_leave(&waiter);
	glue_eventfd_put(waiter.eventfd);
	glue_eventfd_put(waiter.next);
}

TEST_F(LockRules, same_lock_twice)
{
	vm.lock();
	vm.lock();
	EXPECT_EQ(take_violations().back(), "deadlock: a kvmpp_vm_lock is held already");
	vm.unlock();
	vm.unlock();
}

TEST_F(LockRules, lock_released_that_is_not_held)
{
	mmu.lock();
	mmu.unlock();
	glue_preempt_disable();
	mmu.unlock();
	expect_violation("kvmpp_mmu_lock released that is not held");
}

TEST_F(LockRules, lock_without_a_class)
{
	Mutex raw;

	raw.lock();
	EXPECT_EQ(take_violations().front(), "use of a lock before its initialisation");
	raw.unlock();
	(void)take_violations();
}

TEST_F(LockRules, spin_lock_with_irqs_off)
{
	IrqOff irq;
	Locked locked(mmu);

	expect_violation("a spin lock waited for with interrupts off");
}

TEST_F(LockRules, mmu_lock_in_interrupt)
{
	interrupt(1, [&] { Locked locked(mmu); });
	expect_violation("a spin lock waited for with interrupts off");
}

TEST_F(LockRules, sleeps_in_atomic_context)
{
	auto nothing_sleeps = [&](const char *where) {
		SCOPED_TRACE(where);
		(void)Page::create();
		expect_violation("allocation may sleep, with interrupts or preemption off");
		srcu.synchronize();
		expect_violation("synchronize_srcu() may sleep, with interrupts or preemption off");
		glue_wait_a_tick();
		expect_violation("schedule_timeout() may sleep, with interrupts or preemption off");
	};

	{
		IrqOff irq;
		nothing_sleeps("interrupts off");
		vm.lock();
		expect_violation("a mutex may sleep, with interrupts or preemption off");
		vm.unlock();
	}
	{
		PreemptOff preempt;
		nothing_sleeps("preemption off");
	}
	Locked locked(mmu);
	nothing_sleeps("a spin lock");
}

TEST_F(LockRules, ipi_waited_for_with_irqs_off)
{
	auto nothing = [](void *) {};
	glue_cpumask *mask = glue_cpumask_alloc();

	{
		IrqOff irq;
		EXPECT_EQ(glue_call_on_cpu(1, nothing, nullptr), 0);
		expect_violation("waits for an IPI with interrupts off");
		glue_call_on_all_cpus(nothing, nullptr);
		expect_violation("waits for an IPI with interrupts off");
		glue_call_on_cpumask(mask, nothing, nullptr);
		expect_violation("waits for an IPI with interrupts off");
	}
	glue_cpumask_free(mask);
}

TEST_F(LockRules, thread_that_moves_with_preemption_off)
{
	PreemptOff preempt;

	migrate_to(1);
	expect_violation("migration with interrupts or preemption off");
}

TEST_F(LockRules, lock_held_at_return_to_user_space)
{
	{
		Locked locked(vcpu);
		return_to_user("an ioctl");
		expect_violation("return to user space from an ioctl with kvmpp_vcpu_mutex held");
	}
	{
		SrcuRead read(srcu);
		return_to_user("an ioctl");
		expect_violation("return to user space from an ioctl with the SRCU read side held");
	}
	PreemptOff preempt;
	return_to_user("an ioctl");
	expect_violation("return to user space from an ioctl with interrupts or preemption off");
}

/* The module's own locks are under the same eyes. */
TEST_F(LockRulesOfTheModule, vm_made_inside_cpus_read_lock)
{
	int vm;

	{
		CpusReadLock cpus;
		vm = static_cast<int>(kvmpp_device_ioctl(KVM_CREATE_VM, 0));
	}
	/* Of its usage lock, and of the cpus_read_lock inside that. */
	EXPECT_EQ(take_violations().size(), 2u);
	close_fd(vm);
}

/* A CPU that comes or goes does so on a thread of its own, which holds what it holds. */
TEST_F(LockRulesOfTheModule, cpu_goes_while_a_lock_is_held)
{
	Mutex vcpu;

	vcpu.init(GLUE_LOCK_VCPU);
	Locked locked(vcpu);
	take_offline(3);
	EXPECT_EQ(bring_online(3), 0);
	EXPECT_TRUE(any_lock_held());
}

TEST_F(LockRulesOfTheModule, cpu_moved_with_a_lock_held)
{
	Mutex vcpu;

	vcpu.init(GLUE_LOCK_VCPU);
	Locked locked(vcpu);
	EXPECT_EQ(glue_cpu_remove(1), 0);
	EXPECT_EQ(take_violations(), std::vector<std::string>{"remove_cpu() with a lock held"});
	EXPECT_EQ(glue_cpu_add(1), 0);
	EXPECT_EQ(take_violations(), std::vector<std::string>{"add_cpu() with a lock held"});
}

TEST_F(LockRules, dedicated_lock_is_a_leaf)
{
	Locked locked(mmu);
	add_preempt_off(-1);
	Locked inner(dedicated);
	add_preempt_off(1);

	expect_violation("kvmpp_dedicated_lock taken inside kvmpp_mmu_lock");
}
