// SPDX-License-Identifier: GPL-2.0
/*
 * VMX on and off and loaded VMCSs, with the CPUs' own instructions: in Bochs. kvmpp itself, which may be
 * loaded as well, has no VM meanwhile.
 */
#include "arch/x86/cpuid.cpp"
#include "arch/x86/cpuid_table.cpp"
#include "arch/x86/vmcs_pool.cpp"
#include "virt/hardware.cpp"

#include "expect.hpp"

namespace kvmpp
{

/* For as long as it lives VMXON fails on that CPU: its region is of another revision. */
struct BrokenVmxon {
	explicit BrokenVmxon(int cpu) : revision(*VmxCpu::all_[cpu].vmxon_region_.as<u32>())
	{
		revision ^= 1;
	}
	~BrokenVmxon() { revision ^= 1; }

	u32 &revision;
};

} // namespace kvmpp

using namespace kvmpp;

namespace
{

/* The module, as far as VMX goes, loaded for a case. */
class Loaded
{
public:
	explicit Loaded(struct kunit *test, bool exclusive = true)
	{
		{
			PreemptOff preempt;
			VmxConfig unused;
			Refusal refusal{};

			if (!vmx_configure(VmxRegisters::read(preempt), unused, refusal)) {
				test_skip(test, refusal.reason);
				return;
			}
		}
		glue_parameters.exclusive = exclusive;
		loaded_ = static_cast<bool>(hardware_init());
		if (!loaded_)
			test_failed(test, __FILE__, __LINE__, "hardware_init()");
	}
	~Loaded()
	{
		test_pin(-1);
		for (; used_ > 0; used_--)
			hardware_put();
		if (loaded_)
			hardware_exit();
	}
	Loaded(const Loaded &) = delete;
	Loaded &operator=(const Loaded &) = delete;

