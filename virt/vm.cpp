// SPDX-License-Identifier: GPL-2.0
#include "vm.hpp"

#include "arch/x86/cpu_insn.hpp"
#include "dirty_log.hpp"
#include "hardware.hpp"
#include "vcpu.hpp"

#include <linux/kvm.h>
#include <linux_glue/entries.h>
#include <linux_glue/file.h>
#include <linux_glue/parameters.h>
#include <linux_glue/x86.h>

namespace kvmpp
{

constinit std::atomic<u32> Vm::made_ = 0;

Result<Vm *> Vm::create()
{
	auto vm = Owned<Vm>::create();

	if (!vm)
		return Errno::nomem;
	if (Result<> r = vm->init(); !r)
		return r.error();
	return vm.release();
}

Result<> Vm::init()
{
	vcpus_.init();
	slots_lock_.init(GLUE_LOCK_SLOTS);
	irqfds_.init();
	invalidate_lock_.init(GLUE_LOCK_INVALIDATE);
	id_ = made_.fetch_add(1, std::memory_order_relaxed) + 1;
	process_ = glue_process_id();
	apics_ = Owned<ApicMap>::create();
	tsc_ = Owned<TscRecord>::create();
	if (!apics_ || !tsc_)
		return Errno::nomem;
	tsc_->begin(insn::rdtsc(), glue_tsc_khz() * 1000);
	if (Result<> r = clock_.create(*tsc_); !r)
		return r;
	auto slots = Owned<MemslotTable>::create();
	if (!slots)
		return Errno::nomem;
	slots_.store(slots.release(), std::memory_order_relaxed);
	if (Result<> r = srcu_.init(); !r)
		return r;
	srcu_made_ = true;
	if (Result<> r = io_bus_.create(); !r)
		return r;
	const VmxConfig &config = hardware_config();
	if (Result<> r =
		    mmu_.create(config.largest_page_level(), glue_executed_pages_must_be_small(),
				config.ept_accessed && glue_parameters.eptad,
				config.has_pml() && glue_parameters.pml);
	    !r)
		return r;
	if (Result<> r = hardware_get(); !r)
		return r;
	hardware_held_ = true;
	/* Last: from here on the notifier calls in. */
	return from_errno(glue_mmu_notifier_register(this, &notifier_));
}

Vm::~Vm()
{
	if (notifier_)
		glue_mmu_notifier_unregister(notifier_);
	if (hardware_held_)
		hardware_put();
	Owned<Irqchip>::adopt(irqchip_.load(std::memory_order_relaxed));
	if (srcu_made_)
		srcu_.cleanup();
	if (auto slots = Owned<MemslotTable>::adopt(slots_.load(std::memory_order_relaxed)); slots)
		slots->for_each([](const Memslot &slot) { Owned<DirtyLog>::adopt(slot.log); });
}

void Vm::put()
{
	/* Whoever destroys it sees all that the others did before they dropped it. */
	if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1)
		Owned<Vm>::adopt(this);
}

void Vm::close()
{
	irqfds_.end();
	put();
}

bool Vm::replace_slots(Owned<MemslotTable> &table)
{
	Locked locked(invalidate_lock_);

	if (invalidations_.load(std::memory_order_relaxed))
		return false;
	table = Owned<MemslotTable>::adopt(
		slots_.exchange(table.release(), std::memory_order_acq_rel));
	return true;
}

void Vm::publish(Owned<MemslotTable> table)
{
	while (!replace_slots(table))
		glue_wait_for_zero(reinterpret_cast<u32 *>(&invalidations_));
	srcu_.synchronize();
}

void Vm::collect_page_logs()
{
	if (mmu_.has_pml())
		vcpus_.end_logged_runs();
}

Result<> Vm::set_memory(const SlotRequest &request)
{
	/* What was written before the log began is not for it. */
	if (request.log)
		collect_page_logs();
	Locked locked(slots_lock_);
	const MemslotTable &current = *slots_.load(std::memory_order_relaxed);
	Result<SlotChange> change = classify_slot_change(current, request);

	if (!change)
		return change.error();
	if (*change == SlotChange::none)
		return {};

	u32 id = request.slot.id;
	const Memslot *old = current.find_id(id);
	DirtyLog *old_log = old ? old->log : nullptr;
	bool initially_set = manual_dirty_log_ & KVM_DIRTY_LOG_INITIALLY_SET;
	Owned<DirtyLog> made;
	Memslot slot = request.slot;
	if (*change != SlotChange::remove && request.log) {
		slot.log = old_log;
		if (!old_log) {
			made = DirtyLog::create(slot.frames);
			if (!made)
				return Errno::nomem;
			if (initially_set)
				made->add_all(slot.frames);
			slot.log = made.get();
		}
	}
	auto final = current.with_change(id, *change == SlotChange::remove ? nullptr : &slot);
	if (!final)
		return Errno::nomem;
	if (*change == SlotChange::move || *change == SlotChange::remove) {
		/*
		 * In two steps: while pages are still mapped, the notifier must find the slot that
		 * they are mapped by, and faults must not map more.
		 */
		Memslot leaving = *old;
		leaving.invalid = true;
		auto without = current.with_change(id, &leaving);
		if (!without)
			return Errno::nomem;
		publish(std::move(without));
		mmu_.unmap(leaving.first_frame, leaving.last_frame());
	}
	publish(std::move(final));
	(void)made.release();
	if (old_log != slot.log)
		Owned<DirtyLog>::adopt(old_log);
	if (*change == SlotChange::log && !slot.read_only) {
		if (!slot.log) /* so that large pages come back */
			mmu_.unmap(slot.first_frame, slot.last_frame());
		else if (!initially_set) /* else each page is, as its bit is cleared */
			mmu_.watch_writes(slot.first_frame, slot.last_frame());
	}
	return {};
}

