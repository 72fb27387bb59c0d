// SPDX-License-Identifier: GPL-2.0
#include "guest.hpp"

#include "arch/x86/events.hpp"
#include "arch/x86/sregs.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class Sregs : public GuestTest
{
protected:
	kvm_sregs get()
	{
		kvm_sregs k;

		get_sregs(s, k);
		return k;
	}
	bool set(const kvm_sregs &k)
	{
		Result<> r = set_sregs(s, k, memory);

		EXPECT_TRUE(r || r.error() == Errno::inval);
		return static_cast<bool>(r);
	}
};

bool same(const kvm_sregs &a, const kvm_sregs &b)
{
	return std::memcmp(&a, &b, sizeof(a)) == 0;
}

} // namespace

TEST_F(Sregs, general_registers_round_trip)
{
	kvm_regs in, out;
	u64 *words = reinterpret_cast<u64 *>(&in);

	for (u64 i = 0; i < sizeof(in) / 8; i++)
		words[i] = 0x1111111111111111 * (i % 15 + 1) ^ i;
	in.rflags = 0x246;
	set_regs(s, in);
	get_regs(s, out);
	EXPECT_EQ(std::memcmp(&in, &out, sizeof(in)), 0);
	EXPECT_EQ(s.gpr[rcx], in.rcx);
	EXPECT_EQ(s.gpr[rsp], in.rsp);
	EXPECT_EQ(s.gpr[rdi], in.rdi);
	EXPECT_TRUE((regs_groups - s.dirty).empty());
}

TEST_F(Sregs, rflags_keeps_its_fixed_bit)
{
	kvm_regs k{};

	set_regs(s, k);
	EXPECT_EQ(s.rflags, 2u);
}

TEST_F(Sregs, setting_registers_drops_an_exception_but_no_interrupt)
{
	kvm_regs k{};

	protected_mode();
	ASSERT_TRUE(s.inject(Vector::general_protection, 0));
	set_regs(s, k);
	EXPECT_FALSE(s.has_event);
	queue_interrupt(s, 0x20);
	set_regs(s, k);
	EXPECT_TRUE(s.interrupt.queued);
}

TEST_F(Sregs, round_trip_in_each_mode)
{
	s.reset(0, 0);
	kvm_sregs after_reset = get();
	EXPECT_TRUE(set(after_reset));
	EXPECT_TRUE(same(get(), after_reset));

	protected_mode();
	kvm_sregs protected32 = get();
	EXPECT_TRUE(set(protected32));
	EXPECT_TRUE(same(get(), protected32));

	long_mode();
	s.gdtr = {0xffff800000001000, 0x7f};
	s.idtr = {0xffff800000002000, 0xfff};
	s.cr2 = 0x1234;
	s.cr8 = 5;
	s.seg(Seg::gs).base = 0xffff888000000000;
	s.seg(Seg::fs).access_rights = Segment::unusable | 0x93;
	kvm_sregs long64 = get();
	EXPECT_EQ(long64.cs.l, 1);
	EXPECT_EQ(long64.cs.db, 0);
	EXPECT_EQ(long64.efer, efer::lme | efer::lma | efer::nx | efer::sce);
	s.reset(0, 0);
	EXPECT_TRUE(set(long64));
	EXPECT_TRUE(same(get(), long64));
	EXPECT_TRUE((sregs_groups - s.dirty - Group::pdpte).empty());
	EXPECT_TRUE(s.flush_tlb);
	EXPECT_TRUE(s.cpu_registers_dirty);
}

TEST_F(Sregs, segment_bits)
{
	kvm_sregs k = get();

	k.ds = {.base = 0x1234,
		.limit = 0xfffff,
		.selector = 0x2b,
		.type = 3,
		.present = 1,
		.dpl = 3,
		.db = 1,
		.s = 1,
		.l = 0,
		.g = 1,
		.avl = 1,
		.unusable = 0,
		.padding = 0};
	ASSERT_TRUE(set(k));
	EXPECT_EQ(s.seg(Seg::ds).access_rights, 0xd0f3u);
	EXPECT_EQ(s.seg(Seg::ds).base, 0x1234u);
	EXPECT_EQ(s.seg(Seg::ds).limit, 0xfffffu);
	EXPECT_EQ(s.seg(Seg::ds).selector, 0x2b);
	/* Not present is not usable. */
	k.es.present = 0;
	k.fs.unusable = 1;
	ASSERT_TRUE(set(k));
	EXPECT_TRUE(s.seg(Seg::es).access_rights & Segment::unusable);
	EXPECT_TRUE(s.seg(Seg::fs).access_rights & Segment::unusable);
	EXPECT_FALSE(get().es.present);
}