	explicit operator bool() const { return loaded_; }
	Result<> get()
	{
		Result<> r = hardware_get();

		used_ += !!r;
		return r;
	}
	void put()
	{
		used_--;
		hardware_put();
	}

private:
	bool loaded_ = false;
	int used_ = 0;
};

int online_cpus()
{
	int count = 0;

	for (int cpu = 0; cpu < glue_nr_cpus(); cpu++)
		count += glue_cpu_online(cpu);
	return count;
}

int last_cpu()
{
	int last = 0;

	for (int cpu = 0; cpu < glue_nr_cpus(); cpu++)
		if (glue_cpu_online(cpu))
			last = cpu;
	return last;
}

/* CPUs whose CR4.VMXE is set, as the registers have it. */
int cpus_with_vmxe()
{
	std::atomic<int> count = 0;

	glue_call_on_all_cpus(
		[](void *argument) {
			*static_cast<std::atomic<int> *>(argument) += glue_vmxe_is_set();
		},
		&count);
	return count;
}

/* As a vCPU's thread does it. */
Errno load(LoadedVmcs &vmcs, u64 rip_to_write = 0, u64 *rip_read = nullptr)
{
	PreemptOff preempt;

	vmcs.leave_other_cpu(preempt);
	IrqOff irq;
	Result<ActiveVmcs> active = vmcs.load(irq);
	if (!active)
		return active.error();
	if (rip_to_write)
		active->write(field::guest_rip, rip_to_write);
	if (rip_read)
		*rip_read = active->read(field::guest_rip);
	return active->ok() ? Errno{} : Errno::io;
}

constexpr Errno ok{};

TEST_CASE(on_at_the_first_use_off_after_the_last)
{
	Loaded module(test);

	if (!module)
		return;
	EXPECT_EQ(cpus_with_vmxe(), 0);
	ASSERT(module.get());
	EXPECT_EQ(cpus_with_vmxe(), online_cpus());
	ASSERT(module.get());
	module.put();
	EXPECT_EQ(cpus_with_vmxe(), online_cpus());
	module.put();
	EXPECT_EQ(cpus_with_vmxe(), 0);
}

TEST_CASE(vmxon_fails_on_one_cpu)
{
	Loaded module(test);

	if (!module)
		return;
	for (int cpu = 0; cpu < glue_nr_cpus(); cpu++) {
		if (!glue_cpu_online(cpu))
			continue;
		BrokenVmxon broken(cpu);
		Result<> r = module.get();
		EXPECT(!r && r.error() == Errno::io);
		EXPECT_EQ(cpus_with_vmxe(), 0);
		EXPECT(!VmxCpu::of({0}).is_on());
	}
	EXPECT(module.get());
	EXPECT_EQ(cpus_with_vmxe(), online_cpus());
}

TEST_CASE(cpu_where_vmxon_fails_stays_offline)
{
	Loaded module(test);
	int cpu = last_cpu(), before = online_cpus();

	if (!module)
		return;
	ASSERT(cpu > 0);
	ASSERT(module.get());
	EXPECT_EQ(test_set_online(cpu, 0), 0);
	{
		BrokenVmxon broken(cpu);
		EXPECT_EQ(test_set_online(cpu, 1), -EIO);
		EXPECT(!glue_cpu_online(cpu));
		module.put();
		EXPECT_EQ(test_set_online(cpu, 1), 0);
		EXPECT_EQ(online_cpus(), before);
	}
	EXPECT(module.get());
	EXPECT_EQ(cpus_with_vmxe(), before);
}

TEST_CASE(loaded_vmcss_of_a_cpu)
{
	Loaded module(test);
	LoadedVmcs vmcss[4];

	if (!module)
		return;
	ASSERT(module.get());
	test_pin(0);
	u32 number = 0;
	for (LoadedVmcs &vmcs : vmcss) {
		ASSERT(vmcs.create(hardware_config().revision, {.vcpu = number++}));
		EXPECT_EQ(load(vmcs), ok);
	}
	EXPECT_EQ(VmxCpu::of({0}).loaded(), 4);
	{
		IrqOff irq;
		/* The last one loaded comes first. */
		VmxCpu::here(irq).for_each_loaded(
			irq, [&](LoadedVmcs &vmcs) { EXPECT_EQ(vmcs.owner().vcpu, --number); });
	}
	EXPECT_EQ(number, 0);
	test_pin(last_cpu());
	EXPECT_EQ(load(vmcss[2]), ok);
	EXPECT_EQ(vmcss[2].cpu().value, last_cpu());
	EXPECT_EQ(VmxCpu::of({0}).loaded(), 3);
	/* From here, where they are not. */
	vmcss[0].clear(ClearCause::free);
	vmcss[3].clear(ClearCause::free);
	EXPECT(vmcss[0].cpu().is_none() && vmcss[3].cpu().is_none());
	EXPECT_EQ(VmxCpu::of({0}).loaded(), 1);
	EXPECT_EQ(VmxCpu::of({0}).clears(ClearCause::free), 2);
	EXPECT_EQ(load(vmcss[3]), ok);
}

TEST_CASE(vmcs_of_another_revision)
{
	Loaded module(test);
	LoadedVmcs vmcs;

	if (!module)
		return;
	ASSERT(module.get());
	ASSERT(vmcs.create(hardware_config().revision ^ 1, {}));
	EXPECT_EQ(load(vmcs), Errno::io);
}

TEST_CASE(pool_over_all_cpus_one_goes)
{
	Loaded module(test);
	VmcsPool pool;
	unsigned made = 0;

	if (!module)
		return;
	ASSERT(module.get());
	ASSERT(last_cpu() > 0);
	for (int cpu = 0; cpu < glue_nr_cpus() && made < VmcsPool::capacity; cpu++) {
		if (!glue_cpu_online(cpu))
			continue;
		test_pin(cpu);
		Result<unsigned> index = pool.add(hardware_config().revision, {});
		ASSERT(index && *index == made);
		pool.make_current(made++);
		EXPECT_EQ(load(pool.current(), 0x1000 + made), ok);
		EXPECT_EQ(pool.current().cpu().value, cpu);
	}
	test_pin(0);
	int gone = last_cpu();
	EXPECT_EQ(test_set_online(gone, 0), 0);
	/* What was in the VMCSs has survived, wherever they were. */
	for (unsigned i = made; i-- > 1;) {
		u64 rip = 0;

		pool.make_current(i);
		EXPECT_EQ(load(pool.current(), 0, &rip), ok);
		EXPECT_EQ(rip, 0x1001 + i);
	}
	EXPECT_EQ(test_set_online(gone, 1), 0);
	/* The current one goes last, the others in the order in which they came. */
	test_pin(gone);
	pool.make_current(made - 1);
	EXPECT_EQ(load(pool.current()), ok);
	for (unsigned i = 0; i + 1 < made; i++)
		pool.remove(i);
	EXPECT_EQ(VmxCpu::of({0}).loaded(), 0);
	EXPECT_EQ(VmxCpu::of({gone}).loaded(), 1);
}

TEST_CASE(not_exclusive)
{
	Loaded module(test, false);
	LoadedVmcs vmcs;

	if (!module)
		return;
	ASSERT(module.get());
	EXPECT_EQ(cpus_with_vmxe(), 0);
	ASSERT(vmcs.create(hardware_config().revision, {}));
	for (int cpu : {0, last_cpu()}) {
		test_pin(cpu);
		PreemptOff preempt;
		u64 rip = 0;

		EXPECT_EQ(load(vmcs, 0x1234, &rip), ok);
		EXPECT_EQ(rip, 0x1234);
		EXPECT(glue_vmxe_is_set());
		{
			IrqOff irq;
			VmxCpu::here(irq).put(irq);
		}
		EXPECT(!glue_vmxe_is_set());
		EXPECT(vmcs.cpu().is_none());
	}
	{
		/* Another hypervisor is in VMX operation here. */
		PreemptOff preempt;
		IrqOff irq;
		EXPECT_EQ(glue_vmxe_set(), 0);
		Result<ActiveVmcs> active = vmcs.load(irq);
		EXPECT(!active && active.error() == Errno::busy);
		EXPECT(glue_vmxe_is_set());
		glue_vmxe_clear();
	}
	EXPECT_EQ(load(vmcs), ok);
	IrqOff irq;
	VmxCpu::here(irq).put(irq);
}

} // namespace

DEFINE_TEST_SUITE(VMX_CASES)
