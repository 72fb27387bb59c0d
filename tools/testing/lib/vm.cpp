// SPDX-License-Identifier: GPL-2.0
#include "vm.hpp"

#include "expect.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace
{

constexpr uint64_t cr0_pe = 1 << 0;
constexpr uint64_t cr0_mp = 1 << 1;
constexpr uint64_t cr0_et = 1 << 4;
constexpr uint64_t cr0_ne = 1 << 5;
constexpr uint64_t cr0_pg = 1ul << 31;
constexpr uint64_t cr4_pae = 1 << 5;
constexpr uint64_t cr4_osfxsr = 1 << 9;
constexpr uint64_t cr4_osxmmexcpt = 1 << 10;
constexpr uint64_t efer_sce = 1 << 0;
constexpr uint64_t efer_lme = 1 << 8;
constexpr uint64_t efer_lma = 1 << 10;

// Present, writable, user, accessed, dirty; and the page-size bit.
constexpr uint64_t pte_rwu = 0x67;
constexpr uint64_t pte_large = 0x80;

constexpr std::array<uint64_t, GDT_ENTRIES> gdt = {
	0,
	0x00af9b000000ffff,                             // SEL_CODE64
	0x00cf93000000ffff,                             // SEL_DATA
	0x00cffb000000ffff,                             // SEL_UCODE32
	0x00cff3000000ffff,                             // SEL_UDATA
	0x00affb000000ffff,                             // SEL_UCODE64
	0x00cff3000000ffff,                             // SEL_UDATA_
	0x00cf9b000000ffff,                             // SEL_CODE32
	0x00008b0000000067 | uint64_t{GUEST_TSS} << 16, // SEL_TSS
	0,                                              // its upper half
	0x00009b000000ffff,                             // SEL_CODE16
	0x000093000000ffff,                             // SEL_DATA16
	0x00cf13000000ffff,                             // SEL_NOTPRESENT
};

kvm_segment segment_of(uint16_t selector)
{
	const uint64_t entry = gdt[selector / 8];
	kvm_segment segment{};
	segment.selector = selector;
	segment.base = (entry >> 16 & 0xffffff) | (entry >> 56 << 24);
	segment.g = entry >> 55 & 1;
	segment.limit = (entry & 0xffff) | (entry >> 32 & 0xf0000);
	if (segment.g)
		segment.limit = segment.limit << 12 | 0xfff;
	segment.type = entry >> 40 & 0xf;
	segment.s = entry >> 44 & 1;
	segment.dpl = entry >> 45 & 3;
	segment.present = entry >> 47 & 1;
	segment.avl = entry >> 52 & 1;
	segment.l = entry >> 53 & 1;
	segment.db = entry >> 54 & 1;
	return segment;
}

void set_flat(kvm_sregs &sregs, uint16_t code)
{
	sregs.cs = segment_of(code);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment_of(SEL_DATA);
	sregs.tr = segment_of(SEL_TSS);
	sregs.gdt = {GUEST_GDT, GDT_ENTRIES * 8 - 1, {}};
	sregs.idt = {GUEST_IDT, 0xfff, {}};
}

// Not <linux/kvm.h>'s kvm_cpuid2: its flexible array comes with an empty struct, which has a size
// in C++, so that the header's ioctl numbers and offsets are wrong here.
struct CpuidTable {
	static constexpr unsigned long get_supported = _IOWR(KVMIO, 0x05, uint64_t);
	static constexpr unsigned long set = _IOW(KVMIO, 0x90, uint64_t);

	uint32_t count = 256, padding = 0;
	kvm_cpuid_entry2 entries[256] = {};
};

} // namespace

Fd &Fd::operator=(Fd &&other) noexcept
{
	close();
	fd_ = std::exchange(other.fd_, -1);
	return *this;
}

void Fd::close()
{
	if (fd_ >= 0)
		::close(fd_);
	fd_ = -1;
}

long Fd::call(unsigned long request, unsigned long argument) const
{
	const long result = ioctl(fd_, request, argument);
	return result < 0 ? -errno : result;
}

long call_as_32_bits(int fd, unsigned long request, unsigned long argument)
{
	constexpr long ioctl_of_32_bits = 54;
	long result;

	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(ioctl_of_32_bits), "b"(static_cast<long>(fd)), "c"(request),
		       "d"(argument)
		     : "r8", "r9", "r10", "r11", "memory");
	return static_cast<int>(result);
}

