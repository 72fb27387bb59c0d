// SPDX-License-Identifier: GPL-2.0
/* How others reach a vCPU: what it is asked, and who is interrupted for it. */
#include "fixture.hpp"

#include "virt/mmu.hpp"
#include "virt/vcpu_table.hpp"

#include <memory>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class Kick : public MachineTest
{
protected:
	static constexpr u32 vcpus = 3;

	Kick()
	{
		table->init();
		EXPECT_TRUE(cpus.create());
		Locked locked(table->lock);
		for (u32 id = 0; id < vcpus; id++) {
			entries[id] = Owned<VcpuEntry>::create(2 * id);
			table->add(*entries[id]);
		}
	}
	~Kick() override
	{
		cpus.~CpuMask();
		new (&cpus) CpuMask;
	}
	Requests enter(u32 i)
	{
		IrqOff irq;
		return entries[i]->kick.enter(irq);
	}
	void leave(u32 i)
	{
		IrqOff irq;
		entries[i]->kick.leave(irq);
	}
	void ask() { table->ask_all(Request::flush_ept, cpus); }

	std::unique_ptr<VcpuTable> table = std::make_unique<VcpuTable>();
	Owned<VcpuEntry> entries[vcpus];
	CpuMask cpus;
};

} // namespace

TEST_F(Kick, one_outside_sees_it_at_its_entry)
{
	ask();
	EXPECT_EQ(ipis_sent(), 0u);
	for (u32 i = 0; i < vcpus; i++) {
		EXPECT_TRUE(enter(i).has(Request::flush_ept));
		leave(i);
		EXPECT_FALSE(enter(i).has(Request::flush_ept)) << "once is enough";
		leave(i);
	}
}

TEST_F(Kick, one_inside_is_interrupted_where_it_is)
{
	migrate_to(2);
	EXPECT_FALSE(enter(1).has(Request::flush_ept));
	EXPECT_EQ(entries[1]->kick.where().cpu(), CpuId{2});
	migrate_to(0);
	ask();
	EXPECT_EQ(ipis_sent(), 1u) << "CPU 2 only";
	migrate_to(2);
	leave(1);
	EXPECT_TRUE(entries[1]->kick.where().is_nowhere());
	EXPECT_TRUE(enter(1).has(Request::flush_ept));
	leave(1);
}

TEST_F(Kick, what_is_withdrawn_need_not_be_seen)
{
	entries[0]->kick.ask(Request::interrupt);
	entries[0]->kick.ask(Request::come_out);
	entries[0]->kick.withdraw(Request::interrupt);
	Requests asked = enter(0);
	EXPECT_FALSE(asked.has(Request::interrupt));
	EXPECT_TRUE(asked.has(Request::come_out));
	leave(0);
}

TEST_F(Kick, one_that_is_gone_is_not_asked)
{
	{
		Locked locked(table->lock);
		table->remove(*entries[0]);
	}
	ask();
	EXPECT_FALSE(enter(0).has(Request::flush_ept));
	leave(0);
}

TEST_F(Kick, page_that_goes_is_flushed)
{
	Mmu mmu(*table);
	Memslot slot{
		.id = 1, .invalid = false, .first_frame = 0, .frames = 4, .user = {0x7f0000000000}};
	auto slots = MemslotTable().with_change(1, &slot);

	Ept::TablePages pages;

	ASSERT_TRUE(mmu.create(level_4k, false, true));
	add_user_memory(slot.user.value, 4 * page_size);
	ASSERT_TRUE(mmu.fault(*slots, {0x1000}, {.write = true}, pages));
	mmu.unmap(2, 3);
	EXPECT_FALSE(enter(0).has(Request::flush_ept)) << "nothing was mapped there";
	leave(0);
	mmu.unmap(0, 3);
	EXPECT_TRUE(enter(0).has(Request::flush_ept));
	leave(0);
	remove_user_memory(slot.user.value);
}
