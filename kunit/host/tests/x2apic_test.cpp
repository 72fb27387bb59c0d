// SPDX-License-Identifier: GPL-2.0
/* The local APIC of a guest with a CPU of its own: what exits, and what comes of it. */
#include "guest.hpp"

#include "arch/x86/cpuid.hpp"
#include "arch/x86/x2apic.hpp"

#include <memory>
#include <set>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

constexpr u64 x2apic_mode = 0xfee00000 | apic_base_bit::enabled | apic_base_bit::extended;

class X2apic : public GuestTest
{
protected:
	X2apic()
	{
		long_mode();
		s.apic_base = x2apic_mode;
		s.apic.owned = true;
		s.apic.map = map.get();
		s.apic.sending = &sending;
		identity.id = 0x21;
		processor(0).msrs[msr::apic_base] = x2apic_mode;
		for (u32 vcpu : {0x20u, 0x21u, 0x22u, 0x2fu, 0x31u}) {
			map->set_shared(vcpu);
			map->set_own(vcpu, apic_id(vcpu));
		}
	}
	static u32 apic_id(u32 vcpu) { return 0x100 + vcpu; }
	Next rdmsr(u32 index)
	{
		s.gpr[rcx] = index;
		return handle(exit_of(ExitReason::rdmsr));
	}
	Next wrmsr(u32 index, u64 value)
	{
		s.gpr[rcx] = index;
		s.gpr[rax] = static_cast<u32>(value);
		s.gpr[rdx] = value >> 32;
		return handle(exit_of(ExitReason::wrmsr));
	}
	u64 msr_read() const { return s.gpr[rdx] << 32 | s.gpr[rax]; }
	void expect_done(Next next)
	{
		EXPECT_EQ(next, Next::resume);
		EXPECT_FALSE(s.has_event);
		EXPECT_EQ(s.rip, 0x1002u);
		s.rip = 0x1000;
	}
	void expect_refused(Next next)
	{
		EXPECT_EQ(next, Next::resume);
		expect_general_protection();
		EXPECT_EQ(s.rip, 0x1000u);
		s.has_event = false;
	}
	void expect_user(Next next, u32 reason, u32 index, u64 value)
	{
		EXPECT_EQ(next, Next::user);
		EXPECT_EQ(s.user.reason, reason);
		EXPECT_EQ(s.user.msr.index, index);
		EXPECT_EQ(s.user.msr.data, value);
		EXPECT_EQ(s.rip, 0x1000u) << "done when user space has";
		EXPECT_EQ(take_ipis(), std::vector<Ipi>{});
	}
	/* Which vCPUs an ICR of that value is sent to. */
	std::vector<u32> targets(u64 icr)
	{
		std::vector<u32> vcpus;

		expect_done(wrmsr(x2apic::icr, icr));
		for (const Ipi &ipi : take_ipis()) {
			EXPECT_EQ(ipi.vector, icr & 0xff);
			vcpus.push_back(ipi.to - apic_id(0));
		}
		EXPECT_EQ(sending.load(), 0u);
		return vcpus;
	}
	/* What user space made of it, by the next KVM_RUN. */
	Next finish(u64 data, bool refused)
	{
		u8 bytes[8];

		s.pending.refused = refused;
		std::memcpy(bytes, &data, sizeof(bytes));
		return complete_access(s, memory, bytes);
	}

	std::unique_ptr<ApicMap> map = std::make_unique<ApicMap>();
	std::atomic<u32> sending{0};
};

using Targets = std::vector<u32>;
constexpr u64 logical = 1 << 11;

constexpr u64 to(u64 destination)
{
	return destination << 32;
}

} // namespace

TEST_F(X2apic, physical_destination)
{
	EXPECT_EQ(targets(to(0x22) | 0x40), Targets{0x22});
	EXPECT_EQ(targets(to(0x21) | 0x40), Targets{0x21}) << "itself";
	EXPECT_EQ(targets(to(0x23) | 0x40), Targets{}) << "there is none";
	EXPECT_EQ(targets(to(5000) | 0x40), Targets{}) << "beyond all ids";
	EXPECT_EQ(targets(to(~u32{0}) | 0x40), (Targets{0x20, 0x21, 0x22, 0x2f, 0x31}));
}

