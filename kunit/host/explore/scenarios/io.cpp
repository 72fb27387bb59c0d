// SPDX-License-Identifier: GPL-2.0
/* What takes a guest's writes to devices, and goes meanwhile. */
#include "setup.hpp"

#include <linux/kvm.h>

namespace kvmpp::explore
{

namespace
{

constexpr u64 port = 0x10, other_port = 0x20;

void change_ioeventfd(u64 address, u32 flags)
{
	kvm_ioeventfd request{};

	request.addr = address;
	request.len = 1;
	request.flags = KVM_IOEVENTFD_FLAG_PIO | flags;
	expect(!!vm->io_bus().ioeventfd(request), "the ioeventfd is changed");
}

kvm_coalesced_mmio_zone zone()
{
	kvm_coalesced_mmio_zone zone{};

	zone.addr = port;
	zone.size = 1;
	zone.pio = 1;
	return zone;
}

void set_up_ioeventfd()
{
	load_module();
	make_vm();
	change_ioeventfd(port, 0);
}

void set_up_zone()
{
	load_module();
	make_vm();
	expect(!!vm->io_bus().coalesce(zone()), "the zone is there");
}

/* An exit of a vCPU's. */
void write_port()
{
	(void)vm->io_bus().take({.space = IoSpace::port, .address = port, .length = 1});
}

void add_other_ioeventfd()
{
	change_ioeventfd(other_port, 0);
}

void remove_ioeventfd()
{
	change_ioeventfd(port, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

void remove_zone()
{
	expect(!!vm->io_bus().uncoalesce(zone()), "the zone goes");
}

constexpr Scenario all[] = {
	{"ioeventfd_comes",
	 2,
	 set_up_ioeventfd,
	 {{"vcpu", write_port}, {"vmm", add_other_ioeventfd}},
	 finish},
	{"ioeventfd_goes",
	 2,
	 set_up_ioeventfd,
	 {{"vcpu", write_port}, {"vmm", remove_ioeventfd}},
	 finish},
	{"zone_goes", 2, set_up_zone, {{"vcpu", write_port}, {"vmm", remove_zone}}, finish},
};

} // namespace

const Scenarios io_scenarios = {all, sizeof(all) / sizeof(all[0])};

} // namespace kvmpp::explore
