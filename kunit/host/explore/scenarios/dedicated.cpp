// SPDX-License-Identifier: GPL-2.0
/* CPUs that Linux does not have, and how they and it reach each other. */
#include "dedicated.hpp"

#include "linux.hpp"
#include "machine.hpp"
#include "memory.hpp"
#include "setup.hpp"
#include "virt/dedicated_cpus.hpp"
#include "virt/vcpu.hpp"
#include "vmx.hpp"

#include <asm/errno.h>
#include <linux/kvm.h>
#include <linux_glue/entries.h>
#include <uapi/kvmpp.h>

namespace kvmpp::explore
{

namespace
{

/* A guest with a CPU of its own, as Vcpu has it, but for what concerns its own thread only. */
struct Own {
	Guest &guest;
	Dedicated dedicated;
	DedicatedRun run;
	VcpuIdentity identity;
	Page fpu_image = Page::create();

	explicit Own(Guest &g)
		: guest(g), identity{.id = g.entry->id(), .physical_address_bits = 39}
	{
	}
	Result<> take(int cpu)
	{
		const SeenMemory seen[] = {
			{this, sizeof(*this)},
			{&guest, sizeof(guest)},
			{&*guest.entry, sizeof(VcpuEntry)},
			{&vm->apics(), sizeof(ApicMap)},
			{guest.vmx.lent_vmcs(), sizeof(VcpuVmcs)},
		};
		return dedicated.take({cpu}, {}, guest.entry->kick, run,
				      sizeof(seen) / sizeof(*seen), seen);
	}
	void lend()
	{
		run.identity = &identity;
		run.state = &guest.state;
		run.kick = &guest.entry->kick;
		run.fpu_image = fpu_image.as<void>();
		run.apics = &vm->apics();
		guest.state.apic.map = &vm->apics();
		guest.state.apic_base |= apic_base_bit::extended;
		run.apic_wanted = true;
		expect(!!guest.vmx.lend(guest.state, run), "it is lent");
		guest.state.apic.owned = run.passthrough;
	}
};
Owned<Own> owns[2];

/* The guest i has CPU i + 1, which waits for work. */
void make_own(int i)
{
	make_guest(i);
	vm->apics().set_shared(static_cast<u32>(i));
	owns[i] = Owned<Own>::create(*guests[i]);
	expect(!!owns[i]->take(i + 1), "the CPU is taken");
	/* It was asked to come to its CPU, which it does by this. */
	(void)guests[i]->entry->kick.take();
	owns[i]->lend();
}

/* And is in its guest there. */
void make_running(int i)
{
	make_own(i);
	expect(owns[i]->dedicated.post(1), "it is posted");
	glue_udelay(1);
	expect(guests[i]->entry->kick.where().is_dedicated(), "it is in its guest");
}

void set_up_own()
{
	load_module();
	make_vm();
	make_own(0);
}

void set_up_own_that_exits()
{
	set_up_own();
	guest_does(1, Deed::exits);
}

void set_up_running()
{
	load_module();
	make_vm();
	make_running(0);
}

/* Its guest exits for what is seen to on the spot, and is entered again. */
void set_up_running_that_stays()
{
	set_up_running();
	guest_does(1, Deed::stays);
}

void set_up_running_with_memory()
{
	set_up_running();
	Result<SlotRequest> request = check_slot_request(0, 0, 0, page_size, user_memory, 39);
	expect(request && vm->set_memory(*request), "memory is added");
	SrcuRead read(vm->srcu());
	expect(!!vm->mmu().fault(vm->slots(read), {0}, {.write = true}, guests[0]->table_pages),
	       "the page is mapped");
	guest_does(1, Deed::touches);
	guest_does(1, Deed::touches);
}

void set_up_sender_and_target()
{
	load_module();
	make_vm();
	make_own(1);
	expect(owns[1]->dedicated.post(1), "it is posted");
	make_running(0);
	guest_does(1, Deed::sends_ipi);
}

/* One run on its CPU, as Vcpu::run_dedicated() has it. */
void run_once()
{
	Own &own = *owns[0];

	if (!own.dedicated.post(1)) {
		expect(!!own.dedicated.wait_until_moved(), "it is gone");
		expect(own.dedicated.place() == Dedicated::Place::shared, "it is where it was");
		return;
	}
	expect(!!own.dedicated.wait(false), "it comes out");
	Answer answer = own.run.answer.load(std::memory_order_acquire);
	expect(answer == Answer::exited || answer == Answer::interrupted, "it has an answer");
}

/* The thread waits for what was posted at once. */
void wait_for_answer()
{
	Own &own = *owns[0];

	if (!own.dedicated.wait(true)) {
		own.run.kick->ask(Request::come_out);
		kick(*own.run.kick);
		expect(!!own.dedicated.wait(false), "it comes out");
	}
	expect(own.run.answer.load(std::memory_order_acquire) == Answer::interrupted,
	       "it has come out");
}

void signal_vcpu()
{
	send_signal(0);
}

/* From here on the CPU has nothing cached of before. */
void flush()
{
	CpuMask cpus;

	expect(!!cpus.create(), "memory");
	vm->vcpus().ask_all(Request::flush_ept, cpus);
}

/* The same, and no more than that; and another who does not wait. */
void ask_and_kick()
{
	KickTarget &target = guests[0]->entry->kick;

	target.ask(Request::flush_ept);
	kick(target);
}

void ask_to_flush()
{
	ask_and_kick();
	wait_until_seen(guests[0]->entry->kick, Request::flush_ept);
}

void take_first_page()
{
	take_page_away(0);
}

void give_first_back()
{
	Result<> r = owns[0]->dedicated.give_back();

	expect(r || r.error() == Errno::inval || r.error() == Errno::busy, "it is given back");
}

void give_second_back()
{
	expect(!!owns[1]->dedicated.give_back(), "it is given back");
}

void end_first()
{
	owns[0]->dedicated.end();
	expect(owns[0]->dedicated.place() == Dedicated::Place::shared, "it is gone");
}

void machine_sleeps()
{
	kvmpp_machine_sleeps();
	expect(glue_online_cpus() == cpu_count, "every CPU is Linux's before the machine sleeps");
}

bool second_has_it;

void take_for_second()
{
	Result<> r = owns[1]->take(1);

	second_has_it = !!r;
	expect(r || r.error() == Errno::busy, "the CPU is taken or busy");
}

/* The second vCPU has no CPU, and would like the first one's. */
void set_up_own_and_other()
{
	set_up_own();
	make_guest(1);
	vm->apics().set_shared(1);
	owns[1] = Owned<Own>::create(*guests[1]);
}

/* Nobody has one, and the second would like one. */
void set_up_other()
{
	with_hotplug = true;
	set_up_two_guests();
	vm->apics().set_shared(1);
	owns[1] = Owned<Own>::create(*guests[1]);
}

/* 1, to /sys/devices/system/cpu/cpu1/online. */
void write_online()
{
	int error = glue_cpu_add(1);

	expect(error == 0 || error == -EBUSY, "the CPU is online, or the module's");
}

void finish_owns()
{
	for (auto &own : owns) {
		if (own)
			own->dedicated.end();
		own = {};
	}
	for (int cpu = 0; cpu < cpu_count; cpu++) {
		expect(cpus[cpu].online && !is_dedicated(cpu), "every CPU is Linux's again");
		expect(cpu == 0 || kvmpp_nmi(cpu) == 0, "an NMI there is Linux's own");
	}
	finish();
}

void finish_asleep()
{
	expect(owns[1]->dedicated.place() == Dedicated::Place::shared, "nobody has a CPU in sleep");
	finish_owns();
}

/* Whoever took it has it. */
void finish_taken_by_second()
{
	expect(owns[0]->dedicated.place() == Dedicated::Place::shared, "the first has ended");
	/* Nobody but the first one's end would have taken it back. */
	if (second_has_it)
		expect(owns[1]->dedicated.place() == Dedicated::Place::own,
		       "the second keeps what it took");
	finish_owns();
}

/* A vCPU that gets a CPU while it runs: its next entry is there. */
void set_up_without_cpu()
{
	with_hotplug = true;
	set_up_guest();
	vm->apics().set_shared(0);
	owns[0] = Owned<Own>::create(*guests[0]);
	guest_does(1, Deed::exits);
}

void enter_until_it_has_a_cpu()
{
	Own &own = *owns[0];

	for (int tries = 0; own.dedicated.place() == Dedicated::Place::shared; tries++) {
		Exit exit;
		Result<Entry> entry = own.guest.enter(exit);
		expect(!!entry, "the VMCS can be used");
		if (tries == 0)
			return;
	}
	expect(own.dedicated.place() == Dedicated::Place::own, "it has a CPU");
	own.lend();
	run_once();
}

void take_for_first()
{
	expect(!!owns[0]->take(1), "the CPU is taken");
}

/* As a whole. */
Vcpu *vcpu;

void set_up_vcpu()
{
	load_module();
	make_vm();
	expect(!!vm->create_vcpu(0), "a vCPU is made");
	vcpu = static_cast<Vcpu *>(new_file());
}

long set_cpu(long cpu)
{
	return vcpu->ioctl(KVMPP_SET_DEDICATED_CPU, static_cast<unsigned long>(cpu));
}

void set_up_vcpu_with_cpu()
{
	set_up_vcpu();
	expect(set_cpu(1) == 0, "the CPU is taken");
	guest_does(1, Deed::exits);
}

void run_vcpu()
{
	expect(vcpu->ioctl(KVM_RUN, 0) == 0, "the guest comes to its exit");
}

void finish_vcpu()
{
	kvmpp_vcpu_release(vcpu);
	for (int cpu = 0; cpu < cpu_count; cpu++)
		expect(cpus[cpu].online && !is_dedicated(cpu), "every CPU is Linux's again");
	finish();
}

constexpr bool no_crashes = true;

constexpr Scenario all[] = {
	{"kick_at_entry",
	 2,
	 set_up_running_that_stays,
	 {{"flush", flush}},
	 finish_owns,
	 no_crashes},
	{"two_kicks",
	 2,
	 set_up_running,
	 {{"flush", ask_to_flush}, {"other", ask_and_kick}},
	 finish_owns,
	 no_crashes},
	{"page_of_dedicated",
	 2,
	 set_up_running_with_memory,
	 {{"notifier", take_first_page}},
	 finish_owns,
	 no_crashes},
	{"answer", 2, set_up_own_that_exits, {{"vcpu", run_once}}, finish_owns, no_crashes},
	{"signal",
	 2,
	 set_up_running,
	 {{"vcpu", wait_for_answer}, {"signal", signal_vcpu}},
	 finish_owns,
	 no_crashes},
	{"release_as_it_is_posted",
	 2,
	 set_up_own,
	 {{"vcpu", run_once}, {"release", give_first_back}},
	 finish_owns,
	 no_crashes},
	{"release_as_it_waits",
	 2,
	 set_up_running,
	 {{"vcpu", wait_for_answer}, {"release", give_first_back}},
	 finish_owns,
	 no_crashes},
	{"release_as_it_is_kicked",
	 2,
	 set_up_running,
	 {{"flush", ask_to_flush}, {"release", give_first_back}},
	 finish_owns,
	 no_crashes},
	{"kicked_as_it_goes",
	 2,
	 set_up_running,
	 {{"kick", ask_and_kick}, {"release", give_first_back}},
	 finish_owns,
	 no_crashes},
	{"two_releases",
	 2,
	 set_up_own,
	 {{"release", give_first_back}, {"other", give_first_back}},
	 finish_owns,
	 no_crashes},
	{"vcpu_ends_as_machine_sleeps",
	 2,
	 set_up_own,
	 {{"end", end_first}, {"sleep", machine_sleeps}},
	 finish_owns,
	 no_crashes},
	{"cpu_taken_by_another",
	 2,
	 set_up_own_and_other,
	 {{"end", end_first}, {"release", give_first_back}, {"other", take_for_second}},
	 finish_taken_by_second,
	 no_crashes},
	{"taken_as_machine_sleeps",
	 2,
	 set_up_other,
	 {{"sleep", machine_sleeps}, {"other", take_for_second, 0}},
	 finish_asleep,
	 no_crashes},
	{"online_by_hand_as_it_goes",
	 2,
	 set_up_own,
	 {{"sysfs", write_online}, {"release", give_first_back}},
	 finish_owns,
	 no_crashes},
	{"ipi_as_target_goes",
	 3,
	 set_up_sender_and_target,
	 {{"release", give_second_back}},
	 finish_owns,
	 no_crashes},
	{"vcpu_on_its_cpu", 2, set_up_vcpu_with_cpu, {{"vcpu", run_vcpu}}, finish_vcpu, no_crashes},
	{"vcpu_gets_a_cpu",
	 2,
	 set_up_without_cpu,
	 {{"vcpu", enter_until_it_has_a_cpu, 0}, {"set", take_for_first, 0}},
	 finish_owns,
	 no_crashes},
};

} // namespace

const Scenarios dedicated_scenarios = {all, sizeof(all) / sizeof(all[0])};

} // namespace kvmpp::explore