TEST_F(X2apic, logical_destination)
{
	EXPECT_EQ(targets(to(2 << 16 | 1 << 2) | logical | 0x40), Targets{0x22});
	EXPECT_EQ(targets(to(2 << 16 | 0x8003) | logical | 0x40), (Targets{0x20, 0x21, 0x2f}));
	EXPECT_EQ(targets(to(3 << 16 | 0xffff) | logical | 0x40), Targets{0x31});
	EXPECT_EQ(targets(to(0xffffu << 16 | 1) | logical | 0x40), Targets{});
	EXPECT_EQ(targets(to(~u32{0}) | logical | 0x40), (Targets{0x20, 0x21, 0x22, 0x2f, 0x31}));
}

TEST_F(X2apic, shorthands)
{
	EXPECT_EQ(targets(1 << 18 | 0x40), Targets{0x21});
	EXPECT_EQ(targets(2 << 18 | 0x40), (Targets{0x20, 0x21, 0x22, 0x2f, 0x31}));
	EXPECT_EQ(targets(3 << 18 | 0x40), (Targets{0x20, 0x22, 0x2f, 0x31}));
	EXPECT_EQ(targets(to(0x31) | 1 << 18 | 0x40), Targets{0x21})
		<< "the destination is not looked at";
}

TEST_F(X2apic, level_and_trigger_do_not_get_into_the_real_one)
{
	/* A level-triggered one would wait for an EOI that goes to the IOAPICs. */
	expect_done(wrmsr(x2apic::icr, to(0x22) | 1 << 15 | 1 << 14 | 0xfe));
	EXPECT_EQ(processor(0).msrs[x2apic::icr], to(apic_id(0x22)) | 0xfe);
	(void)take_ipis();
}

TEST_F(X2apic, what_is_no_fixed_interrupt_is_for_user_space)
{
	constexpr u64 modes[] = {1, 2, 3, 4, 5, 6, 7}; /* SMI, NMI, INIT, SIPI among them */

	for (u64 mode : modes)
		for (u64 value : {to(0x22), to(0x22) | logical, u64{1 << 18}, u64{2 << 18},
				  u64{3 << 18}, to(~u32{0})}) {
			value |= mode << 8 | 0x40;
			expect_user(wrmsr(x2apic::icr, value), KVM_EXIT_X86_WRMSR, x2apic::icr,
				    value);
		}
	for (u64 vector = 0; vector < 16; vector++)
		expect_user(wrmsr(x2apic::icr, to(0x22) | vector), KVM_EXIT_X86_WRMSR, x2apic::icr,
			    to(0x22) | vector);
}

TEST_F(X2apic, one_target_without_a_cpu_is_for_user_space)
{
	map->set_shared(0x2f);
	expect_user(wrmsr(x2apic::icr, 2 << 18 | 0x40), KVM_EXIT_X86_WRMSR, x2apic::icr,
		    2 << 18 | 0x40);
	EXPECT_EQ(sending.load(), 0u);
	EXPECT_EQ(targets(to(0x22) | 0x40), Targets{0x22}) << "others are reached";
	map->set_none(0x2f);
	EXPECT_EQ(targets(2 << 18 | 0x40), (Targets{0x20, 0x21, 0x22, 0x31}));
}

TEST_F(X2apic, reserved_bits_of_the_icr)
{
	for (unsigned bit : {12, 13, 16, 17, 20, 24, 31})
		expect_refused(wrmsr(x2apic::icr, to(0x22) | u64{1} << bit | 0x40));
	EXPECT_EQ(take_ipis(), std::vector<Ipi>{});
}

TEST_F(X2apic, ids_are_the_vcpus)
{
	processor(0).msrs[x2apic::id] = 7;
	expect_done(rdmsr(x2apic::id));
	EXPECT_EQ(msr_read(), 0x21u);
	expect_done(rdmsr(x2apic::ldr));
	EXPECT_EQ(msr_read(), 0x20002u);
	expect_refused(wrmsr(x2apic::id, 3));
	expect_refused(wrmsr(x2apic::ldr, 3));
}

TEST_F(X2apic, icr_reads_as_it_was_written)
{
	expect_done(wrmsr(x2apic::icr, to(0x22) | 0x4040));
	expect_done(rdmsr(x2apic::icr));
	EXPECT_EQ(msr_read(), to(0x22) | 0x4040);
	(void)take_ipis();
}

