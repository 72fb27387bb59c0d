// SPDX-License-Identifier: GPL-2.0
/* The 8254 and what comes of it at the 8259s: when, how often, and what is made up for. */
#include "vm_fixture.hpp"

#include "virt/irqchip/pit.hpp"
#include "virt/vm.hpp"

#include <asm/errno.h>

#include <cstring>
#include <utility>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class PitTest : public MachineTest
{
protected:
	static constexpr u8 vector = 0x30, latch = 0x00, word = 0x30;
	static constexpr u64 us = 1000, ms = 1000 * us;
	static constexpr u64 port_61_gate = 1, port_61_data = 2, port_61_refresh = 0x10,
			     port_61_output = 0x20;

	PitTest()
	{
		vcpus.init();
		auto made = Irqchip::create(Irqchip::Mode::kernel, 0, vcpus, api);
		EXPECT_TRUE(made);
		irqchip = std::move(*made);
		EXPECT_TRUE(irqchip->create_pit(true));
		/* IRQ 0 alone, at its vector. */
		for (auto [port, value] :
		     {std::pair<u16, u8>{0x20, 0x11}, {0x21, vector}, {0x21, 1 << 2}, {0x21, 1}})
			out(port, value);
		mask(false);
	}

	void out(u16 port, u8 value)
	{
		DeviceAccess access{.space = IoSpace::port,
				    .is_write = true,
				    .address = port,
				    .length = 1,
				    .data = {value}};
		EXPECT_TRUE(irqchip->access(access));
	}
	u8 in(u16 port)
	{
		DeviceAccess access{
			.space = IoSpace::port, .address = port, .length = 1, .data = {0x5a}};

		EXPECT_TRUE(irqchip->access(access));
		return access.data[0];
	}
	void mask(bool masked) { out(0x21, masked ? 0xff : 0xfe); }
	/* Counter 0. */
	void load(u8 mode, u16 count)
	{
		out(0x43, static_cast<u8>(word | mode << 1));
		out(0x40, static_cast<u8>(count));
		out(0x40, static_cast<u8>(count >> 8));
	}
	u16 count()
	{
		u8 low = in(0x40);

		return static_cast<u16>(low | in(0x40) << 8);
	}
	bool begin_interrupt()
	{
		if (!irqchip->has_external_interrupt())
			return false;
		EXPECT_EQ(irqchip->acknowledge_external_interrupt(), vector);
		return true;
	}
	void end_interrupt() { out(0x20, 0x20); }
	/* As many as there are at once. */
	unsigned interrupts()
	{
		unsigned taken = 0;

		while (begin_interrupt()) {
			end_interrupt();
			taken++;
		}
		return taken;
	}
	Pit &pit() { return *irqchip->pit(); }

	VcpuTable vcpus;
	X2apicApi api;
	Owned<Irqchip> irqchip;
};

} // namespace

TEST_F(PitTest, nothing_before_it_is_programmed)
{
	EXPECT_EQ(timers_set(), 0);
	advance_timers(10 * pit::second);
	EXPECT_EQ(interrupts(), 0u);
}

TEST_F(PitTest, periodic_modes)
{
	for (u8 mode : {2, 3}) {
		load(mode, 11932); /* 10.0001 ms */
		u64 tick = pit::ns_of(11932);
		EXPECT_EQ(interrupts(), 0u);
		advance_timers(tick - 1);
		EXPECT_EQ(interrupts(), 0u);
		advance_timers(1);
		EXPECT_EQ(interrupts(), 1u);
		advance_timers(tick - 2);
		EXPECT_EQ(interrupts(), 0u);
		advance_timers(2);
		EXPECT_EQ(interrupts(), 1u);
		EXPECT_EQ(timers_set(), 1);
	}
}

