// SPDX-License-Identifier: GPL-2.0
//
// The 8254 in the kernel, as user space sees it: what makes one, its state, and the errnos, which are those
// of stock KVM of Linux 6.1.

#include "expect.hpp"
#include "ktap.hpp"
#include "vm.hpp"

#include <cerrno>
#include <cstring>
#include <initializer_list>

namespace
{

using expect::equal;
using expect::that;

constexpr unsigned long nowhere = 0x10;

long create(const Vm &vm, uint32_t flags)
{
	kvm_pit_config config{};
	config.flags = flags;
	return vm.fd().call(KVM_CREATE_PIT2, &config);
}

kvm_pit_state2 state_of(const Vm &vm)
{
	kvm_pit_state2 state;
	std::memset(&state, 0xaa, sizeof(state));
	equal("KVM_GET_PIT2", vm.fd().call(KVM_GET_PIT2, &state), 0);
	return state;
}

long set_reinject(const Vm &vm, bool reinject)
{
	kvm_reinject_control control{};
	control.pit_reinject = reinject;
	return vm.fd().call(KVM_REINJECT_CONTROL, &control);
}

void capabilities()
{
	Device device;
	for (const unsigned long capability :
	     {KVM_CAP_PIT, KVM_CAP_PIT2, KVM_CAP_PIT_STATE2, KVM_CAP_REINJECT_CONTROL})
		equal("a capability", device.check_extension(capability), 1);
}

void without_one()
{
	Device device;
	Vm vm(device, Irqchip::kernel);
	kvm_pit_state state{};
	kvm_pit_state2 state2{};
	equal("KVM_GET_PIT", vm.fd().call(KVM_GET_PIT, &state), -ENXIO);
	equal("KVM_SET_PIT", vm.fd().call(KVM_SET_PIT, &state), -ENXIO);
	equal("KVM_GET_PIT2", vm.fd().call(KVM_GET_PIT2, &state2), -ENXIO);
	equal("KVM_SET_PIT2", vm.fd().call(KVM_SET_PIT2, &state2), -ENXIO);
	equal("KVM_REINJECT_CONTROL", set_reinject(vm, true), -ENXIO);
	equal("KVM_GET_PIT to nowhere", vm.fd().call(KVM_GET_PIT, nowhere), -EFAULT);
	equal("KVM_SET_PIT from nowhere", vm.fd().call(KVM_SET_PIT, nowhere), -EFAULT);
	equal("KVM_GET_PIT2 to nowhere", vm.fd().call(KVM_GET_PIT2, nowhere), -ENXIO);
	equal("KVM_SET_PIT2 from nowhere", vm.fd().call(KVM_SET_PIT2, nowhere), -EFAULT);
	equal("KVM_REINJECT_CONTROL from nowhere", vm.fd().call(KVM_REINJECT_CONTROL, nowhere),
	      -EFAULT);
	equal("KVM_CREATE_PIT2 from nowhere", vm.fd().call(KVM_CREATE_PIT2, nowhere), -EFAULT);
}

// KVM of before 6.8 makes one whose interrupts go nowhere.
void without_irqchip()
{
	Device device;
	Vm vm(device);
	const long created = create(vm, 0);
	that("KVM_CREATE_PIT2", created == -ENOENT || (!Device::is_kvmpp() && created == 0));
	Vm other(device);
	const long old = other.fd().call(KVM_CREATE_PIT);
	equal("KVM_CREATE_PIT", old, created);
	equal("KVM_CREATE_PIT2 from nowhere", other.fd().call(KVM_CREATE_PIT2, nowhere), -EFAULT);
}

void one_only()
{
	Device device;
	Vm vm(device, Irqchip::kernel);
	equal("KVM_CREATE_PIT", vm.fd().call(KVM_CREATE_PIT), 0);
	equal("again", vm.fd().call(KVM_CREATE_PIT), -EEXIST);
	equal("as KVM_CREATE_PIT2", create(vm, KVM_PIT_SPEAKER_DUMMY), -EEXIST);
	Vm other(device, Irqchip::kernel);
	equal("with flags that are not there", create(other, ~0u), 0);
	equal("again", create(other, 0), -EEXIST);
	equal("the other way", other.fd().call(KVM_CREATE_PIT), -EEXIST);
	// After the first vCPU, too.
	Vm third(device, Irqchip::kernel);
	Vcpu vcpu(third);
	equal("after a vCPU", create(third, 0), 0);
}

void bad_pointers()
{
	Device device;
	Vm vm(device, Irqchip::kernel);
	equal("KVM_CREATE_PIT2", create(vm, 0), 0);
	const kvm_pit_state2 before = state_of(vm);
	for (const unsigned long request :
	     std::initializer_list<unsigned long>{KVM_CREATE_PIT2, KVM_GET_PIT, KVM_SET_PIT,
						  KVM_GET_PIT2, KVM_SET_PIT2, KVM_REINJECT_CONTROL})
		equal("an ioctl with nowhere", vm.fd().call(request, nowhere), -EFAULT);
	const kvm_pit_state2 after = state_of(vm);
	that("nothing has changed", !std::memcmp(&before, &after, sizeof(before)));
}

void fresh_state()
{
	Device device;
	Vm vm(device, Irqchip::kernel);
	equal("KVM_CREATE_PIT2", create(vm, KVM_PIT_SPEAKER_DUMMY), 0);
	const kvm_pit_state2 state = state_of(vm);
	for (unsigned i = 0; i < 3; i++) {
		equal("count", state.channels[i].count, 0x10000u);
		equal("mode", state.channels[i].mode, 0xff);
		equal("gate", state.channels[i].gate, i == 2 ? 0 : 1);
		equal("rw_mode", state.channels[i].rw_mode, 0);
	}
	equal("flags", state.flags, 0u);
	for (const uint32_t reserved : state.reserved)
		equal("reserved", reserved, 0u);
}

// But for when a count was loaded, which is when it was set.
void expect_same(const kvm_pit_channel_state *set, const kvm_pit_channel_state *got)
{
	for (unsigned i = 0; i < 3; i++)
		that("a channel is as it was set",
		     !std::memcmp(&set[i], &got[i],
				  offsetof(kvm_pit_channel_state, count_load_time)));
}

void state_there_and_back()
{
	Device device;
	Vm vm(device, Irqchip::kernel);
	equal("KVM_CREATE_PIT2", create(vm, 0), 0);
	kvm_pit_state2 state{};
	for (unsigned i = 0; i < 3; i++)
		state.channels[i] = {.count = 0x1234 + i,
				     .latched_count = static_cast<uint16_t>(0x4321 + i),
				     .count_latched = 2,
				     .status_latched = 1,
				     .status = 0x56,
				     .read_state = 4,
				     .write_state = 3,
				     .write_latch = 0x78,
				     .rw_mode = 3,
				     .mode = static_cast<uint8_t>(i + 2),
				     .bcd = 1,
				     .gate = 1,
				     .count_load_time = 0};
	state.flags = KVM_PIT_FLAGS_SPEAKER_DATA_ON;
	equal("KVM_SET_PIT2", vm.fd().call(KVM_SET_PIT2, &state), 0);
	kvm_pit_state2 got = state_of(vm);
	expect_same(state.channels, got.channels);
	equal("flags", got.flags, state.flags);

	kvm_pit_state old;
	equal("KVM_GET_PIT", vm.fd().call(KVM_GET_PIT, &old), 0);
	expect_same(state.channels, old.channels);
	old.channels[0].count = 0;
	old.channels[1].mode = 0;
	equal("KVM_SET_PIT", vm.fd().call(KVM_SET_PIT, &old), 0);
	got = state_of(vm);
	old.channels[0].count = 0x10000;
	expect_same(old.channels, got.channels);
	equal("flags", got.flags, state.flags);

	state.flags = KVM_PIT_FLAGS_HPET_LEGACY;
	equal("KVM_SET_PIT2", vm.fd().call(KVM_SET_PIT2, &state), 0);
	got = state_of(vm);
	expect_same(state.channels, got.channels);
	equal("flags", got.flags, state.flags);
}

// Whatever it is, the kernel lives, and so does the VM when it ends with a timer set.
void any_state()
{
	Device device;
	for (unsigned byte = 0; byte < 256; byte += 3) {
		Vm vm(device, Irqchip::kernel);
		equal("KVM_CREATE_PIT2", create(vm, 0), 0);
		kvm_pit_state2 state;
		std::memset(&state, static_cast<int>(byte), sizeof(state));
		equal("KVM_SET_PIT2", vm.fd().call(KVM_SET_PIT2, &state), 0);
		// As quick as it may be.
		for (kvm_pit_channel_state &channel : state.channels)
			channel.count = 1;
		state.flags = 0;
		equal("KVM_SET_PIT2", vm.fd().call(KVM_SET_PIT2, &state), 0);
	}
}

void reinject_control()
{
	Device device;
	Vm vm(device, Irqchip::kernel);
	equal("KVM_CREATE_PIT2", create(vm, 0), 0);
	for (const bool reinject : {true, false, false, true})
		equal("KVM_REINJECT_CONTROL", set_reinject(vm, reinject), 0);
}

constexpr ktap::Case cases[] = {
	{"capabilities", capabilities},
	{"without_one", without_one},
	{"without_irqchip", without_irqchip},
	{"one_only", one_only},
	{"bad_pointers", bad_pointers},
	{"fresh_state", fresh_state},
	{"state_there_and_back", state_there_and_back},
	{"any_state", any_state},
	{"reinject_control", reinject_control},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
