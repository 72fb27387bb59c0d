// SPDX-License-Identifier: GPL-2.0
#include "fixture.hpp"

#include "arch/x86/capabilities.hpp"
#include "arch/x86/controls.hpp"
#include "arch/x86/x86.hpp"
#include "include/kvmpp/guards.hpp"

#include <set>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

using Capabilities = MachineTest;

struct Verdict {
	bool ok;
	VmxConfig config;
	Refusal refusal;
};

Verdict judge(const VmxRegisters &registers)
{
	Verdict v{false, {}, {Errno::exist, ""}};

	v.ok = vmx_configure(registers, v.config, v.refusal);
	return v;
}

constexpr u64 allowed(u32 control)
{
	return u64{control} << 32;
}

/* Each bit without which the module refuses a CPU, and a word that its message must have. */
struct Needed {
	u64 VmxRegisters::*where;
	u64 bit;
	const char *says;
};
const Needed table[] = {
	{&VmxRegisters::pin, allowed(1 << 0), "external-interrupt"},
	{&VmxRegisters::pin, allowed(1 << 3), "NMI exiting"},
	{&VmxRegisters::pin, allowed(1 << 5), "virtual NMIs"},
	{&VmxRegisters::primary, allowed(1 << 2), "interrupt-window"},
	{&VmxRegisters::primary, allowed(1 << 3), "TSC offset"},
	{&VmxRegisters::primary, allowed(1 << 7), "HLT"},
	{&VmxRegisters::primary, allowed(1 << 10), "MWAIT"},
	{&VmxRegisters::primary, allowed(1 << 11), "RDPMC"},
	{&VmxRegisters::primary, allowed(1 << 19), "CR8-load"},
	{&VmxRegisters::primary, allowed(1 << 20), "CR8-store"},
	{&VmxRegisters::primary, allowed(1 << 22), "NMI-window"},
	{&VmxRegisters::primary, allowed(1 << 23), "MOV-DR"},
	{&VmxRegisters::primary, allowed(1 << 24), "I/O"},
	{&VmxRegisters::primary, allowed(1 << 28), "MSR bitmaps"},
	{&VmxRegisters::primary, allowed(1 << 29), "MONITOR"},
	{&VmxRegisters::primary, allowed(u32{1} << 31), "secondary"},
	{&VmxRegisters::secondary, allowed(1 << 1), "EPT"},
	{&VmxRegisters::secondary, allowed(1 << 5), "VPID"},
	{&VmxRegisters::secondary, allowed(1 << 6), "WBINVD"},
	{&VmxRegisters::secondary, allowed(1 << 7), "unrestricted guest"},
	{&VmxRegisters::exit, allowed(1 << 2), "debug controls"},
	{&VmxRegisters::exit, allowed(1 << 9), "64-bit host"},
	{&VmxRegisters::exit, allowed(1 << 18), "saving of IA32_PAT"},
	{&VmxRegisters::exit, allowed(1 << 19), "loading of IA32_PAT on VM exit"},
	{&VmxRegisters::exit, allowed(1 << 20), "saving of IA32_EFER"},
	{&VmxRegisters::exit, allowed(1 << 21), "loading of IA32_EFER on VM exit"},
	{&VmxRegisters::entry, allowed(1 << 2), "loading of debug controls"},
	{&VmxRegisters::entry, allowed(1 << 9), "64-bit guest"},
	{&VmxRegisters::entry, allowed(1 << 14), "loading of IA32_PAT on VM entry"},
	{&VmxRegisters::entry, allowed(1 << 15), "loading of IA32_EFER on VM entry"},
	{&VmxRegisters::ept_vpid, 1 << 6, "4-level"},
	{&VmxRegisters::ept_vpid, 1 << 14, "write-back"},
	{&VmxRegisters::ept_vpid, 1 << 20, "INVEPT"},
	{&VmxRegisters::ept_vpid, 1 << 25, "single-context INVEPT"},
	{&VmxRegisters::ept_vpid, 1 << 26, "all-context INVEPT"},
	{&VmxRegisters::ept_vpid, u64{1} << 32, "INVVPID"},
	{&VmxRegisters::ept_vpid, u64{1} << 41, "single-context INVVPID"},
	{&VmxRegisters::ept_vpid, u64{1} << 42, "all-context INVVPID"},
};

} // namespace

