// SPDX-License-Identifier: GPL-2.0
//
// KVM_IOEVENTFD and coalesced MMIO: writes that end in the kernel, and what the VMM finds of them; KVM_IRQFD: what
// the VMM writes to an eventfd, and a guest's interrupt controllers find of that.

#include "expect.hpp"
#include "guests.hpp"
#include "ktap.hpp"
#include "writes.hpp"

#include <cerrno>
#include <csignal>
#include <ctime>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;

constexpr uint32_t pio = KVM_IOEVENTFD_FLAG_PIO;
constexpr uint32_t match = KVM_IOEVENTFD_FLAG_DATAMATCH;
constexpr uint32_t deassign = KVM_IOEVENTFD_FLAG_DEASSIGN;

class EventFd
{
public:
	EventFd() : fd_(eventfd(0, EFD_NONBLOCK)) { that("eventfd", fd_.get() >= 0); }

	int get() const { return fd_.get(); }
	void close() { fd_.close(); }
	void signal() const
	{
		const uint64_t one = 1;
		equal("write", write(fd_.get(), &one, sizeof(one)), 8);
	}
	// How often it was signalled since the last time.
	uint64_t take() const
	{
		uint64_t count = 0;
		return read(fd_.get(), &count, sizeof(count)) == sizeof(count) ? count : 0;
	}

private:
	Fd fd_;
};

// To C++ the header's flexible array is not where C has it.
struct Ring {
	uint32_t first, last;
	kvm_coalesced_mmio entry[170];
};

// guest/writes.S: RCX times a double word RAX to (RBX), or to port DX, then HLT.
struct WritingMachine : Machine {
	WritingMachine() : Machine(guest::writes::image())
	{
		prepare_long();
		vcpu.enter_long(0);
	}

	void set(uint64_t entry, uint64_t where, uint64_t value, uint64_t times = 1)
	{
		kvm_regs regs = vcpu.regs();
		regs.rip = entry;
		regs.rbx = regs.rdx = where;
		regs.rax = value;
		regs.rcx = times;
		vcpu.set_regs(regs);
	}
	// Whether the VMM had to see it.
	bool store_is_seen(uint64_t where, uint64_t value)
	{
		set(guest::writes::store, where, value);
		return is_seen(KVM_EXIT_MMIO);
	}
	bool out_is_seen(uint64_t port, uint64_t value)
	{
		set(guest::writes::out, port, value);
		return is_seen(KVM_EXIT_IO);
	}
	long ioeventfd(int fd, uint64_t address, uint32_t length, uint32_t flags = 0,
		       uint64_t data = 0) const
	{
		kvm_ioeventfd request{};
		request.datamatch = data;
		request.addr = address;
		request.len = length;
		request.fd = fd;
		request.flags = flags;
		return vm.fd().call(KVM_IOEVENTFD, &request);
	}
	long zone(unsigned long request, uint64_t address, uint32_t size, uint32_t is_pio = 0) const
	{
		kvm_coalesced_mmio_zone zone{};
		zone.addr = address;
		zone.size = size;
		zone.pio = is_pio;
		return vm.fd().call(request, &zone);
	}
	long coalesce(uint64_t address, uint32_t size, uint32_t is_pio = 0) const
	{
		return zone(KVM_REGISTER_COALESCED_MMIO, address, size, is_pio);
	}
	long uncoalesce(uint64_t address, uint32_t size, uint32_t is_pio = 0) const
	{
		return zone(KVM_UNREGISTER_COALESCED_MMIO, address, size, is_pio);
	}
	Ring &ring()
	{
		const long page = device.check_extension(KVM_CAP_COALESCED_MMIO);
		that("the ring is in the mapping",
		     page > 0 && static_cast<size_t>(page + 1) * 0x1000 <= device.run_size());
		return *reinterpret_cast<Ring *>(reinterpret_cast<std::byte *>(&vcpu.state()) +
						 page * 0x1000);
	}

private:
	bool is_seen(uint32_t reason)
	{
		equal("KVM_RUN", vcpu.try_run(), 0);
		if (vcpu.state().exit_reason == KVM_EXIT_HLT)
			return false;
		equal("exit", vcpu.state().exit_reason, reason);
		vcpu.run_until(KVM_EXIT_HLT);
		return true;
	}
};

