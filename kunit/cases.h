/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The suites and their cases by name, for C, where KUnit is told of them, and for C++, where most of
 * them are: suites.c makes a table of each list, DEFINE_TEST_SUITE() the functions it names. A case
 * that is in no list is an unused function, one that is only in the list a compile error.
 */
#ifndef KUNIT_CASES_H
#define KUNIT_CASES_H

#include "test_case.h"

#define TEST_SUITES(X)                                                                             \
	X(result, RESULT_CASES)                                                                    \
	X(list, LIST_CASES)                                                                        \
	X(capabilities, CAPABILITIES_CASES)                                                        \
	X(vmcs_field, VMCS_FIELD_CASES)                                                            \
	X(vcpu_state, VCPU_STATE_CASES)                                                            \
	X(memslots, MEMSLOTS_CASES)                                                                \
	X(ept, EPT_CASES)                                                                          \
	X(vpid, VPID_CASES)                                                                        \
	X(vmx, VMX_CASES)                                                                          \
	X(vcpu_table, VCPU_TABLE_CASES)                                                            \
	X(kick, KICK_CASES)                                                                        \
	X(glue, GLUE_CASES)

#define RESULT_CASES(X)                                                                            \
	X(result, errno_to_the_kernel)                                                             \
	X(result, errno_from_the_kernel)                                                           \
	X(result, value_or_error)                                                                  \
	X(result, value_moves_and_is_destroyed_once)                                               \
	X(result, page_is_zeroed_and_in_the_direct_map)

#define LIST_CASES(X)                                                                              \
	X(list, empty_at_first)                                                                    \
	X(list, last_pushed_is_first)                                                              \
	X(list, unlink_from_any_place_and_twice)                                                   \
	X(list, visitor_unlinks)

#define CAPABILITIES_CASES(X)                                                                      \
	X(capabilities, capable_cpu)                                                               \
	X(capabilities, each_row_of_the_table)                                                     \
	X(capabilities, messages_are_unique)                                                       \
	X(capabilities, no_vmx_or_not_allowed)                                                     \
	X(capabilities, controls_that_stay_on)                                                     \
	X(capabilities, registers_of_this_cpu)

#define VMCS_FIELD_CASES(X)                                                                        \
	X(vmcs_field, width)                                                                       \
	X(vmcs_field, read_only)                                                                   \
	X(vmcs_field, segments)

#define VCPU_STATE_CASES(X)                                                                        \
	X(vcpu_state, after_reset)                                                                 \
	X(vcpu_state, benign_is_followed_by_the_second)                                            \
	X(vcpu_state, double_fault)                                                                \
	X(vcpu_state, triple_fault)                                                                \
	X(vcpu_state, skip)

#define MEMSLOTS_CASES(X)                                                                          \
	X(memslots, request_rules)                                                                 \
	X(memslots, changes)                                                                       \
	X(memslots, many_slots)                                                                    \
	X(memslots, range_of_user_addresses)

#define EPT_CASES(X)                                                                               \
	X(ept, entries_of_a_page)                                                                  \
	X(ept, map_and_unmap_far_apart)                                                            \
	X(ept, unmap_a_range)                                                                      \
	X(ept, many_pages_are_freed)                                                               \
	X(ept, never_created)

#define VPID_CASES(X)                                                                              \
	X(vpid, unique_and_not_the_hosts)                                                          \
	X(vpid, all_in_use)

/* On a CPU that has VMX; skipped on others. */
#define VMX_CASES(X)                                                                               \
	X(vmx, on_at_the_first_use_off_after_the_last)                                             \
	X(vmx, vmxon_fails_on_one_cpu)                                                             \
	X(vmx, cpu_where_vmxon_fails_stays_offline)                                                \
	X(vmx, loaded_vmcss_of_a_cpu)                                                              \
	X(vmx, vmcs_of_another_revision)                                                           \
	X(vmx, pool_over_all_cpus_one_goes)                                                        \
	X(vmx, not_exclusive)

#define VCPU_TABLE_CASES(X)                                                                        \
	X(vcpu_table, ids)                                                                         \
	X(vcpu_table, reader_keeps_what_it_found)                                                  \
	X(vcpu_table, barrier_waits_for_all)                                                       \
	X(vcpu_table, thread_of_an_entry)                                                          \
	X(vcpu_table, who_is_boosted)

#define KICK_CASES(X)                                                                              \
	X(kick, one_outside_is_not_interrupted)                                                    \
	X(kick, one_inside_is_interrupted_where_it_is)                                             \
	X(kick, one_that_left_the_table)                                                           \
	X(kick, none_is_lost)

#define GLUE_CASES(X)                                                                              \
	X(glue, storage_is_large_enough)                                                           \
	X(glue, mutex_is_a_mutex)                                                                  \
	X(glue, spinlock_is_a_spinlock)                                                            \
	X(glue, rwlock_is_an_rwlock)                                                               \
	X(glue, lockdep_sees_the_class)                                                            \
	X(glue, srcu_waits_for_its_readers)                                                        \
	X(glue, irqs_and_preemption)                                                               \
	X(glue, calls_to_cpus)                                                                     \
	X(glue, memory_is_zeroed)                                                                  \
	X(glue, private_map_leaves_memory_alone)

#define DECLARE_TEST_CASE(suite, name)   void test_##suite##_##name(struct kunit *test);
#define DECLARE_TEST_SUITE(suite, CASES) CASES(DECLARE_TEST_CASE)

GLUE_BEGIN
TEST_SUITES(DECLARE_TEST_SUITE)
GLUE_END

#define DEFINE_TEST_CASE(suite, name)                                                              \
	void test_##suite##_##name(struct kunit *test)                                             \
	{                                                                                          \
		name(test);                                                                        \
	}
/* At the end of a suite's file, after the static functions of its cases. */
#define DEFINE_TEST_SUITE(CASES) CASES(DEFINE_TEST_CASE)

#endif
