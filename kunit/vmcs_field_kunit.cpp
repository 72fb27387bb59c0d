// SPDX-License-Identifier: GPL-2.0
#include "arch/x86/vmcs_field.hpp"

#include "expect.hpp"

using namespace kvmpp;

namespace
{

template <class F> constexpr unsigned width_of(F)
{
	return 8 * sizeof(typename F::Value);
}

TEST_CASE(width)
{
	EXPECT_EQ(width_of(field::vpid), 16);
	EXPECT_EQ(width_of(field::ept_pointer), 64);
	EXPECT_EQ(width_of(field::exit_reason), 32);
	EXPECT_EQ(width_of(field::guest_rip), 64);
}

TEST_CASE(read_only)
{
	EXPECT(field::exit_reason.read_only);
	EXPECT(field::exit_qualification.read_only);
	EXPECT(field::guest_physical_address.read_only);
	EXPECT(!field::guest_rip.read_only);
	EXPECT(!field::vm_entry_interruption_info.read_only);
}

TEST_CASE(segments)
{
	EXPECT_EQ(segment_field(field::guest_es_selector, 7), field::guest_tr_selector.encoding);
	EXPECT_EQ(segment_field(field::guest_es_access_rights, 2),
		  field::guest_ss_access_rights.encoding);
	EXPECT_EQ(segment_field(field::guest_es_base, 7), 0x6814);
}

} // namespace

DEFINE_TEST_SUITE(VMCS_FIELD_CASES)