TEST_F(X2apic, entries_of_the_lvt_that_are_copies)
{
	for (u32 lvt : {x2apic::lvt_cmci, x2apic::lvt_thermal, x2apic::lvt_performance,
			x2apic::lvt_lint0, x2apic::lvt_lint1}) {
		expect_done(rdmsr(lvt));
		EXPECT_EQ(msr_read(), u64{LocalApic::masked});
		expect_done(wrmsr(lvt, 0x700)); /* ExtINT, not masked */
		expect_done(rdmsr(lvt));
		EXPECT_EQ(msr_read(), 0x700u);
		EXPECT_EQ(processor(0).msrs[lvt], 0u) << "the CPU's own is not touched";
		expect_refused(wrmsr(lvt, u64{1} << 32));
		expect_refused(wrmsr(lvt, 1 << 19));
	}
}

TEST_F(X2apic, what_else_is_there_raises_general_protection)
{
	/* Those that are passed through do not exit; of the rest there is nothing. */
	for (u32 index : {0x800u, 0x801u, 0x804u, 0x809u, 0x80eu, 0x831u, 0x83au, 0x840u, 0x8ffu}) {
		expect_refused(rdmsr(index));
		expect_refused(wrmsr(index, 0));
	}
}

TEST_F(X2apic, nothing_without_x2apic_mode)
{
	s.apic_base = 0xfee00000 | apic_base_bit::enabled;
	for (u32 index : {x2apic::id, x2apic::tpr, x2apic::icr, x2apic::self_ipi}) {
		expect_refused(rdmsr(index));
		expect_refused(wrmsr(index, 0));
	}
}

TEST_F(X2apic, without_the_cpus_own_it_is_user_spaces)
{
	s.apic.owned = false;
	expect_user(rdmsr(x2apic::tpr), KVM_EXIT_X86_RDMSR, x2apic::tpr, 0);
	expect_user(wrmsr(x2apic::icr, to(0x22) | 0x40), KVM_EXIT_X86_WRMSR, x2apic::icr,
		    to(0x22) | 0x40);
}

TEST_F(X2apic, user_space_finishes_it)
{
	s.apic.owned = false;
	EXPECT_EQ(rdmsr(x2apic::tpr), Next::user);
	s.gpr[rax] = s.gpr[rdx] = ~u64{0};
	EXPECT_EQ(finish(0x1234567890abcdef, false), Next::resume);
	EXPECT_EQ(s.gpr[rax], 0x90abcdefu);
	EXPECT_EQ(s.gpr[rdx], 0x12345678u);
	EXPECT_EQ(s.rip, 0x1002u);
	s.rip = 0x1000;
	s.gpr[rdx] = 0x55;
	EXPECT_EQ(wrmsr(x2apic::tpr, 0x20), Next::user);
	EXPECT_EQ(finish(0, false), Next::resume);
	EXPECT_EQ(s.gpr[rdx], 0u) << "a write leaves the registers alone";
	EXPECT_EQ(s.rip, 0x1002u);
	s.rip = 0x1000;
	for (bool write : {false, true}) {
		EXPECT_EQ(write ? wrmsr(x2apic::tpr, 0x20) : rdmsr(x2apic::tpr), Next::user);
		expect_refused(finish(0, true));
		EXPECT_EQ(s.pending.kind, PendingAccess::Kind::none);
	}
}

TEST_F(X2apic, user_space_has_moved_the_vcpu)
{
	s.apic.owned = false;
	EXPECT_EQ(rdmsr(x2apic::tpr), Next::user);
	s.rip = 0x5000;
	EXPECT_EQ(finish(1, false), Next::resume);
	EXPECT_EQ(s.rip, 0x5000u);
}