Memory::Memory(size_t size) : size_(size)
{
	void *mapping =
		mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	expect::that("memory can be mapped", mapping != MAP_FAILED);
	data_ = static_cast<std::byte *>(mapping);
}

Memory::Memory(Memory &&other) noexcept
	: data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0))
{
}

Memory::~Memory()
{
	if (data_)
		munmap(data_, size_);
}

const char *Device::path()
{
	const char *path = std::getenv("KVM_DEVICE");
	return path && *path ? path : "/dev/kvmpp";
}

bool Device::is_kvmpp()
{
	return std::strstr(path(), "kvmpp") != nullptr;
}

Device::Device() : fd_(open(path(), O_RDWR | O_CLOEXEC))
{
	if (fd_.get() < 0)
		expect::fail("cannot open %s: %s", path(), std::strerror(errno));
	expect::equal("KVM_GET_API_VERSION", fd_.call(KVM_GET_API_VERSION), KVM_API_VERSION);
	const long size = fd_.call(KVM_GET_VCPU_MMAP_SIZE);
	expect::that("KVM_GET_VCPU_MMAP_SIZE holds a kvm_run", size >= long{sizeof(kvm_run)});
	run_size_ = static_cast<size_t>(size);
}

long Device::check_extension(unsigned long capability) const
{
	return fd_.call(KVM_CHECK_EXTENSION, capability);
}

Vm::Vm(const Device &device, Irqchip irqchip)
	: device_(device), fd_(static_cast<int>(device.fd().call(KVM_CREATE_VM)))
{
	if (fd_.get() < 0)
		expect::fail("KVM_CREATE_VM: %s", std::strerror(-fd_.get()));
	if (irqchip == Irqchip::kernel)
		expect::equal("KVM_CREATE_IRQCHIP", fd_.call(KVM_CREATE_IRQCHIP), 0);
	if (irqchip == Irqchip::split) {
		kvm_enable_cap cap = {};
		cap.cap = KVM_CAP_SPLIT_IRQCHIP;
		cap.args[0] = 24;
		expect::equal("KVM_CAP_SPLIT_IRQCHIP", fd_.call(KVM_ENABLE_CAP, &cap), 0);
	}
}

long Vm::try_set_memory(uint32_t slot, uint64_t gpa, uint64_t size, const void *userspace,
			uint32_t flags) const
{
	const kvm_userspace_memory_region region{
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = reinterpret_cast<uint64_t>(userspace),
	};
	return fd_.call(KVM_SET_USER_MEMORY_REGION, &region);
}

void Vm::set_memory(uint32_t slot, uint64_t gpa, uint64_t size, const void *userspace,
		    uint32_t flags) const
{
	const long result = try_set_memory(slot, gpa, size, userspace, flags);
	if (result)
		expect::fail("KVM_SET_USER_MEMORY_REGION slot %u gpa %#llx size %#llx: %s", slot,
			     static_cast<unsigned long long>(gpa),
			     static_cast<unsigned long long>(size),
			     std::strerror(static_cast<int>(-result)));
}

