// SPDX-License-Identifier: GPL-2.0
#include "clock.hpp"

#include "arch/x86/cpu_insn.hpp"

#include <linux/kvm.h>
#include <linux_glue/x86.h>

#include <utility>

namespace kvmpp
{

namespace
{

constexpr u64 ns_per_second = 1'000'000'000;
constexpr u32 valid_flags = KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;

/* @access(address, offset, length) page by page. False where there is no memory. */
template <class Access> bool by_page(u64 address, u32 size, Access access)
{
	for (u32 done = 0, length; done < size; done += length) {
		GuestPhys at{address + done};
		u64 rest = page_size - at.page_offset();

		length = rest < size - done ? static_cast<u32>(rest) : size - done;
		if (!access(at, done, length))
			return false;
	}
	return true;
}

template <class T> bool read_guest(const GuestMemory &memory, u64 address, T &value)
{
	auto *to = reinterpret_cast<u8 *>(&value);

	return by_page(address, sizeof(T), [&](GuestPhys at, u32 offset, u32 length) {
		return memory.read(at, to + offset, length);
	});
}

template <class T> bool write_guest(const GuestMemory &memory, u64 address, const T &value)
{
	auto *from = reinterpret_cast<const u8 *>(&value);

	return by_page(address, sizeof(T), [&](GuestPhys at, u32 offset, u32 length) {
		return memory.write(at, from + offset, length);
	});
}

/*
 * Other vCPUs may be reading it: the odd version is there before anything else changes, the even one after.
 * False, and nothing changed, where there is no memory, or it would lie in two pages.
 */
bool write_time(const GuestMemory &memory, u64 address, kvmclock::PvclockTime time)
{
	kvmclock::PvclockTime old;

	if (GuestPhys{address}.page_offset() + sizeof(time) > page_size ||
	    !read_guest(memory, address, old))
		return false;
	time.flags |= old.flags & kvmclock::guest_stopped;
	time.version = (old.version + 1) | 1;
	if (!write_guest(memory, address, time.version) || !write_guest(memory, address, time))
		return false;
	time.version++;
	return write_guest(memory, address, time.version);
}

void write_wall_clock(const GuestMemory &memory, u64 address, u64 ns)
{
	kvmclock::PvclockWallClock time;

	if (address == 0 || !read_guest(memory, address, time.version))
		return;
	/* What is there at first is of no meaning. */
	time.version = (time.version + 1) | 1;
	if (!write_guest(memory, address, time.version))
		return;
	time.sec = static_cast<u32>(ns / ns_per_second);
	time.nsec = static_cast<u32>(ns % ns_per_second);
	(void)write_guest(memory, address, time);
	time.version++;
	(void)write_guest(memory, address, time.version);
}

} // namespace

constinit std::atomic<u32> VmClock::sleeps_ = 0;
constinit std::atomic<u64> VmClock::tsc_lost_ = 0, VmClock::tsc_before_sleep_ = 0;

void VmClock::machine_sleeps()
{
	tsc_before_sleep_.store(insn::rdtsc(), std::memory_order_relaxed);
}

void VmClock::machine_woke()
{
	u64 before = tsc_before_sleep_.load(std::memory_order_relaxed), now = insn::rdtsc();

	/* How long it has slept nobody can say yet; as in KVM, guests' TSCs stood still. */
	if (now < before)
		tsc_lost_.fetch_add(before - now, std::memory_order_relaxed);
	sleeps_.fetch_add(1, std::memory_order_release);
}

/* Nobody else has it yet. */
Result<> VmClock::create(TscRecord &tsc) NO_THREAD_SAFETY_ANALYSIS
{
	glue_clock now;

	lock_.init(GLUE_LOCK_CLOCK);
	tsc_ = &tsc;
	made_up_ = tsc_lost_.load(std::memory_order_relaxed);
	scale_ = kvmclock::TscScale::of(glue_tsc_khz());
	slept_ = sleeps_.load(std::memory_order_relaxed);
	glue_clock_read(&now);
	begin(now, 0);
	return cpus_.create();
}

void VmClock::begin(const glue_clock &now, u64 ns)
{
	start_ = {now.tsc, ns};
	offset_ = ns - now.boot_ns;
}

u64 VmClock::at(const glue_clock &now) const
{
	if (!glue_tsc_stable())
		return now.boot_ns + offset_;
	/* TSCs agree, but for what an instruction takes. */
	return start_.ns + (now.tsc > start_.tsc ? scale_.ns(now.tsc - start_.tsc) : 0);
}

void VmClock::follow_sleep()
{
	u32 sleeps = sleeps_.load(std::memory_order_acquire);
	glue_clock now;

	if (slept_ == sleeps)
		return;
	slept_ = sleeps;
	u64 all_lost = tsc_lost_.load(std::memory_order_relaxed);
	u64 lost = all_lost - std::exchange(made_up_, all_lost);
	/* All vCPUs follow, so that those that agreed still do. */
	tsc_->make_up_for(lost);
	tsc_offset_ += lost;
	glue_clock_read(&now);
	begin(now, now.boot_ns + offset_);
}

u64 VmClock::make_up_for_sleep(VcpuClock &vcpu, VcpuState &s)
{
	Locked locked(lock_);

	follow_sleep();
	u64 lost = made_up_ - std::exchange(vcpu.tsc_lost, made_up_);
	s.tsc_offset += lost;
	s.mark_dirty(Group::tsc_offset);
	vcpu.tsc_offset += lost;
	return lost;
}

void VmClock::tell_all()
{
	generation_.fetch_add(1, std::memory_order_release);
	vcpus_.ask_all(Request::come_out, cpus_);
}

void VmClock::settle()
{
	bool stable = glue_tsc_stable() && agreeing_ == count_ && !old_msr_;

	if (stable == stable_)
		return;
	stable_ = stable;
	tell_all();
}

void VmClock::uncount(VcpuClock &vcpu)
{
	if (vcpu.tsc_generation == tsc_generation_)
		agreeing_--;
	vcpu.tsc_generation = 0;
}

/* As many guests use the clock of one vCPU on another, TSCs that differ are not one stable TSC. */
void VmClock::count(VcpuClock &vcpu, u64 tsc_offset)
{
	uncount(vcpu);
	if (tsc_generation_ == 0 || tsc_offset != tsc_offset_) {
		tsc_offset_ = tsc_offset;
		tsc_generation_++;
		agreeing_ = 0;
	}
	agreeing_++;
	vcpu.tsc_generation = tsc_generation_;
	vcpu.tsc_offset = tsc_offset;
}

void VmClock::add(VcpuClock &vcpu, u32 id, VcpuState &s)
{
	Locked locked(lock_);

	follow_sleep();
	s.tsc_offset = tsc_->offset();
	vcpu.tsc_lost = made_up_;
	vcpu.counted = true;
	vcpu.is_first = id == 0;
	vcpu.sleeps = sleeps_.load(std::memory_order_relaxed);
	count_++;
	count(vcpu, s.tsc_offset);
	settle();
	vcpu.generation = generation_.load(std::memory_order_relaxed);
}

void VmClock::remove(VcpuClock &vcpu)
{
	if (!vcpu.counted)
		return;
	Locked locked(lock_);
	vcpu.counted = false;
	uncount(vcpu);
	count_--;
	settle();
}

void VmClock::count_again(VcpuClock &vcpu, u64 tsc_offset)
{
	Locked locked(lock_);
	count(vcpu, tsc_offset);
	settle();
	/* Its guest has been told by another TSC. */
	vcpu.generation = generation_.load(std::memory_order_relaxed) - 1;
}

void VmClock::get(kvm_clock_data &data)
{
	Locked locked(lock_);
	glue_clock now;

	follow_sleep();
	glue_clock_read(&now);
	data = {};
	data.clock = at(now);
	if (!stable_ || count_ == 0 || !glue_tsc_stable())
		return;
	data.flags = valid_flags;
	data.realtime = now.real_ns;
	data.host_tsc = now.tsc;
}

Result<> VmClock::set(const kvm_clock_data &data)
{
	if (data.flags & ~valid_flags)
		return Errno::inval;
	Locked locked(lock_);
	u64 ns = data.clock;
	glue_clock now;

	follow_sleep();
	glue_clock_read(&now);
	/* It went on while nobody looked, but never backwards. */
	if ((data.flags & KVM_CLOCK_REALTIME) && now.real_ns > data.realtime)
		ns += now.real_ns - data.realtime;
	begin(now, ns);
	tell_all();
	return {};
}

void VmClock::update(VcpuClock &vcpu, VcpuState &s, const GuestMemory &memory)
{
	GuestClock &clock = s.clock;
	kvmclock::PvclockTime time;
	glue_clock now;
	u64 wall_ns;

	{
		Locked locked(lock_);
		bool stable_here = glue_tsc_stable();

		follow_sleep();
		glue_clock_read(&now);
		if (vcpu.sleeps != slept_) {
			vcpu.sleeps = slept_;
			clock.stopped = true;
		}
		if (vcpu.tsc_offset != s.tsc_offset)
			count(vcpu, s.tsc_offset);
		if (vcpu.is_first)
			old_msr_ = clock.uses_old_msr;
		settle();
		vcpu.generation = generation_.load(std::memory_order_relaxed);
		/* Without a TSC that all CPUs have in common each entry begins anew. */
		Moment from = stable_here ? start_ : Moment{now.tsc, at(now)};
		time.tsc_timestamp = from.tsc + s.tsc_offset;
		time.system_time = from.ns;
		time.flags = stable_ && stable_here ? kvmclock::tsc_stable : 0;
		wall_ns = now.real_ns - at(now);
	}
	if (clock.wall_clock_changed) {
		clock.wall_clock_changed = false;
		write_wall_clock(memory, wall_clock_.load(std::memory_order_relaxed), wall_ns);
	}
	clock.changed = false;
	if (!clock.enabled())
		return;
	time.tsc_to_system_mul = scale_.mul;
	time.tsc_shift = scale_.shift;
	if (clock.stopped)
		time.flags |= kvmclock::guest_stopped;
	if (write_time(memory, clock.address(), time))
		clock.stopped = false;
}

} // namespace kvmpp