TEST_F(X2apic, bitmap_lets_through_what_is_the_guests_and_no_more)
{
	std::vector<u8> bitmap(page_size, 0xff);
	std::set<u32> read{0x803, 0x808, 0x80a, 0x80f, 0x828, 0x832, 0x837, 0x838, 0x839, 0x83e};
	std::set<u32> written{0x808, 0x80b, 0x80f, 0x828, 0x832, 0x837, 0x838, 0x83e, 0x83f};

	for (u32 msr = 0x810; msr < 0x828; msr++)
		read.insert(msr); /* ISR, TMR, IRR */
	allow_x2apic(bitmap.data());
	auto exits = [&](u32 at, u32 bit) { return (bitmap[at + bit / 8] >> (bit % 8)) & 1; };
	for (u32 msr = 0; msr < 0x2000; msr++) {
		EXPECT_EQ(!exits(0, msr), read.contains(msr)) << "RDMSR of " << std::hex << msr;
		EXPECT_EQ(!exits(0x800, msr), written.contains(msr))
			<< "WRMSR of " << std::hex << msr;
		EXPECT_TRUE(exits(0x400, msr)) << "RDMSR of " << std::hex << 0xc0000000 + msr;
		EXPECT_TRUE(exits(0xc00, msr)) << "WRMSR of " << std::hex << 0xc0000000 + msr;
	}
}

TEST_F(X2apic, one_bit_of_the_bitmap)
{
	for (u32 msr : {0u, 0x174u, 0x1fffu, 0xc0000000u, 0xc0001fffu})
		for (bool write : {false, true}) {
			std::vector<u8> bitmap(page_size, 0xff);
			allow_msr(bitmap.data(), msr, !write, write);
			u32 at = (write ? 0x800 : 0) + (msr >> 31 ? 0x400 : 0) + (msr & 0x1fff) / 8;
			EXPECT_EQ(bitmap[at], static_cast<u8>(~(1 << (msr & 7))));
			bitmap[at] = 0xff;
			EXPECT_EQ(bitmap, std::vector<u8>(page_size, 0xff));
		}
}

TEST_F(X2apic, transitions_of_the_apic_base)
{
	constexpr u64 base = 0xfee00000, off = base, x = base | apic_base_bit::enabled,
		      x2 = x2apic_mode, invalid = base | apic_base_bit::extended;
	struct {
		u64 from, to;
		bool offered, allowed;
	} table[] = {
		{off, x, true, true},      {x, off, true, true},       {x, x2, true, true},
		{x2, off, true, true},     {x2, x, true, false},       {x2, x2, true, true},
		{x, invalid, true, false}, {x2, invalid, true, false}, {off, invalid, true, false},
		{off, x2, true, false},    {x, x2, false, false},      {off, x, false, true},
		{x2, x2, false, false},    {x2, off, false, true},     {x2, x, false, false},
	};

	for (const auto &row : table) {
		s.apic_base = row.from;
		s.model.x2apic = row.offered;
		Next next = wrmsr(msr::apic_base, row.to);
		if (row.allowed)
			expect_done(next);
		else
			expect_refused(next);
		EXPECT_EQ(s.apic_base, row.allowed ? row.to : row.from)
			<< std::hex << row.from << " to " << row.to;
	}
	s.apic_base = x;
	for (u64 reserved : {u64{1}, u64{0x80}, u64{0x200}, u64{1} << 39, u64{1} << 63})
		expect_refused(wrmsr(msr::apic_base, x | reserved));
}

TEST_F(X2apic, what_the_cpus_held_comes_to_the_next)
{
	LocalApic::Registers r;

	r.svr = 0x1ff;
	r.tpr = 0x20;
	r.lvt_timer = 0x20040;
	r.lvt_error = 0x41;
	r.divide = 3;
	r.initial_count = 1000;
	r.irr[2] = 1 << 5; /* vector 0x45 */
	r.irr[7] = 1u << 31;
	load_x2apic(r);
	EXPECT_EQ(take_self_ipis(), (std::vector<u8>{0x45, 0xff}));
	auto &m = processor(0).msrs;
	m[x2apic::irr + 2] = 1 << 5;
	LocalApic::Registers back;
	save_x2apic(back);
	EXPECT_EQ(back.svr, 0x1ffu);
	EXPECT_EQ(back.tpr, 0x20u);
	EXPECT_EQ(back.lvt_timer, 0x20040u);
	EXPECT_EQ(back.lvt_error, 0x41u);
	EXPECT_EQ(back.divide, 3u);
	EXPECT_EQ(back.initial_count, 1000u);
	EXPECT_EQ(back.irr[2], 1u << 5);
	/* One that is disabled is so at the end, though it had to take what was in the IRR. */
	r.svr = 0xff;
	load_x2apic(r);
	EXPECT_EQ(m[x2apic::svr], 0xffu);
	EXPECT_EQ(take_self_ipis().size(), 2u);
}
