// SPDX-License-Identifier: GPL-2.0
#include "ept_walk.hpp"
#include "fixture.hpp"

#include "arch/x86/ept.hpp"
#include "arch/x86/vmx_cpu.hpp"
#include "arch/x86/x86.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class EptTest : public MachineTest
{
protected:
	EptTest() { EXPECT_TRUE(ept.create()); }

	void map(u64 guest, u64 host, bool writable = true)
	{
		ASSERT_TRUE(pages.fill());
		ept.map({guest}, {host}, writable, pages);
	}
	u64 walk(u64 guest) const { return ept_entry(ept.pointer(), guest); }

	Ept ept;
	Ept::TablePages pages;
};

} // namespace

TEST_F(EptTest, pointer_says_4_levels_and_write_back)
{
	EXPECT_EQ(ept.pointer() & 0xfff, 0x1eu);
	EXPECT_NE(ept.pointer() >> 12, 0u);
}

TEST_F(EptTest, entries_are_as_the_manual_has_them)
{
	map(0x1000, 0x123456789000);
	EXPECT_EQ(walk(0x1000), 0x123456789000u | 6 << 3 | 7);
	map(0x2000, 0x5000, false);
	EXPECT_EQ(walk(0x2000), 0x5000u | 6 << 3 | 5) << "read-only, executable";
	EXPECT_EQ(walk(0x3000), 0u);
}

TEST_F(EptTest, entry_is_replaced)
{
	map(0x1000, 0x5000, false);
	map(0x1000, 0x6000);
	EXPECT_EQ(walk(0x1000), 0x6000u | 6 << 3 | 7);
}

TEST_F(EptTest, table_pages_are_taken_only_where_needed)
{
	int before = live_allocations();

	map(0, 0x5000);
	EXPECT_EQ(live_allocations() - before, 3) << "three levels";
	map(0x1000, 0x6000); /* same table: the three that fill() got are still there */
	EXPECT_EQ(live_allocations() - before, 6);
	map(0x200000, 0x7000); /* one more table */
	map(0x201000, 0x7000);
	EXPECT_EQ(live_allocations() - before, 7);
	EXPECT_EQ(walk(0), 0x5000u | 6 << 3 | 7);
	EXPECT_EQ(walk(0x200000), 0x7000u | 6 << 3 | 7);
}

TEST_F(EptTest, far_apart)
{
	const u64 places[] = {0,          0x1ff000,     0x200000,     0x3ffff000,
			      0x40000000, 0x7ffffff000, 0x8000000000, 0xfffffffff000};

	for (u64 place : places)
		map(place, place + 0x1000000);
	for (u64 place : places)
		EXPECT_EQ(walk(place), (place + 0x1000000) | 6 << 3 | 7) << std::hex << place;
	for (u64 place : places) {
		EXPECT_TRUE(ept.unmap(place >> 12, place >> 12));
		EXPECT_EQ(walk(place), 0u);
	}
}

TEST_F(EptTest, unmap_ranges)
{
	for (u64 frame = 0x1f8; frame < 0x208; frame++)
		map(frame << 12, frame << 12);
	EXPECT_FALSE(ept.unmap(0, 0x1f7));
	EXPECT_FALSE(ept.unmap(0x208, ~u64{0} >> 12));
	EXPECT_TRUE(ept.unmap(0x1fe, 0x201)); /* over the border of a table */
	for (u64 frame = 0x1f8; frame < 0x208; frame++)
		EXPECT_EQ(walk(frame << 12) != 0, frame < 0x1fe || frame > 0x201) << frame;
	EXPECT_FALSE(ept.unmap(0x1fe, 0x201)) << "a second time there is nothing";
	EXPECT_TRUE(ept.unmap(0, ~u64{0} >> 12));
	EXPECT_FALSE(ept.unmap(0, ~u64{0} >> 12));
}

TEST_F(EptTest, remapping_after_unmapping)
{
	map(0x1000, 0x5000);
	ept.unmap(1, 1);
	map(0x1000, 0x6000);
	EXPECT_EQ(walk(0x1000), 0x6000u | 6 << 3 | 7);
}

TEST_F(EptTest, out_of_memory)
{
	for (unsigned n = 0; n < 3; n++) {
		Ept::TablePages some;
		fail_allocation_after(n);
		Result<> r = some.fill();
		ASSERT_FALSE(r);
		EXPECT_EQ(r.error(), Errno::nomem);
		EXPECT_TRUE(some.fill()) << "what is there is kept";
	}
	for (unsigned n = 0; n < 2; n++) {
		Ept other;
		fail_allocation_after(n);
		EXPECT_FALSE(other.create());
	}
}

TEST_F(EptTest, flush_reaches_the_cpus_that_joined)
{
	VmxConfig config;
	Refusal refusal;
	ASSERT_TRUE(vmx_configure(VmxRegisters::read(), config, refusal));
	ASSERT_TRUE(VmxCpu::create_all(config, true));
	for (int cpu : {0, 1, 3}) {
		migrate_to(cpu);
		IrqOff irq;
		ASSERT_TRUE(VmxCpu::here(irq).enable(irq, refusal));
	}
	for (int cpu : {1, 3}) {
		migrate_to(cpu);
		IrqOff irq;
		(void)take_invalidations();
		ept.join(irq);
		EXPECT_EQ(take_invalidations(),
			  (std::vector<Invalidation>{
				  {cpu, false, insn::Invalidate::single_context, ept.pointer()}}));
	}
	migrate_to(0);
	ept.flush();
	EXPECT_EQ(take_invalidations(),
		  (std::vector<Invalidation>{
			  {1, false, insn::Invalidate::single_context, ept.pointer()},
			  {3, false, insn::Invalidate::single_context, ept.pointer()}}));
	/* Outside VMX operation there is nothing to flush, and no instruction to do it with. */
	interrupt(3, [&] {
		IrqOff irq;
		VmxCpu::here(irq).disable(irq);
	});
	ept.flush();
	EXPECT_EQ(take_invalidations().size(), 1u);
	for (int cpu : {0, 1}) {
		interrupt(cpu, [&] {
			IrqOff irq;
			VmxCpu::here(irq).disable(irq);
		});
	}
	VmxCpu::destroy_all();
}