TEST_F(PitTest, one_shot_modes)
{
	for (u8 mode : {0, 1, 4}) {
		load(mode, 11932);
		advance_timers(pit::ns_of(11932) - 1);
		EXPECT_EQ(interrupts(), 0u) << int{mode};
		advance_timers(1);
		EXPECT_EQ(interrupts(), 1u) << int{mode};
		EXPECT_EQ(timers_set(), 0);
		advance_timers(pit::second);
		EXPECT_EQ(interrupts(), 0u) << int{mode};
	}
	load(0, 0);
	advance_timers(pit::ns_of(0x10000) - 1);
	EXPECT_EQ(interrupts(), 0u);
	advance_timers(1);
	EXPECT_EQ(interrupts(), 1u) << "0 is 65,536";
	load(0, 1);
	advance_timers(838);
	EXPECT_EQ(interrupts(), 0u);
	advance_timers(1);
	EXPECT_EQ(interrupts(), 1u) << "as short as it may be";
}

TEST_F(PitTest, mode_without_interrupts)
{
	load(2, 11932);
	load(5, 11932);
	advance_timers(pit::second);
	EXPECT_EQ(interrupts(), 0u);
	EXPECT_EQ(timers_set(), 0);
}

/* A minute of Linux's HZ=1000, whose period is no whole number of nanoseconds. */
TEST_F(PitTest, no_time_is_lost)
{
	load(2, 1193);
	u64 taken = 0, end = 60 * pit::second;
	for (u64 at = 0; at < end; at += 10 * ms) {
		advance_timers(10 * ms);
		taken += interrupts();
	}
	EXPECT_EQ(taken, pit::ticks_in(end) / 1193);
	EXPECT_EQ(count(), 1193 - pit::ticks_in(end) % 1193) << "the counter says the same";
}

/* A count that is loaded begins at once; the control word alone changes nothing yet. */
TEST_F(PitTest, loaded_anew)
{
	load(2, 11932);
	advance_timers(9 * ms);
	out(0x43, word | 2 << 1);
	out(0x40, 0);
	advance_timers(2 * ms);
	EXPECT_EQ(interrupts(), 1u);
	out(0x40, 0x80);
	advance_timers(pit::ns_of(0x8000) - 1);
	EXPECT_EQ(interrupts(), 0u);
	advance_timers(1);
	EXPECT_EQ(interrupts(), 1u);
	/* To a later time. */
	load(0, 1000);
	advance_timers(pit::ns_of(1000) - 1);
	load(0, 2000);
	advance_timers(pit::ns_of(2000) - 1);
	EXPECT_EQ(interrupts(), 0u);
	advance_timers(1);
	EXPECT_EQ(interrupts(), 1u);
}

TEST_F(PitTest, storm_is_held_back)
{
	for (u16 count : {1, 2, 238}) {
		load(2, count);
		advance_timers(pit::second);
		/* Whatever is behind comes as it is acknowledged. */
		EXPECT_EQ(interrupts(), pit::ticks_in(pit::second) / 239) << count;
	}
	load(2, 239);
	advance_timers(pit::ns_of(239));
	EXPECT_EQ(interrupts(), 1u);
	load(2, 240);
	advance_timers(pit::ns_of(240) - 1);
	EXPECT_EQ(interrupts(), 0u);
}

TEST_F(PitTest, reinjection)
{
	load(2, 11932);
	advance_timers(5 * pit::ns_of(11932));
	ASSERT_TRUE(begin_interrupt());
	EXPECT_FALSE(begin_interrupt()) << "one at a time";
	end_interrupt();
	ASSERT_TRUE(begin_interrupt());
	/* The handler takes two ticks. */
	advance_timers(2 * pit::ns_of(11932));
	end_interrupt();
	EXPECT_EQ(interrupts(), 5u);
	EXPECT_FALSE(begin_interrupt()) << "seven in all";
	advance_timers(pit::ns_of(11932));
	EXPECT_EQ(interrupts(), 1u);
}

