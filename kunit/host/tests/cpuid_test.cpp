// SPDX-License-Identifier: GPL-2.0
/* What is offered, and what becomes of what a VMM sets. */
#include "guest.hpp"

#include "arch/x86/x2apic.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

constexpr u32 bit(unsigned n)
{
	return u32{1} << n;
}

class Cpuid : public GuestTest
{
protected:
	insn::CpuidResult ask(u32 leaf, u32 subleaf = 0) { return cpuid.ask(s, leaf, subleaf); }
	/* As the host now is. */
	void offer()
	{
		cpuid = {};
		ASSERT_TRUE(supported_cpuid(cpuid, GuestCpuid::max_entries));
		s.model = cpuid.model();
	}
	static GuestCpuid table(std::initializer_list<CpuidEntry> entries)
	{
		GuestCpuid t;

		for (const CpuidEntry &e : entries)
			EXPECT_TRUE(t.add(e));
		return t;
	}
	static constexpr CpuidEntry intel{
		.function = 0, .eax = 0xd, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69};
};

bool is_nothing(const insn::CpuidResult &r)
{
	return (r.eax | r.ebx | r.ecx | r.edx) == 0;
}

} // namespace

TEST_F(Cpuid, features_that_need_more_than_vmx_are_not_offered)
{
	offer();
	insn::CpuidResult r = ask(1);

	for (unsigned hidden : {2u /* DTES64 */, 3u /* MONITOR */, 5u /* VMX */, 6u /* SMX */,
				15u /* PDCM */, 24u /* TSC deadline */})
		EXPECT_FALSE(r.ecx & bit(hidden)) << hidden;
	for (unsigned hidden : {21u /* DS */, 22u /* ACPI */, 28u /* HTT */, 29u /* TM */})
		EXPECT_FALSE(r.edx & bit(hidden)) << hidden;
	for (unsigned shown : {0u /* SSE3 */, 13u /* CX16 */, 17u /* PCID */, 21u /* x2APIC */,
			       26u /* XSAVE */, 28u /* AVX */, 31u})
		EXPECT_TRUE(r.ecx & bit(shown)) << shown;
	for (unsigned shown :
	     {0u /* FPU */, 4u /* TSC */, 5u /* MSR */, 6u /* PAE */, 7u /* MCE */, 9u /* APIC */,
	      12u /* MTRR */, 14u /* MCA */, 16u /* PAT */, 25u /* SSE */, 26u /* SSE2 */})
		EXPECT_TRUE(r.edx & bit(shown)) << shown;
	EXPECT_TRUE(ask(7).ebx & bit(cpuid_bit::ebx_tsc_adjust));
	EXPECT_EQ(ask(7).edx, bit(4) | bit(10)) << "no control of speculation";
}

TEST_F(Cpuid, without_xsave_there_is_no_avx)
{
	init_guest_features(0, true, true);
	offer();
	EXPECT_FALSE(ask(1).ecx & (bit(26) | bit(28) | bit(12) | bit(29)));
	EXPECT_FALSE(ask(7).ebx & bit(5));
	EXPECT_EQ(ask(0xd).eax | ask(0xd).ecx, 0u);
	EXPECT_EQ(s.model.xcr0, 0u);
	EXPECT_FALSE(s.model.cr4 & cr4::osxsave);
}

TEST_F(Cpuid, what_vmx_controls_allow)
{
	EXPECT_TRUE(s.model.invpcid && s.model.rdtscp && s.model.rdpid);
	init_guest_features(7, false, false);
	offer();
	EXPECT_FALSE(ask(7).ebx & bit(10)) << "INVPCID";
	EXPECT_FALSE(ask(0x80000001).edx & bit(27)) << "RDTSCP";
	EXPECT_FALSE(ask(7).ecx & bit(22)) << "RDPID reads IA32_TSC_AUX";
	EXPECT_FALSE(s.model.invpcid || s.model.rdtscp || s.model.rdpid);
}