Result<const Memslot *> Vm::logged_slot(u32 id) const
{
	if (id >= MemslotTable::max_slots)
		return Errno::inval;
	const Memslot *slot = slots_.load(std::memory_order_relaxed)->find_id(id);
	if (!slot || !slot->log)
		return Errno::noent;
	return slot;
}

Result<> Vm::get_dirty_log(u32 id, u64 bitmap)
{
	collect_page_logs();
	Locked locked(slots_lock_);
	Result<const Memslot *> slot = logged_slot(id);

	if (!slot)
		return slot.error();
	DirtyLog &log = *(*slot)->log;
	if (manual_dirty_log_)
		log.copy();
	else
		mmu_.take_log(**slot);
	return from_errno(glue_copy_to_user(bitmap, log.taken(), log.bytes()));
}

Result<> Vm::clear_dirty_log(u32 id, u64 first, u64 pages, u64 bitmap)
{
	if (id >= MemslotTable::max_slots || first % 64)
		return Errno::inval;
	collect_page_logs();

	Locked locked(slots_lock_);
	Result<const Memslot *> slot = logged_slot(id);
	if (!slot)
		return slot.error();
	u64 frames = (*slot)->frames;
	/* Whole words of 64, but for the last of the slot. */
	if (first > frames || pages > frames - first || (pages < frames - first && pages % 64))
		return Errno::inval;
	DirtyLog &log = *(*slot)->log;
	if (Result<> r = from_errno(glue_copy_from_user(log.taken(), bitmap,
							DirtyLog::words_of(pages) * sizeof(u64)));
	    !r)
		return r;
	mmu_.clear_log(**slot, first, pages);
	return {};
}

Result<> Vm::set_manual_dirty_log(u64 flags)
{
	u64 allowed = flags & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
			      ? KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET
			      : 0;

	if (flags & ~allowed)
		return Errno::inval;
	Locked locked(slots_lock_);
	manual_dirty_log_ = flags;
	return {};
}

Result<> Vm::create_irqchip(Irqchip::Mode mode, u32 user_pins)
{
	Locked locked(vcpus_.lock);

	if (irqchip())
		return Errno::exist;
	if (vcpus_.count() > 0)
		return mode == Irqchip::Mode::split ? Errno::exist : Errno::inval;
	auto made = Irqchip::create(mode, user_pins, vcpus_, x2apic_api_);
	if (!made)
		return made.error();
	irqchip_.store(made->release(), std::memory_order_release);
	return {};
}

Result<int> Vm::create_vcpu(u32 id)
{
	if (id >= max_vcpus)
		return Errno::inval;

	Locked locked(vcpus_.lock);
	if (vcpus_.has(id))
		return Errno::exist;
	auto vcpu = Owned<Vcpu>::create(*this, id);
	if (!vcpu)
		return Errno::nomem;
	if (Result<> r = vcpu->init(); !r)
		return r.error();
	glue_new_fd fd;
	if (Result<> r = from_errno(glue_vcpu_fd_prepare(&fd, vcpu.get(), static_cast<int>(id)));
	    !r)
		return r.error();
	references_.fetch_add(1, std::memory_order_relaxed);
	apics_->set_shared(id);
	vcpus_.add(vcpu.release()->entry());
	/* From here on another thread may close it. */
	glue_fd_install(&fd);
	return fd.fd;
}

void Vm::destroy_vcpu(Vcpu *vcpu)
{
	bool may_free = vcpu->end();
	{
		Locked locked(vcpus_.lock);
		vcpus_.remove(vcpu->entry());
		apics_->set_none(vcpu->entry().id());
	}
	/* A CPU that is lost may still use it, and all of the VM: they stay for ever. */
	if (!may_free)
		return;
	Owned<Vcpu>::adopt(vcpu);
	put();
}

void Vm::invalidate_begin(u64 start, u64 end)
{
	{
		Locked locked(invalidate_lock_);
		invalidations_.fetch_add(1, std::memory_order_relaxed);
	}
	SrcuRead read(srcu_);
	mmu_.invalidate_begin(slots(read), start, end);
}

void Vm::invalidate_end(u64 start, u64 end)
{
	{
		SrcuRead read(srcu_);
		mmu_.invalidate_end(slots(read), start, end);
	}
	bool last;
	{
		Locked locked(invalidate_lock_);
		last = invalidations_.fetch_sub(1, std::memory_order_seq_cst) == 1;
	}
	if (last)
		glue_count_is_zero(reinterpret_cast<u32 *>(&invalidations_));
}

bool Vm::is_young(u64 start, u64 end, bool clear)
{
	SrcuRead read(srcu_);

	return clear ? mmu_.age_user(slots(read), start, end)
		     : mmu_.is_user_young(slots(read), start, end);
}

} // namespace kvmpp

using namespace kvmpp;

void kvmpp_vm_release(void *vm)
{
	static_cast<Vm *>(vm)->close();
}

void kvmpp_mmu_invalidate_begin(void *vm, glue_u64 start, glue_u64 end)
{
	static_cast<Vm *>(vm)->invalidate_begin(start, end);
}

void kvmpp_mmu_invalidate_end(void *vm, glue_u64 start, glue_u64 end)
{
	static_cast<Vm *>(vm)->invalidate_end(start, end);
}

int kvmpp_mmu_young(void *vm, glue_u64 start, glue_u64 end, int clear)
{
	return static_cast<Vm *>(vm)->is_young(start, end, clear);
}
