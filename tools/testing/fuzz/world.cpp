// SPDX-License-Identifier: GPL-2.0
#include "world.hpp"

#include "expect.hpp"
#include "vm.hpp"

#include <cstring>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace fuzz
{
namespace
{

constexpr int read_write = PROT_READ | PROT_WRITE;

// Below 4 GiB, for 32-bit callers.
std::byte *map_low(size_t size, int flags, int fd)
{
	void *at = mmap(nullptr, size, read_write, flags | MAP_32BIT, fd, 0);
	expect::that("memory can be mapped", at != MAP_FAILED);
	return static_cast<std::byte *>(at);
}

} // namespace

World::World() : memory_fd_(memfd_create("guest", MFD_CLOEXEC))
{
	for (auto &kind : files_)
		for (auto &fd : kind)
			fd = -1;
	for (auto &fd : eventfds_)
		fd = -1;
	run_size_ = Device().run_size();
	runs_ = map_low(run_size_ * places, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	expect::that("memfd", memory_fd_ >= 0 && ftruncate(memory_fd_, memory_size) == 0);
	memory_ = map_low(memory_size, MAP_SHARED, memory_fd_);
	alias_ = map_low(memory_size, MAP_SHARED, memory_fd_);
	arenas_ = map_low(arena_stride * players, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	for (unsigned player = 0; player < players; player++)
		munmap(arena(player) + largest_argument, page_size);
}

kvm_run &World::run(unsigned place) const
{
	return *reinterpret_cast<kvm_run *>(runs_ + run_size_ * place);
}

void World::put(File kind, unsigned place, int fd, bool foreign)
{
	const auto index = static_cast<unsigned>(kind);
	if (kind == File::vcpu && fd >= 0)
		mmap(&run(place), run_size_, read_write, MAP_SHARED | MAP_FIXED, fd, 0);
	foreign_[index][place] = foreign;
	const int old = files_[index][place].exchange(fd);
	if (old >= 0)
		close(old);
}

void World::put_eventfd(unsigned place, int fd)
{
	const int old = eventfds_[place].exchange(fd);
	if (old >= 0)
		close(old);
}

void World::forked()
{
	for (unsigned kind = 0; kind < files; kind++)
		for (unsigned place = 0; place < places; place++)
			foreign_[kind][place] = files_[kind][place] >= 0;
}

void World::close_all()
{
	for (unsigned place = 0; place < places; place++) {
		for (const File kind : {File::device, File::vm, File::vcpu})
			put(kind, place, -1);
		put_eventfd(place, -1);
		mmap(&run(place), run_size_, read_write, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		     -1, 0);
	}
}

bool Snapshot::take(int vcpu)
{
	// Such as are nobody's clock.
	constexpr uint32_t saved[] = {0x174,      0x175,      0x176,      0x277,
				      0x1d9,      0x2ff,      0xc0000081, 0xc0000082,
				      0xc0000084, 0xc0000102, 0xc0000103, 0x4b564d01};
	std::memset(this, 0, sizeof(*this));
	for (const uint32_t index : saved)
		msrs.entries[msrs.header.nmsrs++].index = index;
	return !ioctl(vcpu, KVM_GET_REGS, &regs) && !ioctl(vcpu, KVM_GET_SREGS, &sregs) &&
	       !ioctl(vcpu, KVM_GET_DEBUGREGS, &debug_registers) &&
	       !ioctl(vcpu, KVM_GET_VCPU_EVENTS, &events) && !ioctl(vcpu, KVM_GET_XCRS, &xcrs) &&
	       !ioctl(vcpu, KVM_GET_FPU, &fpu) && ioctl(vcpu, KVM_GET_MSRS, &msrs) >= 0;
}

const char *Snapshot::difference(const Snapshot &other) const
{
	const auto differs = [](const auto &a, const auto &b) {
		return std::memcmp(&a, &b, sizeof(a)) != 0;
	};
	return differs(regs, other.regs)                         ? "a register"
	       : differs(sregs, other.sregs)                     ? "a special register"
	       : differs(debug_registers, other.debug_registers) ? "a debug register"
	       : differs(events, other.events)                   ? "an event"
	       : differs(xcrs, other.xcrs)                       ? "XCR0"
	       : differs(fpu, other.fpu)                         ? "the FPU's state"
	       : differs(msrs, other.msrs)                       ? "an MSR"
								 : nullptr;
}

} // namespace fuzz