TEST_F(Cpuid, leaves_in_kvms_order)
{
	u32 last = 0;

	offer();
	for (u32 i = 0; i < cpuid.count(); i++) {
		const CpuidEntry &e = cpuid.entry(i);
		bool indexed = e.function == 4 || e.function == 7 || e.function == 0xb ||
			       e.function == 0xd;
		EXPECT_TRUE(i == 0 || e.function == last + !e.index || e.function == 0x80000000 ||
			    e.function == 0x40000000)
			<< std::hex << e.function;
		EXPECT_EQ(e.flags, indexed ? CpuidEntry::has_index : 0) << std::hex << e.function;
		last = e.function;
	}
	EXPECT_EQ(ask(0).eax, 0xdu);
	EXPECT_EQ(ask(0x80000000).eax, 0x80000008u);
	EXPECT_EQ(ask(0x80000008).eax, 0x3027u);
	EXPECT_EQ(ask(6).eax, bit(2));
	for (u32 leaf : {3u, 5u, 8u, 9u, 0xau, 0xbu, 0x80000005u})
		EXPECT_TRUE(is_nothing(ask(leaf))) << leaf;
	EXPECT_EQ(ask(4).eax >> 14, 0u) << "caches of one core";
}

TEST_F(Cpuid, too_little_room)
{
	offer();
	u32 count = cpuid.count();

	for (u32 room = 0; room < count; room++) {
		GuestCpuid t;
		EXPECT_FALSE(supported_cpuid(t, room)) << room;
		EXPECT_LE(t.count(), room);
	}
	GuestCpuid t;
	EXPECT_TRUE(supported_cpuid(t, count));
}

TEST_F(Cpuid, kvms_leaves)
{
	insn::CpuidResult r = ask(0x40000000);

	EXPECT_EQ(r.eax, 0x40000001u);
	EXPECT_EQ(r.ebx, 0x4b4d564bu);
	EXPECT_EQ(r.ecx, 0x564b4d56u);
	EXPECT_EQ(r.edx, 0x4du);
	EXPECT_EQ(ask(0x40000001).eax, 0x100007bu) << "all that QEMU's models have";
	init_guest_features(7, true, true, false);
	offer();
	EXPECT_EQ(ask(0x40000001).eax, 0x100005bu) << "Linux does not count it";
}

TEST_F(Cpuid, no_more_address_bits_than_ept_maps)
{
	cpuid_table()[{0x80000008, 0}].eax = 0x3934;
	init_guest_features(7, true, true);
	offer();
	EXPECT_EQ(guest_features().physical_address_bits, 48u);
	EXPECT_EQ(ask(0x80000008).eax, 0x3930u);
	EXPECT_EQ(s.model.physical_address_bits, 48u);
}

TEST_F(Cpuid, there_is_none_until_it_is_set)
{
	protected_mode();
	cpuid = {};
	EXPECT_TRUE(is_nothing(ask(0)) && is_nothing(ask(1)));
	GuestModel m = cpuid.model();
	EXPECT_EQ(m.physical_address_bits, 36u);
	EXPECT_EQ(m.cr4 | m.xcr0, 0u);
	EXPECT_FALSE(m.long_mode || m.nx || m.rdtscp || m.x2apic || m.tsc_adjust || m.intel);
}

TEST_F(Cpuid, the_instruction_reads_the_table)
{
	protected_mode();
	s.gpr[rax] = 0xffffffff00000000;
	s.gpr[rcx] = 0;
	EXPECT_EQ(handle(exit_of(ExitReason::cpuid)), Next::resume);
	EXPECT_EQ(s.gpr[rbx], 0x756e6547u);
	EXPECT_EQ(s.rip, 0x1002u);
}

