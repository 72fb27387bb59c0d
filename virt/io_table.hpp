/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who in the kernel takes the writes of guests to ports or to addresses without RAM: eventfds that are told
 * of them, and zones of which user space reads in a ring. A table never changes once it is published; a change
 * publishes another one. Rules as KVM_IOEVENTFD and KVM_REGISTER_COALESCED_MMIO have them.
 */
#pragma once

#include "include/kvmpp/owned.hpp"
#include "include/kvmpp/types.hpp"

struct glue_eventfd;

namespace kvmpp
{

/* The numbers are those of struct kvm_coalesced_mmio's member. */
enum class IoSpace : u8 { mmio = 0, port = 1 };
inline constexpr unsigned io_spaces = 2;

struct IoWrite {
	IoSpace space = IoSpace::mmio;
	u64 address = 0;
	u32 length = 0; /* up to 8 */
	u8 data[8] = {};
};

/* An eventfd, or where there is none a zone. */
struct IoTaker {
	u64 address = 0;
	/* Of a zone its size; of an eventfd that of the write, 0 for any. */
	u32 length = 0;
	bool any_data = false;
	u64 data = 0;
	glue_eventfd *eventfd = nullptr;

	bool is_zone() const { return !eventfd; }
	bool contains(u64 at, u64 bytes) const
	{
		return at >= address && at - address <= length && bytes <= length - (at - address);
	}
	bool takes(const IoWrite &write) const;
	/* Both would take one and the same write: two eventfds of which only one would be told. */
	bool collides(const IoTaker &other) const;
	bool operator==(const IoTaker &) const = default;
};

class IoTable
{
public:
	static constexpr u32 max_zones = 1000; /* NR_IOBUS_DEVS of KVM */

	IoTable() = default;
	IoTable(const IoTable &) = delete;
	IoTable &operator=(const IoTable &) = delete;
	~IoTable();

	u32 count() const { return count_; }
	u32 zones() const { return zones_; }
	const IoTaker &at(u32 index) const { return takers_[index]; }
	bool collides(const IoTaker &taker) const;
	/* Its place, or count(). */
	u32 find(const IoTaker &taker) const;

	/* Visits whoever takes @write, in turn, until visit(taker) is true: then the write is taken. */
	template <class Visit> bool offer(const IoWrite &write, Visit visit) const
	{
		for (u32 i = first_for(write.address); i < count_; i++) {
			if (takers_[i].address > write.address)
				return false;
			if (takers_[i].takes(write) && visit(takers_[i]))
				return true;
		}
		return false;
	}

	/* Copies with one more, and without those for which leaves(taker) is true. Empty: no memory. */
	Owned<IoTable> with(const IoTaker &added) const MAY_SLEEP;
	template <class Leaves> Owned<IoTable> without(Leaves leaves) const MAY_SLEEP
	{
		auto table = create(count_);

		for (u32 i = 0; table && i < count_; i++)
			if (!leaves(takers_[i]))
				table->append(takers_[i]);
		return table;
	}

private:
	static Owned<IoTable> create(u32 room) MAY_SLEEP;
	void append(const IoTaker &taker);
	/* All before it end before @address. */
	u32 first_for(u64 address) const;

	IoTaker *takers_ = nullptr; /* by address, then by length, then in the order they came */
	u32 count_ = 0;
	u32 zones_ = 0;
	u32 widest_ = 0;
};

} // namespace kvmpp
