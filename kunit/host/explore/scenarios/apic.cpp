// SPDX-License-Identifier: GPL-2.0
/* Local APICs in the kernel: what is posted finds its vCPU in its guest, on its way there, or asleep. */
#include "linux.hpp"
#include "setup.hpp"
#include "virt/irqchip/lapic.hpp"
#include "virt/vcpu.hpp"
#include "vmx.hpp"

#include <asm/errno.h>
#include <linux/kvm.h>
#include <linux_glue/entries.h>

namespace kvmpp::explore
{

namespace
{

Vcpu *vcpu;

void set_up(u32 id)
{
	load_module();
	make_vm();
	expect(!!vm->create_irqchip(Irqchip::Mode::split, 0), "there are local APICs");
	expect(!!vm->create_vcpu(id), "a vCPU is made");
	vcpu = static_cast<Vcpu *>(new_file());
	/* As after any ioctl that sets a register of it: there is a look that what is posted may come in. */
	vcpu->entry().lapic->set_due();
}

void set_up_halted()
{
	set_up(0);
	guests_wait(Waits::halted);
}

void set_up_computing()
{
	set_up(0);
	guests_wait(Waits::computing);
}

void set_up_second_processor()
{
	set_up(1);
}

/* It goes on until its guest has got what is posted. */
void run_until_event()
{
	expect(vcpu->ioctl(KVM_RUN, 0) == 0, "it comes out");
	expect(static_cast<kvm_run *>(vcpu->shared_page(0))->exit_reason == KVM_EXIT_SHUTDOWN,
	       "its guest has had the event");
}

void run_until_woken()
{
	expect(vcpu->ioctl(KVM_RUN, 0) == -EAGAIN, "it has been woken");
}

void post_nmi()
{
	expect(vcpu->entry().lapic->accept({.delivery = ApicMessage::Delivery::nmi}),
	       "it takes NMIs");
}

/* INIT resets more words than the model has room for in a store buffer. */
void post_startup()
{
	expect(vcpu->entry().lapic->accept({.delivery = ApicMessage::Delivery::startup}),
	       "it takes start-up IPIs");
}

void finish_vcpu()
{
	kvmpp_vcpu_release(vcpu);
	finish();
}

constexpr Scenario all[] = {
	{"posted_to_one_that_halts",
	 2,
	 set_up_halted,
	 {{"vcpu", run_until_event}, {"poster", post_nmi}},
	 finish_vcpu},
	{"posted_to_one_that_computes",
	 2,
	 set_up_computing,
	 {{"vcpu", run_until_event}, {"poster", post_nmi}},
	 finish_vcpu},
	{"posted_to_one_that_waits",
	 2,
	 set_up_second_processor,
	 {{"vcpu", run_until_woken}, {"poster", post_startup}},
	 finish_vcpu},
};

} // namespace

const Scenarios apic_scenarios = {all, sizeof(all) / sizeof(all[0])};

} // namespace kvmpp::explore