TEST_F(Capabilities, capable_cpu_is_taken)
{
	Verdict v = judge(capable_registers());

	ASSERT_TRUE(v.ok) << v.refusal.reason;
	EXPECT_EQ(v.config.revision, 4u);
	EXPECT_TRUE(v.config.has_rdtscp());
	EXPECT_TRUE(v.config.has_invpcid());
}

TEST_F(Capabilities, each_missing_bit_is_refused_with_its_own_message)
{
	std::set<std::string> messages;

	for (const Needed &needed : table) {
		VmxRegisters r = capable_registers();
		r.*needed.where &= ~needed.bit;
		Verdict v = judge(r);

		EXPECT_FALSE(v.ok) << needed.says;
		EXPECT_EQ(v.refusal.error, Errno::io) << needed.says;
		EXPECT_NE(std::string(v.refusal.reason).find(needed.says), std::string::npos)
			<< v.refusal.reason;
		EXPECT_TRUE(messages.insert(v.refusal.reason).second)
			<< "not its own: " << v.refusal.reason;
	}
}

TEST_F(Capabilities, all_that_is_lacking_is_told)
{
	VmxRegisters r = capable_registers();
	unsigned next = 0;

	EXPECT_EQ(vmx_lacks(r, next), nullptr);
	EXPECT_EQ(vmx_lacks(r, next), nullptr);
	r.secondary &= ~allowed(1 << 1);
	r.ept_vpid = ~(u64{1} << 42);
	next = 0;
	EXPECT_STREQ(vmx_lacks(r, next), "no EPT");
	EXPECT_STREQ(vmx_lacks(r, next), "no all-context INVVPID");
	EXPECT_EQ(vmx_lacks(r, next), nullptr);
	unsigned all = 0;
	for (next = 0; vmx_lacks(VmxRegisters(), next);)
		all++;
	EXPECT_EQ(all, std::size(table));
}

TEST_F(Capabilities, bits_beyond_the_table_are_not_needed)
{
	VmxRegisters r = capable_registers();

	/* Of each register only what the table above names. */
	for (u64 VmxRegisters::*where :
	     {&VmxRegisters::pin, &VmxRegisters::primary, &VmxRegisters::secondary,
	      &VmxRegisters::exit, &VmxRegisters::entry, &VmxRegisters::ept_vpid}) {
		u64 needed = 0;
		for (const Needed &n : table)
			if (n.where == where)
				needed |= n.bit;
		u64 must_be_set = where == &VmxRegisters::ept_vpid ? 0 : r.*where & 0xffffffff;
		r.*where = needed | must_be_set | must_be_set << 32;
	}
	Verdict v = judge(r);
	EXPECT_TRUE(v.ok) << v.refusal.reason;
	EXPECT_FALSE(v.config.has_rdtscp());
	EXPECT_FALSE(v.config.has_invpcid());
}

TEST_F(Capabilities, cpu_without_vmx)
{
	VmxRegisters r = capable_registers();
	r.cpuid_vmx = false;
	Verdict v = judge(r);

	EXPECT_FALSE(v.ok);
	EXPECT_EQ(v.refusal.error, Errno::opnotsupp);
	EXPECT_STREQ(v.refusal.reason, "this CPU has no VMX");
}

TEST_F(Capabilities, feature_control_unlocked_or_locked_without_vmx)
{
	std::set<std::string> messages;

	/* Without the lock VMXON raises #GP even if VMX is allowed; bit 1 is for SMX only. */
	for (u64 feature_control : {0u, 4u, 1u, 3u}) {
		VmxRegisters r = capable_registers();
		r.feature_control = feature_control;
		Verdict v = judge(r);

		EXPECT_FALSE(v.ok) << feature_control;
		EXPECT_EQ(v.refusal.error, Errno::opnotsupp) << feature_control;
		messages.insert(v.refusal.reason);
	}
	EXPECT_EQ(messages.size(), 2u);
}