TEST_F(Cpuid, the_first_entry_that_fits)
{
	cpuid = table({intel,
		       {.function = 4, .index = 1, .flags = CpuidEntry::has_index, .eax = 41},
		       {.function = 4, .index = 0, .flags = CpuidEntry::has_index, .eax = 40},
		       {.function = 2, .index = 7, .eax = 20},
		       {.function = 2, .eax = 21}});
	EXPECT_EQ(ask(4, 0).eax, 40u);
	EXPECT_EQ(ask(4, 1).eax, 41u);
	EXPECT_TRUE(is_nothing(ask(4, 2)));
	EXPECT_EQ(ask(2, 0).eax, 20u) << "whose index says nothing";
	EXPECT_EQ(ask(2, 9).eax, 20u);
}

TEST_F(Cpuid, beyond_the_last_leaf_is_the_last_basic_one)
{
	EXPECT_EQ(ask(0x14).eax, ask(0xd).eax);
	EXPECT_EQ(ask(0x80000009).ecx, ask(0xd).ecx);
	EXPECT_EQ(ask(0x20000000, 2).eax, ask(0xd, 2).eax) << "with the subleaf asked for";
	EXPECT_EQ(ask(0x40000002).eax, ask(0xd).eax);
	EXPECT_EQ(ask(0x40000100).eax, ask(0xd).eax) << "a class that there is not";
	EXPECT_EQ(ask(0xc0000000).eax, ask(0xd).eax);
	EXPECT_TRUE(is_nothing(ask(0xd, 5))) << "in range";
	set_cpuid([](CpuidEntry &e) {
		if (e.function == 0)
			e.ebx = 0x68747541, e.edx = 0x69746e65, e.ecx = 0x444d4163;
	});
	EXPECT_TRUE(is_nothing(ask(0x14))) << "not so on AMD's";
	EXPECT_FALSE(s.model.intel);
}

TEST_F(Cpuid, topology_beyond_its_levels)
{
	cpuid = table({intel,
		       {.function = 0xb,
			.index = 0,
			.flags = 1,
			.eax = 1,
			.ebx = 2,
			.ecx = 0x100,
			.edx = 3},
		       {.function = 0xb,
			.index = 1,
			.flags = 1,
			.eax = 4,
			.ebx = 8,
			.ecx = 0x201,
			.edx = 3}});
	EXPECT_EQ(ask(0xb, 1).ebx, 8u);
	insn::CpuidResult r = ask(0xb, 0x105);
	EXPECT_EQ(r.eax | r.ebx, 0u);
	EXPECT_EQ(r.ecx, 5u);
	EXPECT_EQ(r.edx, 3u);
}

TEST_F(Cpuid, bits_that_mirror_registers)
{
	EXPECT_FALSE(ask(1).ecx & bit(27));
	s.cr4 |= cr4::osxsave;
	EXPECT_TRUE(ask(1).ecx & bit(27));
	EXPECT_TRUE(ask(1).edx & bit(9));
	s.apic_base &= ~apic_base_bit::enabled;
	EXPECT_FALSE(ask(1).edx & bit(9));

	EXPECT_EQ(ask(0xd).eax, 7u);
	EXPECT_EQ(ask(0xd).ebx, 576u) << "of what XCR0 has";
	EXPECT_EQ(ask(0xd).ecx, 832u) << "of what it can have";
	EXPECT_EQ(ask(0xd, 1).eax, 7u);
	EXPECT_EQ(ask(0xd, 1).ebx, 576u);
	s.xcr0 = 7;
	EXPECT_EQ(ask(0xd).ebx, 832u);
	EXPECT_EQ(ask(0xd, 1).ebx, 832u);
	EXPECT_EQ(ask(0xd, 2).ebx, 0x240u);
}

