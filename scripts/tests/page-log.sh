# SPDX-License-Identifier: GPL-2.0
# The dirty log on a CPU with page-modification logging, in the test host: with it, on CPUs of Linux's and on a dedicated
# one; without; and KVM's.
test=/overlay/dirty_log_test
status=0
grep -q '^vmx flags.* pml' /proc/cpuinfo || exit
$test writes_and_reads first_touch page_tables_in_read_only_slot exact exact_in_large_pages copy_in_step read_as_it_writes by_the_cpus_log || status=1
DEDICATED=1 $test page_tables_in_read_only_slot exact read_as_it_writes || status=1
rmmod kvmpp && modprobe kvmpp pml=0 || exit
$test exact read_as_it_writes || status=1
rmmod kvmpp && modprobe kvm_intel enable_apicv=0 || exit
KVM_DEVICE=/dev/kvm $test exact read_as_it_writes || status=1
exit $status