TEST_F(PitTest, reinjection_is_off)
{
	pit().set_reinject(false);
	load(2, 11932);
	advance_timers(5 * pit::ns_of(11932));
	EXPECT_EQ(interrupts(), 1u);
	advance_timers(pit::ns_of(11932));
	EXPECT_EQ(interrupts(), 1u);
	/* What was not made up for is not later either. */
	advance_timers(5 * pit::ns_of(11932));
	pit().set_reinject(true);
	EXPECT_EQ(interrupts(), 1u);
	advance_timers(5 * pit::ns_of(11932));
	pit().set_reinject(true);
	EXPECT_EQ(interrupts(), 5u) << "no change";
	advance_timers(5 * pit::ns_of(11932));
	pit().set_reinject(false);
	EXPECT_EQ(interrupts(), 1u);
}

TEST_F(PitTest, backlog_is_dropped_when_it_is_loaded)
{
	load(2, 11932);
	advance_timers(5 * pit::ns_of(11932));
	load(2, 11932);
	EXPECT_EQ(interrupts(), 1u) << "what the 8259 has";
}

/* While it is masked there is no backlog: what comes first has been kept by the 8259, as an edge. */
TEST_F(PitTest, masked)
{
	mask(true);
	load(2, 11932);
	advance_timers(pit::second);
	EXPECT_EQ(interrupts(), 0u);
	mask(false);
	EXPECT_EQ(interrupts(), 1u);
	advance_timers(pit::ns_of(11932));
	EXPECT_EQ(interrupts(), 1u);
}

/* An interrupt that nobody will acknowledge: the guest has dropped it where it was. */
TEST_F(PitTest, never_acknowledged)
{
	load(2, 11932);
	advance_timers(pit::ns_of(11932));
	out(0x20, 0x11); /* initialised anew, the request is gone */
	out(0x21, vector);
	out(0x21, 1 << 2);
	out(0x21, 1);
	mask(false);
	EXPECT_EQ(interrupts(), 0u);
	advance_timers(pit::ns_of(11932));
	EXPECT_EQ(interrupts(), 1u);
}

/* By more than a period: nothing is lost, and the next is where it would have been. */
TEST_F(PitTest, timer_that_comes_late)
{
	load(2, 11932);
	advance_timers_late(pit::ns_of(5 * 11932) + ms);
	EXPECT_EQ(interrupts(), 5u);
	advance_timers(pit::ns_of(11932) - ms - 5);
	EXPECT_EQ(interrupts(), 0u);
	advance_timers(5);
	EXPECT_EQ(interrupts(), 1u);
	load(0, 11932);
	advance_timers_late(pit::second);
	EXPECT_EQ(interrupts(), 1u);
}

TEST_F(PitTest, read_back)
{
	load(3, 11932);
	out(0x43, 0xc0 | 2 << 0); /* count and status of counter 0 */
	advance_timers(ms);
	EXPECT_EQ(in(0x40), 0xb6);
	EXPECT_EQ(count(), 11932);
	EXPECT_EQ(count(), 11932 - 2 * 1193);

	out(0x43, 0xb6); /* counter 2, mode 3 */
	out(0x42, 0x10);
	out(0x42, 0x20);
	out(0x43, 0x70);          /* counter 1, mode 0 */
	out(0x43, 0xd0 | 2 << 2); /* counter 2: count only */
	out(0x43, 0xe0 | 2 << 1); /* counter 1: status only */
	EXPECT_EQ(in(0x42), 0x10);
	EXPECT_EQ(in(0x42), 0x20);
	EXPECT_EQ(in(0x41), 0x30);
	out(0x43, latch | 2 << 6);
	advance_timers(ms);
	EXPECT_EQ(in(0x42), 0x10);
	EXPECT_EQ(in(0x42), 0x20);
	out(0x43, 0xc0); /* of none */
	EXPECT_EQ(in(0x43), 0);
	EXPECT_EQ(interrupts(), 0u);
}