TEST_F(Sregs, usable_segments_become_accessed)
{
	kvm_sregs k = get();

	k.cs.type = 0xa;
	k.ds.type = 2;
	k.ldt.type = 2;
	ASSERT_TRUE(set(k));
	EXPECT_EQ(s.seg(Seg::cs).access_rights & 0xf, 0xbu);
	EXPECT_EQ(s.seg(Seg::ds).access_rights & 0xf, 3u);
	EXPECT_EQ(s.seg(Seg::ldtr).access_rights & 0xf, 2u) << "of an LDT it is part of the type";
}

TEST_F(Sregs, impossible_states_are_refused_and_change_nothing)
{
	long_mode();
	s.seg(Seg::ldtr).access_rights = 0x82;
	s.cr8 = 1;
	const kvm_sregs before = get();
	auto refused = [&](auto change) {
		kvm_sregs k = before;
		change(k);
		k.cr2 = 0x777;
		EXPECT_FALSE(set(k));
		EXPECT_TRUE(same(get(), before));
		EXPECT_TRUE(s.dirty.empty());
	};
	refused([](kvm_sregs &k) { k.cr4 = 0; });            /* PAE off */
	refused([](kvm_sregs &k) { k.efer = efer::lme; });   /* LMA off with paging */
	refused([](kvm_sregs &k) { k.efer = efer::lma; });   /* LMA without LME */
	refused([](kvm_sregs &k) { k.cr0 = cr0::pe; });      /* LMA without paging */
	refused([](kvm_sregs &k) { k.efer = 0; });           /* CS.L outside IA-32e mode */
	refused([](kvm_sregs &k) { k.cr3 = u64{1} << 39; }); /* beyond physical memory */
	refused([](kvm_sregs &k) { k.cr0 &= ~cr0::pe; });    /* PG without PE */
	refused([](kvm_sregs &k) { k.cr0 |= cr0::nw; });     /* NW without CD */
	refused([](kvm_sregs &k) { k.cr0 |= u64{1} << 32; });
	refused([](kvm_sregs &k) { k.cr4 |= cr4::vmxe; });
	refused([](kvm_sregs &k) { k.cr4 |= cr4::la57; });
	refused([](kvm_sregs &k) { k.cr8 = 16; });
	s.model.x2apic = false;
	refused([](kvm_sregs &k) { k.apic_base |= 1 << 10; }); /* x2APIC */
	refused([](kvm_sregs &k) { k.apic_base |= u64{1} << 39; });
}

TEST_F(Sregs, interrupt_bitmap_is_the_queued_interrupt)
{
	protected_mode();
	kvm_sregs k = get();
	k.interrupt_bitmap[1] = 4 | 1 << 8;
	k.interrupt_bitmap[3] = 1;
	ASSERT_TRUE(set(k));
	EXPECT_TRUE(s.interrupt.queued);
	EXPECT_EQ(s.interrupt.vector, 66) << "the lowest";
	k = get();
	EXPECT_EQ(k.interrupt_bitmap[1], 4u);
	k.interrupt_bitmap[1] = 0;
	ASSERT_TRUE(set(k));
	EXPECT_TRUE(s.interrupt.queued) << "none in it takes none away";
	s.interrupt.soft = true;
	EXPECT_EQ(get().interrupt_bitmap[1], 0u);
}

TEST_F(Sregs, pae_loads_the_pdptes)
{
	protected_mode();
	kvm_sregs k = get();

	k.cr0 |= cr0::pg;
	k.cr4 |= cr4::pae;
	k.cr3 = 0x3000;
	ram.put<u64>(0x3008, 0x5001);
	ASSERT_TRUE(set(k));
	EXPECT_EQ(s.pdpte[1], 0x5001u);
	EXPECT_TRUE(s.dirty.has(Group::pdpte));
	/* Nowhere: the VMCS's stay, and the ioctl succeeds as KVM's does. */
	clean();
	k.cr3 = device;
	EXPECT_TRUE(set(k));
	EXPECT_EQ(s.pdpte[1], 0x5001u);
	EXPECT_FALSE(s.dirty.has(Group::pdpte));
}