void capabilities()
{
	Device device;
	equal("IOEVENTFD", device.check_extension(KVM_CAP_IOEVENTFD), 1);
	equal("IOEVENTFD_NO_LENGTH", device.check_extension(KVM_CAP_IOEVENTFD_NO_LENGTH), 1);
	equal("IOEVENTFD_ANY_LENGTH", device.check_extension(KVM_CAP_IOEVENTFD_ANY_LENGTH), 1);
	equal("COALESCED_MMIO", device.check_extension(KVM_CAP_COALESCED_MMIO), 2);
	equal("COALESCED_PIO", device.check_extension(KVM_CAP_COALESCED_PIO), 1);
	equal("the vCPU's mapping", device.run_size(), 0x3000);
}

void arguments()
{
	WritingMachine machine;
	EventFd event;
	const int fd = event.get();
	constexpr uint64_t at = GUEST_MMIO;
	equal("EFAULT", machine.vm.fd().call(KVM_IOEVENTFD, 1ul), -EFAULT);
	for (const uint32_t length : {3u, 5u, 16u, ~0u})
		equal("length", machine.ioeventfd(fd, at, length), -EINVAL);
	equal("overflow", machine.ioeventfd(fd, ~0ul - 2, 4), -EINVAL);
	equal("data of no length", machine.ioeventfd(fd, at, 0, match), -EINVAL);
	equal("flags", machine.ioeventfd(fd, at, 4, 1 << 5), -EINVAL);
	equal("no descriptor", machine.ioeventfd(-1, at, 4), -EBADF);
	equal("no eventfd", machine.ioeventfd(machine.vm.fd().get(), at, 4), -EINVAL);
	equal("no descriptor", machine.ioeventfd(-1, at, 4, deassign), -EBADF);
	equal("not there", machine.ioeventfd(fd, at, 4, deassign), -ENOENT);
	equal("not there, length", machine.ioeventfd(fd, at, 3, deassign), -ENOENT);
	// KVM takes it on x86, where nothing ever notifies.
	if (Device::is_kvmpp())
		equal("virtio-ccw",
		      machine.ioeventfd(fd, at, 4, KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY), -EINVAL);

	equal("assign", machine.ioeventfd(fd, at, 4, match, 1), 0);
	equal("again", machine.ioeventfd(fd, at, 4, match, 1), -EEXIST);
	equal("any data", machine.ioeventfd(fd, at, 4), -EEXIST);
	equal("any length", machine.ioeventfd(fd, at, 0), -EEXIST);
	equal("other data", machine.ioeventfd(fd, at, 4, match, 2), 0);
	equal("other length", machine.ioeventfd(fd, at, 2), 0);
	equal("port", machine.ioeventfd(fd, at & 0xffff, 4, pio | match, 1), 0);
	equal("data differs", machine.ioeventfd(fd, at, 4, deassign | match, 3), -ENOENT);
	equal("data or none", machine.ioeventfd(fd, at, 4, deassign), -ENOENT);
	equal("out", machine.ioeventfd(fd, at, 4, deassign | match, 1), 0);
	equal("out again", machine.ioeventfd(fd, at, 4, deassign | match, 1), -ENOENT);

	equal("zone of what", machine.coalesce(at, 4, 2), -EINVAL);
	equal("zone of what", machine.uncoalesce(at, 4, 2), -EINVAL);
	equal("no zone", machine.uncoalesce(at, 4), 0);
	equal("EFAULT", machine.vm.fd().call(KVM_REGISTER_COALESCED_MMIO, 1ul), -EFAULT);
}