TEST_F(PitTest, widths_and_addresses)
{
	auto access = [&](u64 port, u32 length, IoSpace space = IoSpace::port) {
		DeviceAccess access{.space = space, .address = port, .length = length};
		return pit().access(access);
	};
	for (u64 port = 0x3c; port < 0x48; port++)
		for (u32 length : {1u, 2u, 4u})
			EXPECT_EQ(access(port, length), port >= 0x40 && port + length <= 0x44)
				<< port << " " << length;
	EXPECT_FALSE(access(0x60, 2));
	EXPECT_TRUE(access(0x61, 4));
	EXPECT_FALSE(access(0x62, 1));
	EXPECT_FALSE(access(0x40, 1, IoSpace::mmio));
	/* The low byte alone. */
	load(0, 0x1234);
	DeviceAccess wide{
		.space = IoSpace::port, .address = 0x40, .length = 4, .data = {1, 2, 3, 4}};
	EXPECT_TRUE(pit().access(wide));
	EXPECT_EQ(wide.data[0], 0x34);
	EXPECT_EQ(wide.data[1] | wide.data[2] | wide.data[3], 0);
	wide.is_write = true;
	wide.data[0] = 0x78;
	wide.data[1] = 0x56;
	EXPECT_TRUE(pit().access(wide));
	EXPECT_EQ(pit().get().channels[0].count, 0x1234u);
	out(0x40, 0x56);
	EXPECT_EQ(pit().get().channels[0].count, 0x5678u);
}

/* As Linux measures its TSC by counter 2. */
TEST_F(PitTest, speaker_port)
{
	EXPECT_EQ(in(0x61) & 0x2f, 0);
	out(0x61, port_61_gate);
	out(0x43, 0xb0);
	out(0x42, 0x9c);
	out(0x42, 0x2e); /* 11,932 */
	EXPECT_EQ(in(0x61) & 0x2f, port_61_gate);
	advance_timers(pit::ns_of(11932) - 1);
	EXPECT_EQ(in(0x61) & port_61_output, 0u);
	advance_timers(1);
	EXPECT_EQ(in(0x61) & 0x2f, port_61_gate | port_61_output);
	out(0x61, 0xfe);
	EXPECT_EQ(in(0x61) & 0x0f, port_61_data);
	EXPECT_EQ(pit().get().flags, u32{KVM_PIT_FLAGS_SPEAKER_DATA_ON});
	out(0x61, 0);
	EXPECT_EQ(pit().get().flags, 0u);
	u8 before = in(0x61);
	advance_timers(1 << 14);
	EXPECT_EQ(in(0x61) ^ before, port_61_refresh);
	EXPECT_EQ(interrupts(), 0u);
}

TEST_F(PitTest, without_speaker)
{
	auto made = Irqchip::create(Irqchip::Mode::kernel, 0, vcpus, api);
	ASSERT_TRUE(made);
	Irqchip &other = **made;
	DeviceAccess access{.space = IoSpace::port, .address = 0x40, .length = 1};
	EXPECT_FALSE(other.access(access)) << "no PIT";
	EXPECT_EQ(other.pit(), nullptr);
	EXPECT_TRUE(other.create_pit(false));
	EXPECT_TRUE(other.access(access));
	access.address = 0x61;
	EXPECT_FALSE(other.access(access));
	Result<> again = other.create_pit(true);
	ASSERT_FALSE(again);
	EXPECT_EQ(again.error(), Errno::exist);
	EXPECT_FALSE(other.access(access));
}

