// SPDX-License-Identifier: GPL-2.0
#include "memslots.hpp"

#include "dirty_log.hpp"

#include <linux/kvm.h>
#include <linux_glue/memory.h>

namespace kvmpp
{

MemslotTable::~MemslotTable()
{
	if (slots_)
		glue_free(slots_);
}

const Memslot *MemslotTable::find_id(u32 id) const
{
	for (u32 i = 0; i < count_; i++)
		if (slots_[i].id == id)
			return &slots_[i];
	return nullptr;
}

const Memslot *MemslotTable::find_frame(u64 frame) const
{
	u32 low = 0, high = count_;

	/* The last slot that begins at or before @frame. */
	while (low < high) {
		u32 middle = (low + high) / 2;

		if (slots_[middle].first_frame <= frame)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || !slots_[low - 1].contains(frame))
		return nullptr;
	return &slots_[low - 1];
}

bool MemslotTable::overlaps(const Memslot &slot) const
{
	for (u32 i = 0; i < count_; i++) {
		const Memslot &other = slots_[i];

		if (other.id != slot.id && other.first_frame <= slot.last_frame() &&
		    slot.first_frame <= other.last_frame())
			return true;
	}
	return false;
}

Owned<MemslotTable> MemslotTable::with_change(u32 removed_id, const Memslot *added) const
{
	auto table = Owned<MemslotTable>::create();

	if (!table)
		return table;
	table->slots_ = static_cast<Memslot *>(glue_zalloc((count_ + 1) * sizeof(Memslot)));
	if (!table->slots_)
		return {};
	for (u32 i = 0; i < count_; i++) {
		if (added && added->first_frame < slots_[i].first_frame) {
			table->slots_[table->count_++] = *added;
			added = nullptr;
		}
		if (slots_[i].id != removed_id)
			table->slots_[table->count_++] = slots_[i];
	}
	if (added)
		table->slots_[table->count_++] = *added;
	return table;
}

constinit const Memslot GuestMemory::nothing;

const Memslot *GuestMemory::find_slot(GuestPhys address) const
{
	const Memslot *slot = table_.find_frame(address.frame());

	if (slot)
		last_ = slot;
	return slot;
}

bool GuestMemory::is_ram(GuestPhys address) const
{
	return slot_of(address) != nullptr;
}

bool GuestMemory::takes_writes(GuestPhys address) const
{
	const Memslot *slot = slot_of(address);

	return slot && !slot->read_only;
}

Result<> GuestMemory::read(GuestPhys address, void *to, u32 length) const
{
	const Memslot *slot = slot_of(address);

	if (!slot)
		return Errno::noent;
	return from_errno(glue_copy_from_user(to, user_address(*slot, address), length));
}

Result<> GuestMemory::read_16(GuestPhys address, u64 (&to)[2]) const
{
	const Memslot *slot = slot_of(address);

	if (!slot)
		return Errno::noent;
	return from_errno(glue_user_read_16(user_address(*slot, address), to));
}

Result<> GuestMemory::write(GuestPhys address, const void *from, u32 length) const
{
	const Memslot *slot = slot_of(address);

	if (!slot || slot->read_only)
		return Errno::noent;
	Result<> written =
		from_errno(glue_copy_to_user(user_address(*slot, address), from, length));
	if (written && slot->log)
		slot->log->add(address.frame() - slot->first_frame);
	return written;
}

Result<> GuestMemory::write_if_there(GuestPhys address, const void *from, u32 length) const
{
	const Memslot *slot = slot_of(address);

	if (!slot || slot->read_only)
		return Errno::noent;
	Result<> written =
		from_errno(glue_copy_to_user_nofault(user_address(*slot, address), from, length));
	if (written && slot->log)
		slot->log->add(address.frame() - slot->first_frame);
	return written;
}

Result<bool> GuestMemory::compare_exchange(GuestPhys address, u64 expected, u64 desired,
					   u32 length) const
{
	const Memslot *slot = slot_of(address);

	if (!slot || slot->read_only)
		return Errno::noent;
	int done =
		glue_user_compare_exchange(user_address(*slot, address), expected, desired, length);
	if (done < 0)
		return Errno::fault;
	if (done && slot->log)
		slot->log->add(address.frame() - slot->first_frame);
	return done != 0;
}

Result<SlotRequest> check_slot_request(u32 slot, u32 flags, u64 guest_phys, u64 size,
				       u64 user_address, unsigned physical_address_bits)
{
	constexpr u64 max_frames = (u64{1} << 31) - 1;

	if (flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))
		return Errno::inval;
	if ((size | guest_phys | user_address) & ~page_mask)
		return Errno::inval;
	if (!glue_user_range_ok(user_address, size))
		return Errno::inval;
	if (slot >= MemslotTable::max_slots)
		return Errno::inval;
	if (guest_phys + size < guest_phys || size >> page_shift > max_frames)
		return Errno::inval;
	if (size != 0 && (guest_phys + size - 1) >> physical_address_bits)
		return Errno::inval;
	return SlotRequest{.slot = {.id = slot,
				    .invalid = false,
				    .first_frame = guest_phys >> page_shift,
				    .frames = size >> page_shift,
				    .user = {user_address},
				    .read_only = (flags & KVM_MEM_READONLY) != 0},
			   .remove = size == 0,
			   .log = (flags & KVM_MEM_LOG_DIRTY_PAGES) != 0};
}

Result<SlotChange> classify_slot_change(const MemslotTable &table, const SlotRequest &request)
{
	const Memslot &slot = request.slot;
	const Memslot *old = table.find_id(slot.id);

	if (request.remove) {
		if (!old)
			return Errno::inval;
		return SlotChange::remove;
	}
	if (old) {
		/* A slot keeps its size and its memory; only its place and its log can change. */
		if (old->frames != slot.frames || old->user != slot.user ||
		    old->read_only != slot.read_only)
			return Errno::inval;
		if (old->first_frame == slot.first_frame)
			return request.log == !!old->log ? SlotChange::none : SlotChange::log;
	}
	if (table.overlaps(slot))
		return Errno::exist;
	return old ? SlotChange::move : SlotChange::create;
}

} // namespace kvmpp
