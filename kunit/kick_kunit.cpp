// SPDX-License-Identifier: GPL-2.0
/*
 * Who is interrupted for what a vCPU is asked. The guest here is a thread of the kernel with interrupts
 * off, as one that runs a guest is: an IPI to it comes when it lets interrupts in.
 */
#include "virt/kick.cpp"

#include "expect.hpp"
#include "virt/vcpu_table.hpp"

using namespace kvmpp;

namespace
{

/* A table with two vCPUs. */
struct Fixture {
	explicit Fixture(struct kunit *test) : table(Owned<VcpuTable>::create())
	{
		for (u32 id = 0; id < 2; id++)
			entries[id] = Owned<VcpuEntry>::create(id);
		made = table && entries[0] && entries[1] && cpus.create();
		if (!made) {
			test_failed(test, __FILE__, __LINE__, "memory");
			return;
		}
		table->init();
		Locked locked(table->lock);
		for (auto &entry : entries)
			table->add(*entry);
	}
	void ask() { table->ask_all(Request::flush_ept, cpus); }

	Owned<VcpuTable> table;
	Owned<VcpuEntry> entries[2];
	CpuMask cpus;
	bool made = false;
};

/* Whether it was asked, at an entry that is left at once. */
bool was_asked(VcpuEntry &entry)
{
	IrqOff irq;
	bool asked = entry.kick.enter(irq).has(Request::flush_ept);

	entry.kick.leave(irq);
	return asked;
}

TEST_CASE(one_outside_is_not_interrupted)
{
	Fixture f(test);

	ASSERT(f.made);
	EXPECT(f.entries[0]->kick.where().is_nowhere());
	EXPECT(!was_asked(*f.entries[0]));
	f.ask();
	EXPECT(was_asked(*f.entries[0]));
	EXPECT(was_asked(*f.entries[1]));
	EXPECT(!was_asked(*f.entries[0]));
}

TEST_CASE(one_inside_is_interrupted_where_it_is)
{
	Fixture f(test);

	ASSERT(f.made);
	PreemptOff preempt;
	{
		IrqOff irq;
		EXPECT(!f.entries[1]->kick.enter(irq).has(Request::flush_ept));
	}
	EXPECT(f.entries[1]->kick.where().cpu() == preempt.cpu());
	EXPECT(f.entries[0]->kick.where().is_nowhere());
	/* The interrupt comes here, where interrupts are on; it is waited for. */
	f.ask();
	{
		IrqOff irq;
		f.entries[1]->kick.leave(irq);
	}
	EXPECT(was_asked(*f.entries[1]));
}

TEST_CASE(one_that_left_the_table)
{
	Fixture f(test);

	ASSERT(f.made);
	{
		Locked locked(f.table->lock);
		f.table->remove(*f.entries[0]);
	}
	f.ask();
	EXPECT(!was_asked(*f.entries[0]));
	EXPECT(was_asked(*f.entries[1]));
}

/* Another thread asks while this one goes in and out of the guest. */
TEST_CASE(none_is_lost)
{
	struct Shared {
		Fixture &f;
		/* How often it has begun to ask, and has been let go on. */
		std::atomic<u32> begun{0}, ended{0};
		std::atomic<bool> stop{false};
	};
	Fixture f(test);
	Shared shared{f};

	ASSERT(f.made);
	struct test_thread *thread = test_thread_start(
		[](void *argument) {
			auto &s = *static_cast<Shared *>(argument);

			for (u32 n = 1; !s.stop.load(std::memory_order_relaxed); n++) {
				s.begun.store(n, std::memory_order_relaxed);
				s.f.ask();
				s.ended.store(n, std::memory_order_release);
				test_relax();
			}
		},
		&shared);
	ASSERT(thread);
	while (shared.ended.load(std::memory_order_relaxed) == 0)
		test_relax();
	u32 seen = 0;
	for (unsigned round = 0; round < 1000; round++) {
		u32 ended = shared.ended.load(std::memory_order_acquire);

		if (was_asked(*f.entries[0]))
			seen = shared.begun.load(std::memory_order_relaxed);
		else if (ended > seen)
			test_failed_values(test, __FILE__, __LINE__, "seen == ended", seen, ended);
		test_relax();
	}
	shared.stop.store(true, std::memory_order_relaxed);
	test_thread_stop(thread);
}

} // namespace

DEFINE_TEST_SUITE(KICK_CASES)