Vcpu::Vcpu(const Vm &vm, unsigned long id)
	: id_(static_cast<uint32_t>(id)), fd_(static_cast<int>(vm.fd().call(KVM_CREATE_VCPU, id))),
	  run_size_(vm.device().run_size())
{
	if (fd_.get() < 0)
		expect::fail("KVM_CREATE_VCPU %lu: %s", id, std::strerror(-fd_.get()));
	void *mapping = mmap(nullptr, run_size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
	expect::that("kvm_run can be mapped", mapping != MAP_FAILED);
	run_ = static_cast<kvm_run *>(mapping);
	offer_host_cpuid(vm.device(), true);
}

Vcpu::~Vcpu()
{
	munmap(run_, run_size_);
}

void Vcpu::offer_host_cpuid(const Device &device, bool x2apic, bool tsc_deadline) const
{
	constexpr uint32_t hypervisor = 1u << 31, x2apic_mode = 1 << 21, deadline = 1 << 24;
	CpuidTable cpuid;

	expect::equal("KVM_GET_SUPPORTED_CPUID", device.fd().call(cpuid.get_supported, &cpuid), 0);
	for (uint32_t i = 0; i < cpuid.count; i++) {
		kvm_cpuid_entry2 &entry = cpuid.entries[i];
		if (entry.function == 1) {
			entry.ecx &= ~x2apic_mode;
			entry.ecx |= hypervisor | (x2apic ? x2apic_mode : 0) |
				     (tsc_deadline ? deadline : 0);
			entry.ebx = (entry.ebx & 0xffffff) | id_ << 24;
		}
	}
	expect::equal("KVM_SET_CPUID2", fd_.call(cpuid.set, &cpuid), 0);
}

kvm_regs Vcpu::regs() const
{
	kvm_regs regs{};
	expect::equal("KVM_GET_REGS", fd_.call(KVM_GET_REGS, &regs), 0);
	return regs;
}

void Vcpu::set_regs(const kvm_regs &regs) const
{
	expect::equal("KVM_SET_REGS", fd_.call(KVM_SET_REGS, &regs), 0);
}

kvm_sregs Vcpu::sregs() const
{
	kvm_sregs sregs{};
	expect::equal("KVM_GET_SREGS", fd_.call(KVM_GET_SREGS, &sregs), 0);
	return sregs;
}

void Vcpu::set_sregs(const kvm_sregs &sregs) const
{
	expect::equal("KVM_SET_SREGS", try_set_sregs(sregs), 0);
}

long Vcpu::try_set_sregs(const kvm_sregs &sregs) const
{
	return fd_.call(KVM_SET_SREGS, &sregs);
}

void Vcpu::run_until(uint32_t exit_reason)
{
	const long result = try_run();
	if (result)
		expect::fail("KVM_RUN: %s, at RIP %#llx", std::strerror(static_cast<int>(-result)),
			     regs().rip);
	if (run_->exit_reason == exit_reason)
		return;

	const kvm_regs at = regs();
	switch (run_->exit_reason) {
	case KVM_EXIT_IO:
		expect::note("port %#x direction %u size %u count %u", run_->io.port,
			     run_->io.direction, run_->io.size, run_->io.count);
		break;
	case KVM_EXIT_MMIO:
		expect::note("MMIO %#llx length %u %s", run_->mmio.phys_addr, run_->mmio.len,
			     run_->mmio.is_write ? "write" : "read");
		break;
	case KVM_EXIT_FAIL_ENTRY:
		expect::note("hardware_entry_failure_reason %#llx",
			     run_->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		expect::note("suberror %u, %u data: %#llx %#llx %#llx %#llx",
			     run_->internal.suberror, run_->internal.ndata, run_->internal.data[0],
			     run_->internal.data[1], run_->internal.data[2],
			     run_->internal.data[3]);
		break;
	}
	expect::fail("KVM_RUN ended with %s at RIP %#llx, RAX %#llx, RSP %#llx; expected %s",
		     exit_name(run_->exit_reason), at.rip, at.rax, at.rsp, exit_name(exit_reason));
}

uint32_t Vcpu::run_until_out(uint16_t port, unsigned size)
{
	run_until(KVM_EXIT_IO);
	expect::equal("io.direction", run_->io.direction, KVM_EXIT_IO_OUT);
	expect::equal("io.port", run_->io.port, port);
	expect::equal("io.size", run_->io.size, size);
	expect::equal("io.count", run_->io.count, 1);
	uint32_t value = 0;
	std::memcpy(&value, reinterpret_cast<std::byte *>(run_) + run_->io.data_offset, size);
	return value;
}

void Vcpu::enter_real(uint64_t rip) const
{
	kvm_sregs now = sregs();
	now.cs.selector = 0;
	now.cs.base = 0;
	for (kvm_segment *segment : {&now.ds, &now.es, &now.fs, &now.gs, &now.ss}) {
		segment->selector = 0;
		segment->base = 0;
	}
	set_sregs(now);
	kvm_regs regs{};
	regs.rip = rip;
	regs.rsp = GUEST_STACK;
	regs.rflags = 2;
	set_regs(regs);
}

void Vcpu::enter_protected(uint64_t rip) const
{
	kvm_sregs now = sregs();
	set_flat(now, SEL_CODE32);
	now.cr0 = cr0_pe | cr0_mp | cr0_et | cr0_ne;
	now.cr3 = 0;
	now.cr4 = cr4_osfxsr | cr4_osxmmexcpt;
	now.efer = 0;
	set_sregs(now);
	kvm_regs regs{};
	regs.rip = rip;
	regs.rsp = GUEST_STACK;
	regs.rflags = 2;
	set_regs(regs);
}

void Vcpu::enter_long(uint64_t rip) const
{
	kvm_sregs now = sregs();
	set_flat(now, SEL_CODE64);
	now.cr0 = cr0_pg | cr0_pe | cr0_mp | cr0_et | cr0_ne;
	now.cr3 = GUEST_TABLES;
	now.cr4 = cr4_pae | cr4_osfxsr | cr4_osxmmexcpt;
	now.efer = efer_lme | efer_lma | efer_sce;
	set_sregs(now);
	kvm_regs regs{};
	regs.rip = rip;
	regs.rsp = GUEST_STACK;
	regs.rflags = 2;
	set_regs(regs);
}

Machine::Machine(std::span<const std::byte> image, size_t memory_size, Irqchip irqchip)
	: vm(device, irqchip), memory(memory_size), vcpu(vm)
{
	vm.set_memory(0, 0, memory.size(), memory.data());
	expect::that("the image fits", image.size() <= GUEST_RESULTS - GUEST_IMAGE);
	std::memcpy(memory.data() + GUEST_IMAGE, image.data(), image.size());
}

void Machine::write_descriptor_tables() const
{
	std::memcpy(memory.data() + GUEST_GDT, gdt.data(), sizeof(gdt));
	// The supervisor stack, for exceptions from ring 3: RSP0 in the 64-bit TSS, and ESP0 with
	// SS0 in the 32-bit one, lie at the same offset.
	at<uint32_t>(GUEST_TSS + 4) = GUEST_STACK;
	// No I/O bitmap: it would begin behind the segment's limit.
	at<uint16_t>(GUEST_TSS + 0x66) = 0x68;
}

void Machine::prepare_protected() const
{
	write_descriptor_tables();
	at<uint32_t>(GUEST_TSS + 8) = SEL_DATA;
}

void Machine::prepare_long() const
{
	write_descriptor_tables();
	write_long_tables(memory);
}

void Machine::set_gate64(unsigned vector, uint64_t handler, unsigned dpl) const
{
	at<uint64_t>(GUEST_IDT + 16 * vector) = (handler & 0xffff) | SEL_CODE64 << 16 |
						uint64_t{0x8e00 | dpl << 13} << 32 |
						(handler >> 16 & 0xffff) << 48;
	at<uint64_t>(GUEST_IDT + 16 * vector + 8) = handler >> 32;
}

void Machine::set_gate32(unsigned vector, uint32_t handler, unsigned dpl) const
{
	at<uint64_t>(GUEST_IDT + 8 * vector) = (handler & 0xffff) | SEL_CODE32 << 16 |
					       uint64_t{0x8e00 | dpl << 13} << 32 |
					       uint64_t{handler >> 16} << 48;
}

void write_long_tables(const Memory &memory)
{
	constexpr uint64_t page = 0x1000;
	constexpr uint64_t pdpt = GUEST_TABLES + page;
	constexpr uint64_t directories = GUEST_TABLES + 2 * page;
	memory.at<uint64_t>(GUEST_TABLES) = pdpt | pte_rwu;
	for (uint64_t i = 0; i < 4; i++)
		memory.at<uint64_t>(pdpt + 8 * i) = (directories + i * page) | pte_rwu;
	for (uint64_t i = 0; i < 4 * 512; i++)
		memory.at<uint64_t>(directories + 8 * i) = i << 21 | pte_rwu | pte_large;
}

const char *exit_name(uint32_t exit_reason)
{
	switch (exit_reason) {
	case KVM_EXIT_UNKNOWN:
		return "KVM_EXIT_UNKNOWN";
	case KVM_EXIT_EXCEPTION:
		return "KVM_EXIT_EXCEPTION";
	case KVM_EXIT_IO:
		return "KVM_EXIT_IO";
	case KVM_EXIT_DEBUG:
		return "KVM_EXIT_DEBUG";
	case KVM_EXIT_HLT:
		return "KVM_EXIT_HLT";
	case KVM_EXIT_MMIO:
		return "KVM_EXIT_MMIO";
	case KVM_EXIT_SHUTDOWN:
		return "KVM_EXIT_SHUTDOWN";
	case KVM_EXIT_FAIL_ENTRY:
		return "KVM_EXIT_FAIL_ENTRY";
	case KVM_EXIT_INTR:
		return "KVM_EXIT_INTR";
	case KVM_EXIT_INTERNAL_ERROR:
		return "KVM_EXIT_INTERNAL_ERROR";
	}
	static char text[32];
	std::snprintf(text, sizeof(text), "exit reason %u", exit_reason);
	return text;
}