void of_memory()
{
	WritingMachine machine;
	EventFd one, two, any;
	constexpr uint64_t at = GUEST_MMIO;
	equal("assign", machine.ioeventfd(one.get(), at, 4, match, 0x11111111), 0);
	equal("assign", machine.ioeventfd(two.get(), at, 4, match, 0x22222222), 0);
	equal("assign", machine.ioeventfd(any.get(), at + 4, 0), 0);
	that("one", !machine.store_is_seen(at, 0x11111111));
	that("two", !machine.store_is_seen(at, 0x22222222));
	that("three", machine.store_is_seen(at, 0x33333333));
	that("elsewhere", machine.store_is_seen(at + 1, 0x11111111));
	that("any", !machine.store_is_seen(at + 4, 0x12345678));
	equal("one", one.take(), 1u);
	equal("two", two.take(), 1u);
	equal("any", any.take(), 1u);
	machine.set(guest::writes::store, at + 4, 1, 100);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("a hundred", any.take(), 100u);
	equal("out", machine.ioeventfd(any.get(), at + 4, 0, deassign), 0);
	that("no more", machine.store_is_seen(at + 4, 1));
	equal("any", any.take(), 0u);
}

void of_ports()
{
	WritingMachine machine;
	EventFd event, other;
	equal("assign", machine.ioeventfd(event.get(), 0x510, 4, pio), 0);
	equal("assign", machine.ioeventfd(other.get(), 0x520, 2, pio), 0);
	that("taken", !machine.out_is_seen(0x510, 0xabcdef01));
	that("another length", machine.out_is_seen(0x520, 1));
	that("another port", machine.out_is_seen(0x511, 1));
	that("memory", machine.store_is_seen(GUEST_MMIO + 0x510, 1));
	equal("event", event.take(), 1u);
	equal("other", other.take(), 0u);
	machine.set(guest::writes::out, 0x510, 1, 100);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("a hundred", event.take(), 100u);
}

void outlives_the_descriptor()
{
	WritingMachine machine;
	EventFd event;
	Fd copy(dup(event.get()));
	equal("assign", machine.ioeventfd(event.get(), GUEST_MMIO, 4), 0);
	event.close();
	that("taken", !machine.store_is_seen(GUEST_MMIO, 1));
	uint64_t count = 0;
	equal("read", read(copy.get(), &count, sizeof(count)), 8);
	equal("signals", count, 1u);
	copy.close();
	that("taken still", !machine.store_is_seen(GUEST_MMIO, 1));
}

void ring_of_memory()
{
	WritingMachine machine;
	Ring &ring = machine.ring();
	constexpr uint64_t at = GUEST_MMIO;
	equal("zone", machine.coalesce(at, 0x10), 0);
	that("in it", !machine.store_is_seen(at, 0x12345678));
	that("at its end", !machine.store_is_seen(at + 0xc, 0x9abcdef0));
	that("over its end", machine.store_is_seen(at + 0xd, 1));
	equal("first", ring.first, 0u);
	equal("last", ring.last, 2u);
	equal("address", ring.entry[0].phys_addr, at);
	equal("length", ring.entry[0].len, 4u);
	equal("pio", ring.entry[0].pio, 0u);
	uint32_t data;
	std::memcpy(&data, ring.entry[0].data, 4);
	equal("data", data, 0x12345678u);
	equal("address", ring.entry[1].phys_addr, at + 0xc);
	equal("out", machine.uncoalesce(at + 4, 4), 0);
	that("no more", machine.store_is_seen(at, 1));
}

void ring_of_ports()
{
	WritingMachine machine;
	Ring &ring = machine.ring();
	equal("zone", machine.coalesce(0x70, 4, 1), 0);
	that("in it", !machine.out_is_seen(0x70, 0x12345678));
	that("elsewhere", machine.out_is_seen(0x71, 1));
	equal("last", ring.last, 1u);
	equal("address", ring.entry[0].phys_addr, 0x70u);
	equal("pio", ring.entry[0].pio, 1u);
}