TEST_F(PitTest, state)
{
	kvm_pit_state2 fresh = pit().get();
	for (unsigned i = 0; i < 3; i++) {
		EXPECT_EQ(fresh.channels[i].count, 0x10000u);
		EXPECT_EQ(fresh.channels[i].mode, 0xff);
		EXPECT_EQ(fresh.channels[i].gate, i != 2);
	}
	EXPECT_EQ(fresh.flags, 0u);
	for (u32 reserved : fresh.reserved)
		EXPECT_EQ(reserved, 0u);

	load(2, 11932);
	out(0x61, port_61_gate | port_61_data);
	advance_timers(5 * ms);
	kvm_pit_state2 state = pit().get();
	EXPECT_EQ(state.channels[0].mode, 2);
	EXPECT_EQ(state.channels[2].gate, 1);
	/* To a machine where time has gone on: it begins anew there, interrupts and all. */
	pit().set(fresh);
	EXPECT_EQ(in(0x61) & 3, 0);
	advance_timers(pit::second);
	EXPECT_EQ(interrupts(), 0u) << "no timer in what was fresh";
	pit().set(state);
	EXPECT_EQ(in(0x61) & 3, 3);
	EXPECT_EQ(count(), 11932);
	advance_timers(pit::ns_of(11932) - 1);
	EXPECT_EQ(interrupts(), 0u);
	advance_timers(1);
	EXPECT_EQ(interrupts(), 1u);
	for (unsigned i = 0; i < 3; i++)
		state.channels[i].count_load_time = pit().get().channels[i].count_load_time;
	state.channels[0].read_state = 3;
	kvm_pit_state2 back = pit().get();
	EXPECT_EQ(std::memcmp(&back, &state, sizeof(state)), 0);

	/* The older structure leaves the flags. */
	kvm_pit_state old{};
	std::memcpy(old.channels, state.channels, sizeof(old.channels));
	old.channels[0].count = 0;
	pit().set(old);
	EXPECT_EQ(pit().get().flags, state.flags);
	EXPECT_EQ(pit().get().channels[0].count, 0x10000u);
}

/* Any state of user space's: no interrupt is lost beyond it, and none comes too often. */
TEST_F(PitTest, any_state)
{
	for (unsigned byte = 0; byte < 256; byte++) {
		kvm_pit_state2 state;

		std::memset(&state, static_cast<int>(byte), sizeof(state));
		state.flags &= ~u32{KVM_PIT_FLAGS_HPET_LEGACY};
		pit().set(state);
		advance_timers(pit::second);
		EXPECT_LE(interrupts(), 5000u);
		for (u16 port = 0x40; port < 0x44; port++)
			(void)in(port);
		(void)in(0x61);
	}
	load(2, 11932);
	(void)interrupts();
	advance_timers(pit::ns_of(11932));
	EXPECT_EQ(interrupts(), 1u);
}

TEST_F(PitTest, hpet_in_legacy_mode)
{
	load(2, 11932);
	kvm_pit_state2 state = pit().get();
	state.flags = KVM_PIT_FLAGS_HPET_LEGACY;
	pit().set(state);
	EXPECT_EQ(pit().get().flags, u32{KVM_PIT_FLAGS_HPET_LEGACY});
	EXPECT_EQ(pit().get().channels[0].mode, 2);
	advance_timers(pit::second);
	EXPECT_EQ(interrupts(), 0u) << "the HPET's interrupts";
	load(3, 11932);
	advance_timers(pit::second);
	EXPECT_EQ(interrupts(), 0u);
	EXPECT_EQ(timers_set(), 0);
	state = pit().get();
	state.flags = 0;
	pit().set(state);
	advance_timers(pit::ns_of(11932));
	EXPECT_EQ(interrupts(), 1u);
}

/* Nothing is left of a VM that ends while its timer is set. */
TEST_F(PitTest, end_with_the_timer_set)
{
	load(2, 11932);
	EXPECT_EQ(timers_set(), 1);
	irqchip = {};
	EXPECT_EQ(timers_set(), 0);
	advance_timers(pit::second);
}

TEST_F(PitTest, out_of_memory)
{
	auto made = Irqchip::create(Irqchip::Mode::kernel, 0, vcpus, api);
	ASSERT_TRUE(made);
	fail_allocation_after(0);
	Result<> created = (*made)->create_pit(true);
	ASSERT_FALSE(created);
	EXPECT_EQ(created.error(), Errno::nomem);
	fail_allocation_after(~0u);
	EXPECT_TRUE((*made)->create_pit(true));
}

namespace
{

class PitIoctlTest : public ModuleTest
{
protected:
	PitIoctlTest() { vm = create_vm(); }
	~PitIoctlTest() override { close_fd(vm); }

