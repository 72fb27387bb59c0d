// SPDX-License-Identifier: GPL-2.0
#include "guest.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class Cpuid : public GuestTest
{
protected:
	insn::CpuidResult ask(u32 leaf, u32 subleaf = 0, u32 vcpu = 0)
	{
		return guest_cpuid(s, vcpu, leaf, subleaf);
	}
};

constexpr u32 bit(unsigned n)
{
	return u32{1} << n;
}

} // namespace

TEST_F(Cpuid, features_that_need_more_than_vmx_are_hidden)
{
	insn::CpuidResult r = ask(1);

	for (unsigned hidden : {2u /* DTES64 */, 3u /* MONITOR */, 5u /* VMX */, 6u /* SMX */,
				15u /* PDCM */, 21u /* x2APIC */, 24u /* TSC deadline */})
		EXPECT_FALSE(r.ecx & bit(hidden)) << hidden;
	for (unsigned hidden : {9u /* APIC */, 12u /* MTRR */, 21u /* DS */, 22u /* ACPI */,
				28u /* HTT */, 29u /* TM */})
		EXPECT_FALSE(r.edx & bit(hidden)) << hidden;
	for (unsigned shown :
	     {0u /* SSE3 */, 13u /* CX16 */, 17u /* PCID */, 26u /* XSAVE */, 28u /* AVX */, 31u})
		EXPECT_TRUE(r.ecx & bit(shown)) << shown;
	for (unsigned shown : {0u /* FPU */, 4u /* TSC */, 5u /* MSR */, 6u /* PAE */,
			       25u /* SSE */, 26u /* SSE2 */})
		EXPECT_TRUE(r.edx & bit(shown)) << shown;
}

TEST_F(Cpuid, leaf_1_names_the_vcpu)
{
	EXPECT_EQ(ask(1, 0, 5).ebx, 0x05010800u);
}

TEST_F(Cpuid, osxsave_mirrors_cr4)
{
	EXPECT_FALSE(ask(1).ecx & bit(27));
	s.cr4 |= cr4::osxsave;
	EXPECT_TRUE(ask(1).ecx & bit(27));
}

TEST_F(Cpuid, without_xsave_there_is_no_avx)
{
	init_guest_features(0, true, true);
	insn::CpuidResult r = ask(1);
	EXPECT_FALSE(r.ecx & (bit(26) | bit(28) | bit(12) | bit(29)));
	EXPECT_FALSE(ask(7).ebx & bit(5));
	EXPECT_EQ(ask(0xd).eax, 0u);
}

TEST_F(Cpuid, what_vmx_controls_allow)
{
	EXPECT_TRUE(ask(7).ebx & bit(10));
	EXPECT_TRUE(ask(0x80000001).edx & bit(27));
	EXPECT_TRUE(ask(7).ecx & bit(22));
	init_guest_features(7, false, false);
	EXPECT_FALSE(ask(7).ebx & bit(10)) << "INVPCID";
	EXPECT_FALSE(ask(0x80000001).edx & bit(27)) << "RDTSCP";
	EXPECT_FALSE(ask(7).ecx & bit(22)) << "RDPID reads IA32_TSC_AUX";
}

TEST_F(Cpuid, syscall_is_of_long_mode)
{
	EXPECT_FALSE(ask(0x80000001).edx & bit(11));
	long_mode();
	EXPECT_TRUE(ask(0x80000001).edx & bit(11));
}

TEST_F(Cpuid, xsave_sizes)
{
	insn::CpuidResult r = ask(0xd);

	EXPECT_EQ(r.eax, 7u);
	EXPECT_EQ(r.ebx, 576u) << "of what XCR0 has";
	EXPECT_EQ(r.ecx, 832u) << "of what it can have";
	s.xcr0 = 7;
	EXPECT_EQ(ask(0xd).ebx, 832u);
	EXPECT_EQ(ask(0xd, 1).eax, 1u);
	EXPECT_EQ(ask(0xd, 2).eax, 0x100u);
	EXPECT_EQ(ask(0xd, 2).ebx, 0x240u);
	EXPECT_EQ(ask(0xd, 3).eax, 0u);
}

TEST_F(Cpuid, highest_leaves)
{
	EXPECT_EQ(ask(0).eax, 0xdu);
	EXPECT_EQ(ask(0x80000000).eax, 0x80000008u);
	/* Beyond the last: as the last basic leaf. */
	EXPECT_EQ(ask(0x14).eax, ask(0xd).eax);
	EXPECT_EQ(ask(0x80000009).ecx, ask(0xd).ecx);
	EXPECT_EQ(ask(0x20000000, 2).eax, ask(0xd, 2).eax);
}

TEST_F(Cpuid, leaves_with_nothing_for_the_guest)
{
	for (u32 leaf : {3u, 5u, 6u, 0xau, 0x80000005u}) {
		insn::CpuidResult r = ask(leaf);
		EXPECT_EQ(r.eax | r.ebx | r.ecx | r.edx, 0u) << leaf;
	}
	insn::CpuidResult r = ask(7, 1);
	EXPECT_EQ(r.eax | r.ebx | r.ecx | r.edx, 0u);
}

TEST_F(Cpuid, topology_is_one_core)
{
	EXPECT_EQ(ask(4).eax >> 14, 0u);
	insn::CpuidResult r = ask(0xb, 1, 3);
	EXPECT_EQ(r.ecx, 1u) << "a level of no type";
	EXPECT_EQ(r.edx, 3u);
}

TEST_F(Cpuid, physical_address_bits_are_the_hosts)
{
	EXPECT_EQ(ask(0x80000008).eax, 0x3027u);
	EXPECT_EQ(guest_features().physical_address_bits, 39u);
	/* Four levels of EPT map no more than 48. */
	cpuid_table()[{0x80000008, 0}].eax = 0x3934;
	init_guest_features(7, true, true);
	EXPECT_EQ(guest_features().physical_address_bits, 48u);
	EXPECT_EQ(ask(0x80000008).eax, 0x3930u);
}

TEST_F(Cpuid, hypervisor_leaf)
{
	insn::CpuidResult r = ask(0x40000000);

	EXPECT_EQ(r.eax, 0x40000000u);
	EXPECT_EQ(r.ebx, 0x706d766bu) << "kvmp";
}
