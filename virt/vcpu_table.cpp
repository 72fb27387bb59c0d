// SPDX-License-Identifier: GPL-2.0
#include "vcpu_table.hpp"

#include "include/kvmpp/nospec.hpp"
#include "irqchip/lapic.hpp"

namespace kvmpp
{

VcpuEntry::VcpuEntry(u32 id) : id_(id)
{
}

VcpuEntry::~VcpuEntry()
{
	/* Nobody looks at the entry any more, hence neither at this. */
	Owned<VcpuThread>::adopt(thread_.load(std::memory_order_relaxed));
}

Result<> VcpuEntry::set_thread_to_current()
{
	VcpuThread *old = thread_.load(std::memory_order_relaxed);

	if (old && glue_pid_is_current(old->pid))
		return {};
	auto thread = Owned<VcpuThread>::create();
	if (!thread)
		return Errno::nomem;
	thread_.store(thread.release(), std::memory_order_release);
	RcuOwned<VcpuThread>(Owned<VcpuThread>::adopt(old));
	return {};
}

glue_task *VcpuEntry::task() const
{
	VcpuThread *thread = thread_.load(std::memory_order_acquire);

	return thread ? glue_task_of(thread->pid) : nullptr;
}

void VcpuEntry::end_spin()
{
	spinning_.store(false, std::memory_order_relaxed);
	passed_over_.store(false, std::memory_order_relaxed);
}

bool VcpuEntry::may_be_boosted()
{
	if (!preempted_.load(std::memory_order_relaxed))
		return false;
	if (!spinning_.load(std::memory_order_relaxed))
		return true;
	/*
	 * It gave its own CPU away a moment ago, since it waits for what another has. Only every
	 * other time: two such would hand a CPU to and fro, and none to the one they wait for.
	 */
	bool turn = passed_over_.load(std::memory_order_relaxed);
	passed_over_.store(!turn, std::memory_order_relaxed);
	return turn;
}

void VcpuTable::add(VcpuEntry &entry)
{
	u32 id = entry.id();

	entries_[id].store(&entry, std::memory_order_release);
	count_.store(count() + 1, std::memory_order_relaxed);
	if (id >= end())
		end_.store(id + 1, std::memory_order_relaxed);
}

void VcpuTable::remove(const VcpuEntry &entry)
{
	u32 end = this->end();

	entries_[entry.id()].store(nullptr, std::memory_order_relaxed);
	count_.store(count() - 1, std::memory_order_relaxed);
	while (end > 0 && !has(end - 1))
		end--;
	end_.store(end, std::memory_order_relaxed);
}

VcpuEntry *VcpuTable::find(u32 id) const
{
	return entries_[array_index_nospec(id, max_vcpus)].load(std::memory_order_acquire);
}

void VcpuTable::ask_all(Request request, CpuMask &cpus) const
{
	cpus.clear();

	RcuRead read;
	u32 end = this->end();
	for (u32 id = 0; id < end; id++)
		if (VcpuEntry *entry = find(id))
			entry->kick.ask(request);
	for (u32 id = 0; id < end; id++) {
		VcpuEntry *entry = find(id);

		if (!entry)
			continue;
		Whereabouts where = entry->kick.where();
		if (where.is_dedicated())
			kvmpp::kick(entry->kick);
		else if (!where.is_nowhere())
			cpus.add(where.cpu());
	}
	/* The interrupt itself is what ends the guest's run. */
	glue_call_on_cpumask(
		cpus.mask(), [](void *) {}, nullptr);
	for (u32 id = 0; id < end; id++)
		if (VcpuEntry *entry = find(id))
			wait_until_seen(entry->kick, request);
}

void VcpuTable::end_logged_runs()
{
	/* The entries stay, and one is awaited by nobody else. */
	Locked locked(lock);
	u32 end = this->end();

	for (u32 id = 0; id < end; id++) {
		VcpuEntry *entry = entries_[id].load(std::memory_order_relaxed);

		if (!entry || !entry->logged_runs.await())
			continue;
		entry->kick.ask(Request::come_out);
		kvmpp::kick(entry->kick);
	}
	for (u32 id = 0; id < end; id++)
		if (VcpuEntry *entry = entries_[id].load(std::memory_order_relaxed))
			entry->logged_runs.wait();
}

} // namespace kvmpp
