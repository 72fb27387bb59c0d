// SPDX-License-Identifier: GPL-2.0
//
// The KVM ABI as small classes. What a test does not expect to fail ends the test with a message;
// what it wants to see fail it does with Fd::call(), which returns the errno.
#pragma once

#include "layout.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <linux/kvm.h>
#include <span>
#include <utility>

class Fd
{
public:
	explicit Fd(int fd = -1) : fd_(fd) {}
	Fd(Fd &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
	Fd &operator=(Fd &&other) noexcept;
	~Fd() { close(); }

	int get() const { return fd_; }
	void close();

	// The ioctl's result, or -errno.
	long call(unsigned long request, unsigned long argument = 0) const;
	long call(unsigned long request, const void *argument) const
	{
		return call(request, reinterpret_cast<unsigned long>(argument));
	}

private:
	int fd_;
};

// The ioctl as a 32-bit program has it, and as any program may ask for it: result or -errno.
long call_as_32_bits(int fd, unsigned long request, unsigned long argument);

// An anonymous private mapping.
class Memory
{
public:
	explicit Memory(size_t size);
	Memory(Memory &&other) noexcept;
	Memory(const Memory &) = delete;
	Memory &operator=(const Memory &) = delete;
	~Memory();

	std::byte *data() const { return data_; }
	size_t size() const { return size_; }

	template <typename T> T &at(size_t offset) const
	{
		return *reinterpret_cast<T *>(data_ + offset);
	}

private:
	std::byte *data_;
	size_t size_;
};

class Device
{
public:
	Device();

	// The node the tests run on: $KVM_DEVICE, or /dev/kvmpp.
	static const char *path();
	// Stock KVM is the oracle; where kvmpp differs by design a test asks.
	static bool is_kvmpp();

	const Fd &fd() const { return fd_; }
	long check_extension(unsigned long capability) const;
	size_t run_size() const { return run_size_; }

private:
	Fd fd_;
	size_t run_size_;
};

// Local APICs in the kernel, or all interrupt controllers.
enum class Irqchip { none, split, kernel };

class Vm
{
public:
	explicit Vm(const Device &device, Irqchip irqchip = Irqchip::none);

	Fd &fd() { return fd_; }
	const Fd &fd() const { return fd_; }
	const Device &device() const { return device_; }

	// Returns -errno.
	long try_set_memory(uint32_t slot, uint64_t gpa, uint64_t size, const void *userspace,
			    uint32_t flags = 0) const;
	void set_memory(uint32_t slot, uint64_t gpa, uint64_t size, const void *userspace,
			uint32_t flags = 0) const;

private:
	const Device &device_;
	Fd fd_;
};

class Vcpu
{
public:
	explicit Vcpu(const Vm &vm, unsigned long id = 0);
	Vcpu(const Vcpu &) = delete;
	Vcpu &operator=(const Vcpu &) = delete;
	~Vcpu();

	const Fd &fd() const { return fd_; }
	Fd &fd() { return fd_; }
	kvm_run &state() { return *run_; }

	// The host's CPUID, by which it is judged what the guest may write to CR4, EFER and XCR0; the
	// hypervisor bit is what QEMU adds, too. A new vCPU of this class has it, with x2APIC: KVM supports
	// that mode always, kvmpp for who means the vCPU to have the APIC of a CPU of its own, which QEMU
	// without an APIC in the kernel does not. Before the vCPU has run.
	void offer_host_cpuid(const Device &device, bool x2apic, bool tsc_deadline = false) const;

	kvm_regs regs() const;
	void set_regs(const kvm_regs &regs) const;
	kvm_sregs sregs() const;
	void set_sregs(const kvm_sregs &sregs) const;
	long try_set_sregs(const kvm_sregs &sregs) const;

	// Returns 0 or -errno.
	long try_run() const { return fd_.call(KVM_RUN); }
	// Runs to an exit, which must be the wanted one.
	void run_until(uint32_t exit_reason);
	// Runs to a port write of the wanted size and returns the value.
	uint32_t run_until_out(uint16_t port, unsigned size);

	// Flat segments, all other registers at rest. The modes with paging find their tables at
	// GUEST_TABLES, the GDT, IDT and TSS where layout.h says: see Machine.
	void enter_real(uint64_t rip) const;
	void enter_protected(uint64_t rip) const;
	void enter_long(uint64_t rip) const;

private:
	uint32_t id_;
	Fd fd_;
	kvm_run *run_;
	size_t run_size_;
};

// What most tests want: a VM with one vCPU, 640 KiB of memory, a guest's image in it.
class Machine
{
public:
	explicit Machine(std::span<const std::byte> image, size_t memory_size = GUEST_MEMORY,
			 Irqchip irqchip = Irqchip::none);

	template <typename T> T &at(size_t gpa) const { return memory.at<T>(gpa); }
	uint64_t &result(unsigned index) const { return at<uint64_t>(GUEST_RESULTS + 8 * index); }

	// Descriptor tables, a TSS, and page tables that map the low 4 GiB one to one.
	void prepare_long() const;
	void prepare_protected() const;
	// A gate of the interrupt descriptor table, for the mode last prepared.
	void set_gate64(unsigned vector, uint64_t handler, unsigned dpl = 0) const;
	void set_gate32(unsigned vector, uint32_t handler, unsigned dpl = 0) const;

	Device device;
	Vm vm;
	Memory memory;
	Vcpu vcpu;

private:
	void write_descriptor_tables() const;
};

// Writes page tables that map the low 4 GiB one to one, user-accessible, to the table area of the
// memory, which begins at guest address 0.
void write_long_tables(const Memory &memory);

const char *exit_name(uint32_t exit_reason);
