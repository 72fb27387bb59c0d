// SPDX-License-Identifier: GPL-2.0
#include "steal_time.hpp"

#include <cstddef>

namespace kvmpp
{

namespace
{

using Record = paravirtual::StealTime;

/* It is aligned to its size, so that it lies in one page. */
GuestPhys record_of(const VcpuState &s)
{
	return {s.paravirtual.steal_time & ~paravirtual::enabled};
}

template <class T>
Result<> write_field(const GuestMemory &memory, GuestPhys record, std::size_t offset, T value)
{
	return memory.write({record.value + offset}, &value, sizeof(value));
}

} // namespace

void StealTime::tell(VcpuState &s, const GuestMemory &memory)
{
	GuestPhys record = record_of(s);
	Record old;

	s.paravirtual.steal_due = false;
	if (!s.paravirtual.wants_steal_time() ||
	    !write_field(memory, record, offsetof(Record, preempted), u8{0}))
		return;
	preempted_told_ = false;
	if (!memory.read(record, &old, sizeof(old)))
		return;
	/* What is there at first is of no meaning. */
	u32 version = (old.version + 1) | 1;
	if (!write_field(memory, record, offsetof(Record, version), version))
		return;
	u64 delay = glue_run_delay();
	u64 steal = old.steal + delay - told_;
	if (!write_field(memory, record, offsetof(Record, steal), steal))
		return;
	told_ = delay;
	(void)write_field(memory, record, offsetof(Record, version), version + 1);
}

void StealTime::tell_preempted(const VcpuState &s, const GuestMemory &memory)
{
	constexpr u8 preempted = 1 << 0;

	if (!s.paravirtual.wants_steal_time() || preempted_told_)
		return;
	preempted_told_ = bool(memory.write_if_there(
		{record_of(s).value + offsetof(Record, preempted)}, &preempted, sizeof(preempted)));
}

} // namespace kvmpp