TEST_F(Cpuid, what_follows_for_registers)
{
	struct {
		u32 function;
		u32 CpuidEntry::*reg;
		unsigned number;
		u64 cr4;
		bool GuestModel::*flag;
	} const rows[] = {
		{1, &CpuidEntry::ecx, 26, cr4::osxsave, nullptr},
		{1, &CpuidEntry::ecx, 17, cr4::pcide, nullptr},
		{1, &CpuidEntry::ecx, 21, 0, &GuestModel::x2apic},
		{7, &CpuidEntry::ebx, 0, cr4::fsgsbase, nullptr},
		{7, &CpuidEntry::ebx, 1, 0, &GuestModel::tsc_adjust},
		{7, &CpuidEntry::ebx, 7, cr4::smep, nullptr},
		{7, &CpuidEntry::ebx, 10, 0, &GuestModel::invpcid},
		{7, &CpuidEntry::ebx, 20, cr4::smap, nullptr},
		{7, &CpuidEntry::ecx, 2, cr4::umip, nullptr},
		{7, &CpuidEntry::ecx, 22, 0, &GuestModel::rdpid},
		{0x80000001, &CpuidEntry::edx, 20, 0, &GuestModel::nx},
		{0x80000001, &CpuidEntry::edx, 27, 0, &GuestModel::rdtscp},
		{0x80000001, &CpuidEntry::edx, 29, 0, &GuestModel::long_mode},
	};
	const GuestModel all = s.model;

	for (const auto &row : rows) {
		offer_cpuid();
		EXPECT_TRUE(!row.flag || s.model.*row.flag);
		set_cpuid([&](CpuidEntry &e) {
			if (e.function == row.function)
				e.*row.reg &= ~bit(row.number);
		});
		EXPECT_EQ(s.model.cr4, all.cr4 & ~row.cr4);
		EXPECT_FALSE(row.flag && s.model.*row.flag) << row.number;
	}
	offer_cpuid();
	set_cpuid([](CpuidEntry &e) {
		if (e.function == 0xd && e.index == 0)
			e.eax = 0xe3;
	});
	EXPECT_EQ(s.model.xcr0, 3u) << "no more than the host has";
	set_cpuid([](CpuidEntry &e) {
		if (e.function == 0x80000008)
			e.eax = 0x3024;
	});
	EXPECT_EQ(s.model.physical_address_bits, 36u);
}

TEST_F(Cpuid, what_a_guest_cannot_have)
{
	for (u32 width : {0u, 48u, 57u})
		EXPECT_TRUE(table({{.function = 0x80000008, .eax = width << 8 | 39}}).check());
	EXPECT_EQ(table({{.function = 0x80000008, .eax = 47 << 8 | 39}}).check().error(),
		  Errno::inval);
	EXPECT_EQ(table({{.function = 0xd, .eax = 1 << 18}}).check().error(), Errno::perm);
}

TEST_F(Cpuid, the_same_but_for_what_registers_say)
{
	GuestCpuid other = cpuid;

	EXPECT_TRUE(other.is_same(cpuid, s));
	other = {};
	for (u32 i = 0; i < cpuid.count(); i++) {
		CpuidEntry e = cpuid.entry(i);
		if (e.function == 1)
			e.ecx ^= bit(27);
		if (e.function == 0xd && e.index == 0)
			e.ebx = 12;
		EXPECT_TRUE(other.add(e));
	}
	EXPECT_TRUE(other.is_same(cpuid, s));
	EXPECT_TRUE(other.add({.function = 0x80000009}));
	EXPECT_FALSE(other.is_same(cpuid, s));
	for (u32 CpuidEntry::*field :
	     {&CpuidEntry::function, &CpuidEntry::index, &CpuidEntry::flags, &CpuidEntry::eax,
	      &CpuidEntry::ebx, &CpuidEntry::ecx, &CpuidEntry::edx}) {
		GuestCpuid changed;
		for (u32 i = 0; i < cpuid.count(); i++) {
			CpuidEntry e = cpuid.entry(i);
			if (i == 2)
				e.*field ^= 0x10;
			EXPECT_TRUE(changed.add(e));
		}
		EXPECT_FALSE(changed.is_same(cpuid, s));
	}
}