	long create(u32 flags = 0)
	{
		kvm_pit_config config{};
		config.flags = flags;
		return vm_ioctl(vm, KVM_CREATE_PIT2, config);
	}
	long create_irqchip() { return vm_ioctl(vm, KVM_CREATE_IRQCHIP, 0ul); }

	static constexpr unsigned long nowhere = 0x7f0000000000;
	int vm;
};

} // namespace

TEST_F(PitIoctlTest, errnos)
{
	kvm_pit_state old{};
	kvm_pit_state2 state{};
	kvm_reinject_control control{};

	EXPECT_EQ(create(), -ENOENT) << "no interrupt controllers";
	EXPECT_EQ(vm_ioctl(vm, KVM_CREATE_PIT, 0ul), -ENOENT);
	for (int round = 0; round < 2; round++) {
		EXPECT_EQ(vm_ioctl(vm, KVM_GET_PIT, old), -ENXIO);
		EXPECT_EQ(vm_ioctl(vm, KVM_SET_PIT, old), -ENXIO);
		EXPECT_EQ(vm_ioctl(vm, KVM_GET_PIT2, state), -ENXIO);
		EXPECT_EQ(vm_ioctl(vm, KVM_SET_PIT2, state), -ENXIO);
		EXPECT_EQ(vm_ioctl(vm, KVM_REINJECT_CONTROL, control), -ENXIO);
		EXPECT_EQ(vm_ioctl(vm, KVM_GET_PIT, nowhere), -EFAULT);
		EXPECT_EQ(vm_ioctl(vm, KVM_GET_PIT2, nowhere), -ENXIO);
		EXPECT_EQ(create_irqchip(), round == 0 ? 0 : -EEXIST);
	}
	EXPECT_EQ(vm_ioctl(vm, KVM_CREATE_PIT2, nowhere), -EFAULT);
	EXPECT_EQ(create(), 0);
	EXPECT_EQ(create(), -EEXIST);
	EXPECT_EQ(vm_ioctl(vm, KVM_CREATE_PIT, 0ul), -EEXIST);
	for (unsigned command :
	     {static_cast<unsigned>(KVM_CREATE_PIT2), static_cast<unsigned>(KVM_GET_PIT),
	      static_cast<unsigned>(KVM_SET_PIT), static_cast<unsigned>(KVM_GET_PIT2),
	      static_cast<unsigned>(KVM_SET_PIT2), static_cast<unsigned>(KVM_REINJECT_CONTROL)})
		EXPECT_EQ(vm_ioctl(vm, command, nowhere), -EFAULT) << command;
	EXPECT_EQ(vm_ioctl(vm, KVM_GET_PIT2, state), 0);
	state.channels[0].mode = 2;
	state.channels[0].count = 1000;
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_PIT2, state), 0);
	EXPECT_EQ(vm_ioctl(vm, KVM_GET_PIT, old), 0);
	EXPECT_EQ(old.channels[0].count, 1000u);
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_PIT, old), 0);
	EXPECT_EQ(vm_ioctl(vm, KVM_REINJECT_CONTROL, control), 0);
	/* And the VM ends with the timer set. */
	EXPECT_EQ(timers_set(), 1);
}

TEST_F(PitIoctlTest, old_ioctl_has_the_speaker)
{
	DeviceAccess access{.space = IoSpace::port, .address = 0x61, .length = 1};
	Vm &object = *static_cast<Vm *>(object_of(vm));

	EXPECT_EQ(create_irqchip(), 0);
	EXPECT_EQ(vm_ioctl(vm, KVM_CREATE_PIT, 0ul), 0);
	EXPECT_TRUE(object.irqchip()->access(access));
	int other = create_vm();
	EXPECT_EQ(vm_ioctl(other, KVM_CREATE_IRQCHIP, 0ul), 0);
	kvm_pit_config config{};
	EXPECT_EQ(vm_ioctl(other, KVM_CREATE_PIT2, config), 0);
	EXPECT_FALSE(static_cast<Vm *>(object_of(other))->irqchip()->access(access));
	close_fd(other);
}
