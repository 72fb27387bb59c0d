// SPDX-License-Identifier: GPL-2.0
#include "arch/x86/vmcs_field.hpp"

#include <gtest/gtest.h>

using namespace kvmpp;

template <class F> constexpr unsigned width_of(F)
{
	return 8 * sizeof(typename F::Value);
}

TEST(VmcsField, width_is_in_the_encoding)
{
	EXPECT_EQ(width_of(field::vpid), 16u);
	EXPECT_EQ(width_of(field::host_tr_selector), 16u);
	EXPECT_EQ(width_of(field::ept_pointer), 64u);
	EXPECT_EQ(width_of(field::guest_physical_address), 64u);
	EXPECT_EQ(width_of(field::vmcs_link_pointer), 64u);
	EXPECT_EQ(width_of(field::exit_reason), 32u);
	EXPECT_EQ(width_of(field::pin_based_controls), 32u);
	EXPECT_EQ(width_of(field::guest_sysenter_cs), 32u);
	EXPECT_EQ(width_of(field::guest_rip), 64u);
	EXPECT_EQ(width_of(field::exit_qualification), 64u);
}

TEST(VmcsField, read_only_is_in_the_encoding)
{
	EXPECT_TRUE(field::exit_reason.read_only);
	EXPECT_TRUE(field::vm_instruction_error.read_only);
	EXPECT_TRUE(field::exit_qualification.read_only);
	EXPECT_TRUE(field::guest_linear_address.read_only);
	EXPECT_TRUE(field::guest_physical_address.read_only);
	EXPECT_FALSE(field::guest_rip.read_only);
	EXPECT_FALSE(field::host_rip.read_only);
	EXPECT_FALSE(field::vm_entry_interruption_info.read_only);
	EXPECT_FALSE(field::guest_interruptibility.read_only);
}

/* Against the appendix "Field Encoding in VMCS": one of each of its tables, and the easily confused. */
TEST(VmcsField, encodings_of_the_manual)
{
	EXPECT_EQ(field::vpid.encoding, 0x0000u);
	EXPECT_EQ(field::guest_es_selector.encoding, 0x0800u);
	EXPECT_EQ(field::host_es_selector.encoding, 0x0c00u);
	EXPECT_EQ(field::msr_bitmap.encoding, 0x2004u);
	EXPECT_EQ(field::tsc_offset.encoding, 0x2010u);
	EXPECT_EQ(field::ept_pointer.encoding, 0x201au);
	EXPECT_EQ(field::guest_physical_address.encoding, 0x2400u);
	EXPECT_EQ(field::vmcs_link_pointer.encoding, 0x2800u);
	EXPECT_EQ(field::guest_ia32_efer.encoding, 0x2806u);
	EXPECT_EQ(field::host_ia32_efer.encoding, 0x2c02u);
	EXPECT_EQ(field::exception_bitmap.encoding, 0x4004u);
	EXPECT_EQ(field::vm_exit_controls.encoding, 0x400cu);
	EXPECT_EQ(field::vm_entry_controls.encoding, 0x4012u);
	EXPECT_EQ(field::secondary_processor_based_controls.encoding, 0x401eu);
	EXPECT_EQ(field::vm_instruction_error.encoding, 0x4400u);
	EXPECT_EQ(field::exit_reason.encoding, 0x4402u);
	EXPECT_EQ(field::idt_vectoring_info.encoding, 0x4408u);
	EXPECT_EQ(field::vm_exit_instruction_info.encoding, 0x440eu);
	EXPECT_EQ(field::guest_interruptibility.encoding, 0x4824u);
	EXPECT_EQ(field::guest_activity_state.encoding, 0x4826u);
	EXPECT_EQ(field::host_sysenter_cs.encoding, 0x4c00u);
	EXPECT_EQ(field::cr0_guest_host_mask.encoding, 0x6000u);
	EXPECT_EQ(field::exit_qualification.encoding, 0x6400u);
	EXPECT_EQ(field::guest_linear_address.encoding, 0x640au);
	EXPECT_EQ(field::guest_rsp.encoding, 0x681cu);
	EXPECT_EQ(field::guest_rip.encoding, 0x681eu);
	EXPECT_EQ(field::host_rsp.encoding, 0x6c14u);
	EXPECT_EQ(field::host_rip.encoding, 0x6c16u);
}

TEST(VmcsField, segments_are_two_apart)
{
	EXPECT_EQ(segment_field(field::guest_es_selector, 0), 0x0800u);
	EXPECT_EQ(segment_field(field::guest_es_selector, 1), 0x0802u); /* CS */
	EXPECT_EQ(segment_field(field::guest_es_selector, 7), field::guest_tr_selector.encoding);
	EXPECT_EQ(segment_field(field::guest_es_access_rights, 2),
		  field::guest_ss_access_rights.encoding);
	EXPECT_EQ(segment_field(field::guest_es_base, 7), 0x6814u);
	EXPECT_EQ(segment_field(field::guest_es_limit, 7), 0x480eu);
}