void ring_is_full()
{
	WritingMachine machine;
	Ring &ring = machine.ring();
	equal("zone", machine.coalesce(GUEST_MMIO, 0x10), 0);
	// KVM of 6.1 has a fault where it is full at the array's end: not there.
	ring.first = 20;
	ring.last = 10;
	machine.set(guest::writes::store, GUEST_MMIO, 7, 100);
	unsigned seen = 0;
	for (;;) {
		equal("KVM_RUN", machine.vcpu.try_run(), 0);
		if (machine.vcpu.state().exit_reason == KVM_EXIT_HLT)
			break;
		equal("exit", machine.vcpu.state().exit_reason, KVM_EXIT_MMIO);
		seen++;
	}
	equal("beyond the room for 9", seen, 91u);
	equal("last", ring.last, 19u);
}

void ring_that_is_spoilt()
{
	WritingMachine machine;
	Ring &ring = machine.ring();
	equal("zone", machine.coalesce(GUEST_MMIO, 0x10), 0);
	for (const uint32_t last : {170u, 0x10000u, ~0u}) {
		ring.last = last;
		that("seen", machine.store_is_seen(GUEST_MMIO, 1));
		equal("last", ring.last, last);
	}
}

void ring_of_two_vcpus()
{
	WritingMachine machine;
	Vcpu second(machine.vm, 1);
	Ring &ring = machine.ring();
	auto *other = reinterpret_cast<Ring *>(reinterpret_cast<std::byte *>(&second.state()) +
					       2 * 0x1000);
	equal("zone", machine.coalesce(GUEST_MMIO, 0x10), 0);
	that("in it", !machine.store_is_seen(GUEST_MMIO, 1));
	equal("last, as both have it", other->last, 1u);
	equal("last", ring.last, 1u);
}

constexpr uint32_t resample = KVM_IRQFD_FLAG_RESAMPLE, deassign_irq = KVM_IRQFD_FLAG_DEASSIGN;

long irqfd(const Vm &vm, int fd, uint32_t gsi, uint32_t flags = 0, int resample_fd = 0)
{
	kvm_irqfd request{};
	request.fd = static_cast<uint32_t>(fd);
	request.gsi = gsi;
	request.flags = flags;
	request.resamplefd = static_cast<uint32_t>(resample_fd);
	return vm.fd().call(KVM_IRQFD, &request);
}

kvm_irqchip irqchip_state(const Vm &vm, uint32_t id)
{
	kvm_irqchip chip{};
	chip.chip_id = id;
	equal("KVM_GET_IRQCHIP", vm.fd().call(KVM_GET_IRQCHIP, &chip), 0);
	return chip;
}

// The edges that the first 8259 has latched.
unsigned edges(const Vm &vm)
{
	return irqchip_state(vm, KVM_IRQCHIP_PIC_MASTER).chip.pic.irr;
}

// The I/O APIC's pins that are up: none of them is set to send anything.
unsigned lines(const Vm &vm)
{
	return irqchip_state(vm, KVM_IRQCHIP_IOAPIC).chip.ioapic.irr;
}

// KVM leaves some of it to a work queue.
template <class Condition> void soon(const char *what, Condition condition)
{
	const timespec millisecond = {.tv_sec = 0, .tv_nsec = 1'000'000};
	for (unsigned i = 0; i < 5000 && !condition(); i++)
		nanosleep(&millisecond, nullptr);
	that(what, condition());
}