TEST_F(Capabilities, vmcs_larger_than_a_page_or_uncached)
{
	VmxRegisters large = capable_registers(), uncached = capable_registers(),
		     page = capable_registers();

	large.basic += u64{4096} << 32;
	uncached.basic &= ~(u64{0xf} << 50);
	page.basic += u64{4096 - 1024} << 32;
	EXPECT_FALSE(judge(large).ok);
	EXPECT_FALSE(judge(uncached).ok);
	EXPECT_EQ(judge(uncached).refusal.error, Errno::io);
	EXPECT_TRUE(judge(page).ok);
}

TEST_F(Capabilities, controls_are_what_is_wanted_and_what_the_cpu_insists_on)
{
	VmxRegisters r = capable_registers();
	Verdict v = judge(r);

	EXPECT_EQ(v.config.pin, 0x16u | pin::external_interrupt_exiting | pin::nmi_exiting |
					pin::virtual_nmis | pin::preemption_timer);
	EXPECT_EQ(v.config.primary & static_cast<u32>(r.primary), static_cast<u32>(r.primary));
	EXPECT_TRUE(v.config.primary & primary::unconditional_io_exiting);
	EXPECT_FALSE(v.config.primary & (primary::cr3_load_exiting | primary::cr3_store_exiting |
					 primary::invlpg_exiting | primary::rdtsc_exiting));
	EXPECT_EQ(v.config.secondary & secondary::unrestricted_guest,
		  secondary::unrestricted_guest);
	EXPECT_TRUE(v.config.exit & exit_control::host_address_space_size);
	/* An interrupt stays pending until interrupts are switched on, where Linux takes it. */
	EXPECT_FALSE(v.config.exit & exit_control::acknowledge_interrupt);
	EXPECT_FALSE(v.config.entry & entry_control::ia32e_mode_guest);
}

TEST_F(Capabilities, preemption_timer_where_it_is_and_counts_rightly)
{
	VmxRegisters r = capable_registers();
	Verdict v = judge(r);

	EXPECT_TRUE(v.config.has_preemption_timer());
	EXPECT_EQ(v.config.preemption_timer_bit, 5u);
	/* An i7-900, with a reserved bit; the one after it. */
	r.cpu_signature = 0x400106a5;
	v = judge(r);
	EXPECT_TRUE(v.ok);
	EXPECT_FALSE(v.config.has_preemption_timer());
	r.cpu_signature = 0x106a6;
	EXPECT_TRUE(judge(r).config.has_preemption_timer());
	r.pin &= ~allowed(pin::preemption_timer);
	v = judge(r);
	EXPECT_TRUE(v.ok);
	EXPECT_FALSE(v.config.has_preemption_timer());
}

TEST_F(Capabilities, no_control_is_set_that_may_not_be)
{
	VmxRegisters r = capable_registers();
	Verdict v = judge(r);

	EXPECT_EQ(v.config.pin & ~(r.pin >> 32), 0u);
	EXPECT_EQ(v.config.primary & ~(r.primary >> 32), 0u);
	EXPECT_EQ(v.config.secondary & ~(r.secondary >> 32), 0u);
	EXPECT_EQ(v.config.exit & ~(r.exit >> 32), 0u);
	EXPECT_EQ(v.config.entry & ~(r.entry >> 32), 0u);
}

TEST_F(Capabilities, cr3_exiting_that_stays_on_is_refused)
{
	/* Bits 15 and 16 are in the default1 class: without "true" registers they cannot be 0. */
	VmxRegisters r = capable_registers();
	r.primary |= 0x0401e172;
	Verdict v = judge(r);

	EXPECT_FALSE(v.ok);
	EXPECT_EQ(v.refusal.error, Errno::io);
	EXPECT_NE(std::string(v.refusal.reason).find("CR3"), std::string::npos);
}