// An edge comes to one pin, whose line is then down, and is forgotten.
void expect_edge(const Vm &vm, unsigned pin)
{
	kvm_irqchip chip;
	soon("an edge", [&] {
		chip = irqchip_state(vm, KVM_IRQCHIP_PIC_MASTER);
		return chip.chip.pic.irr == 1 << pin && chip.chip.pic.last_irr == 0;
	});
	chip.chip.pic.irr = 0;
	equal("KVM_SET_IRQCHIP", vm.fd().call(KVM_SET_IRQCHIP, &chip), 0);
}

void irqfd_arguments()
{
	Device device;
	Vm vm(device, Irqchip::kernel), none(device);
	EventFd event, other, resampled;
	const int fd = event.get(), again = resampled.get();
	equal("IRQFD", device.check_extension(KVM_CAP_IRQFD), 1);
	equal("IRQFD_RESAMPLE", device.check_extension(KVM_CAP_IRQFD_RESAMPLE), 1);
	equal("EFAULT", vm.fd().call(KVM_IRQFD, 1ul), -EFAULT);
	equal("flags", irqfd(vm, fd, 5, 1 << 2), -EINVAL);
	equal("no irqchip", irqfd(none, fd, 5), -EINVAL);
	equal("no irqchip, no descriptor", irqfd(none, -1, 5), -EINVAL);
	equal("no irqchip, and out", irqfd(none, fd, 5, deassign_irq), 0);
	for (const uint32_t flags : {0u, resample, deassign_irq}) {
		equal("no descriptor", irqfd(vm, -1, 5, flags, again), -EBADF);
		equal("no eventfd", irqfd(vm, vm.fd().get(), 5, flags, again), -EINVAL);
	}
	equal("no descriptor to tell", irqfd(vm, fd, 5, resample, -1), -EBADF);
	equal("no eventfd to tell", irqfd(vm, fd, 5, resample, vm.fd().get()), -EINVAL);
	equal("not there", irqfd(vm, fd, 5, deassign_irq), 0);
	equal("assign", irqfd(vm, fd, 5), 0);
	equal("again", irqfd(vm, fd, 5), -EBUSY);
	equal("for another GSI", irqfd(vm, fd, 6), -EBUSY);
	equal("the other way", irqfd(vm, fd, 6, resample, again), -EBUSY);
	equal("another of the GSI", irqfd(vm, other.get(), 5), 0);
	equal("no such GSI", irqfd(vm, again, ~0u), 0);
	resampled.signal();
	equal("edges", edges(vm), 0u);
}

void irqfd_without_ioapic()
{
	Device device;
	Vm vm(device);
	EventFd event, resampled;
	kvm_enable_cap cap{};
	cap.cap = KVM_CAP_SPLIT_IRQCHIP;
	cap.args[0] = 24;
	equal("split", vm.fd().call(KVM_ENABLE_CAP, &cap), 0);
	equal("resample", irqfd(vm, event.get(), 5, resample, resampled.get()), -EINVAL);
	equal("assign", irqfd(vm, event.get(), 5), 0);
	event.signal();
}

void irqfd_of_edges()
{
	Device device;
	Vm vm(device, Irqchip::kernel);
	EventFd event, early;
	equal("assign", irqfd(vm, event.get(), 5), 0);
	equal("none yet", edges(vm), 0u);
	for (unsigned i = 0; i < 3; i++) {
		event.signal();
		expect_edge(vm, 5);
	}
	soon("the line is down", [&] { return lines(vm) == 0; });
	equal("nobody else sees it", event.take(), 0u);
	early.signal();
	equal("assign", irqfd(vm, early.get(), 6), 0);
	expect_edge(vm, 6); // of before
	equal("out", irqfd(vm, event.get(), 5, deassign_irq), 0);
	event.signal();
	equal("as any other", event.take(), 1u);
	equal("no more", edges(vm), 0u);
	equal("in", irqfd(vm, event.get(), 7), 0);
	event.signal();
	expect_edge(vm, 7);
}