TEST_F(Capabilities, fixed_bits)
{
	Verdict v = judge(capable_registers());

	/* PE and PG are free for an unrestricted guest; NE is not. */
	EXPECT_EQ(v.config.cr0_must_be_set, cr0::ne);
	/* A machine check in the guest is the host's. */
	EXPECT_EQ(v.config.cr4_must_be_set, cr4::vmxe | cr4::mce);
	VmxRegisters no_mce = capable_registers();
	no_mce.host_cr4 &= ~cr4::mce;
	EXPECT_EQ(judge(no_mce).config.cr4_must_be_set, cr4::vmxe);
}

TEST_F(Capabilities, revision_is_31_bits)
{
	VmxRegisters r = capable_registers();
	r.basic |= 0xffffffff;

	EXPECT_EQ(judge(r).config.revision, 0x7fffffffu);
}

TEST_F(Capabilities, registers_are_read_from_the_cpu)
{
	VmxRegisters r = VmxRegisters::read(PreemptOff()), want = capable_registers();

	EXPECT_TRUE(r.cpuid_vmx);
	EXPECT_EQ(r.feature_control, want.feature_control);
	EXPECT_EQ(r.basic, want.basic);
	EXPECT_EQ(r.pin, want.pin);
	EXPECT_EQ(r.primary, want.primary);
	EXPECT_EQ(r.secondary, want.secondary);
	EXPECT_EQ(r.exit, want.exit);
	EXPECT_EQ(r.entry, want.entry);
	EXPECT_EQ(r.ept_vpid, want.ept_vpid);
	EXPECT_EQ(r.cr0_fixed0, want.cr0_fixed0);
	EXPECT_EQ(r.cr4_fixed0, want.cr4_fixed0);
}

TEST_F(Capabilities, nothing_is_read_without_vmx)
{
	cpuid_table()[{1, 0}].ecx &= ~(1u << 5);
	VmxRegisters r = VmxRegisters::read(PreemptOff());

	EXPECT_FALSE(r.cpuid_vmx);
	EXPECT_EQ(r.basic, 0u);
}

TEST_F(Capabilities, plain_registers_where_there_are_no_true_ones)
{
	auto &msrs = processor(0).msrs;

	msrs[msr::vmx_basic] &= ~(u64{1} << 55);
	for (u32 msr : {0x48du, 0x48eu, 0x48fu, 0x490u})
		msrs.erase(msr);
	msrs[0x481] = 0x7f00000016;
	msrs[0x482] = 0xfff9fffe0401e172;
	msrs[0x483] = 0x1ffffff00036dff;
	msrs[0x484] = 0x3ffff000011ff;
	VmxRegisters r = VmxRegisters::read(PreemptOff());
	EXPECT_EQ(r.pin, 0x7f00000016u);
	EXPECT_EQ(r.primary, 0xfff9fffe0401e172u);
	EXPECT_EQ(r.exit, 0x1ffffff00036dffu);
	EXPECT_EQ(r.entry, 0x3ffff000011ffu);
}

TEST_F(Capabilities, dependent_registers_are_read_only_where_they_exist)
{
	VmxRegisters r = capable_registers();

	/* Without secondary controls there is neither their register nor that of EPT and VPID. */
	r.primary &= ~allowed(primary::activate_secondary_controls);
	set_registers(0, r);
	EXPECT_EQ(VmxRegisters::read(PreemptOff()).secondary, 0u);
	EXPECT_EQ(VmxRegisters::read(PreemptOff()).ept_vpid, 0u);

	r = capable_registers();
	r.secondary &= ~allowed(secondary::enable_ept | secondary::enable_vpid);
	set_registers(0, r);
	EXPECT_EQ(VmxRegisters::read(PreemptOff()).ept_vpid, 0u);
}

TEST_F(Capabilities, absent_msr_reads_0)
{
	processor(0).msrs.erase(msr::feature_control);
	EXPECT_EQ(VmxRegisters::read(PreemptOff()).feature_control, 0u);
}