void irqfd_of_a_line()
{
	// The I/O APIC's pins are masked, and the first 8259 is told of ends by a guest.
	Machine machine(guest::writes::image(), GUEST_MEMORY, Irqchip::kernel);
	const Vm &vm = machine.vm;
	EventFd event, other, resampled, also;
	equal("assign", irqfd(vm, event.get(), 5, resample, resampled.get()), 0);
	equal("assign", irqfd(vm, other.get(), 5, resample, also.get()), 0);
	event.signal();
	soon("up", [&] { return lines(vm) == 1 << 5; });
	other.signal();
	machine.prepare_long();
	for (unsigned i = 0; i < 3; i++) {
		machine.vcpu.enter_long(guest::writes::out_byte);
		kvm_regs regs = machine.vcpu.regs();
		regs.rdx = 0x20;
		regs.rax = 0x65; // the end of 5
		machine.vcpu.set_regs(regs);
		machine.vcpu.run_until_out(0x80, 1);
		equal("down", lines(vm), 0u);
		equal("resampled", resampled.take(), 1u);
		equal("each is told", also.take(), 1u);
		event.signal();
		soon("up", [&] { return lines(vm) == 1 << 5; });
	}
	equal("out", irqfd(vm, event.get(), 5, deassign_irq), 0);
	equal("held", lines(vm), 1u << 5);
	equal("out", irqfd(vm, other.get(), 5, deassign_irq), 0);
	equal("the last one lowers it", lines(vm), 0u);
}

void irqfd_ends_with_its_eventfd()
{
	Device device;
	Vm vm(device, Irqchip::kernel);
	for (unsigned i = 0; i < 100; i++) {
		EventFd event, resampled;
		equal("assign", irqfd(vm, event.get(), 5, i % 2 ? resample : 0, resampled.get()),
		      0);
		event.signal();
	}
	soon("the line is down", [&] { return lines(vm) == 0; });
}

// An eventfd is signalled while it is assigned and taken out; then the VMM dies in the middle of that.
void irqfd_killed()
{
	for (unsigned i = 0; i < 10; i++) {
		EventFd event, resampled;
		const pid_t child = fork();
		that("fork", child >= 0);
		if (child == 0) {
			Device device;
			Vm vm(device, Irqchip::kernel);
			std::thread([&] {
				for (;;)
					event.signal();
			}).detach();
			for (unsigned n = 0;; n++) {
				const uint32_t flags = n % 2 ? resample : 0;
				equal("in", irqfd(vm, event.get(), 5, flags, resampled.get()), 0);
				equal("out", irqfd(vm, event.get(), 5, deassign_irq), 0);
			}
		}
		const timespec later = {.tv_sec = 0, .tv_nsec = 20'000'000 + i * 1'700'000};
		nanosleep(&later, nullptr);
		equal("kill", kill(child, SIGKILL), 0);
		int status = 0;
		equal("wait", waitpid(child, &status, 0), child);
		that("killed", WIFSIGNALED(status));
		(void)event.take();
		event.signal();
		equal("nobody takes it any more", event.take(), 1u);
	}
}

constexpr ktap::Case cases[] = {
	{"capabilities", capabilities},
	{"arguments", arguments},
	{"of_memory", of_memory},
	{"of_ports", of_ports},
	{"outlives_the_descriptor", outlives_the_descriptor},
	{"ring_of_memory", ring_of_memory},
	{"ring_of_ports", ring_of_ports},
	{"ring_is_full", ring_is_full},
	{"ring_that_is_spoilt", ring_that_is_spoilt},
	{"ring_of_two_vcpus", ring_of_two_vcpus},
	{"irqfd_arguments", irqfd_arguments},
	{"irqfd_without_ioapic", irqfd_without_ioapic},
	{"irqfd_of_edges", irqfd_of_edges},
	{"irqfd_of_a_line", irqfd_of_a_line},
	{"irqfd_ends_with_its_eventfd", irqfd_ends_with_its_eventfd},
	{"irqfd_killed", irqfd_killed},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
