// SPDX-License-Identifier: GPL-2.0
#include "io_bus.hpp"

#include "eventfd.hpp"

#include <linux/kvm.h>

#include <utility>

namespace kvmpp
{

namespace
{

IoTaker taker_of(const kvm_ioeventfd &request, const EventFd &eventfd)
{
	bool any = !(request.flags & KVM_IOEVENTFD_FLAG_DATAMATCH);

	return {.address = request.addr,
		.length = request.len,
		.any_data = any,
		.data = any ? 0 : request.datamatch,
		.eventfd = eventfd.eventfd()};
}

Result<IoSpace> space_of(const kvm_coalesced_mmio_zone &zone)
{
	if (zone.pio > 1)
		return Errno::inval;
	return static_cast<IoSpace>(zone.pio);
}

} // namespace

IoBus::~IoBus()
{
	for (auto &table : tables_) {
		auto last = Owned<IoTable>::adopt(table.load(std::memory_order_relaxed));

		for (u32 i = 0; last && i < last->count(); i++)
			if (!last->at(i).is_zone())
				glue_eventfd_put(last->at(i).eventfd);
	}
}

Result<> IoBus::create()
{
	lock_.init(GLUE_LOCK_IO);
	for (auto &table : tables_) {
		auto empty = Owned<IoTable>::create();

		if (!empty)
			return Errno::nomem;
		table.store(empty.release(), std::memory_order_relaxed);
	}
	return ring_.create();
}

void IoBus::publish(IoSpace space, Owned<IoTable> table)
{
	unsigned i = static_cast<unsigned>(space);
	bool has_takers = table->count() != 0;
	auto old = Owned<IoTable>::adopt(
		tables_[i].exchange(table.release(), std::memory_order_acq_rel));

	has_takers_[i].store(has_takers, std::memory_order_release);

	srcu_.synchronize();
}

Result<> IoBus::add(IoSpace space, const IoTaker &taker)
{
	if (table(space).zones() >= IoTable::max_zones)
		return Errno::nospc;
	auto more = table(space).with(taker);
	if (!more)
		return Errno::nomem;
	publish(space, std::move(more));
	return {};
}

Result<> IoBus::ioeventfd(const kvm_ioeventfd &request)
{
	IoSpace space = request.flags & KVM_IOEVENTFD_FLAG_PIO ? IoSpace::port : IoSpace::mmio;

	return request.flags & KVM_IOEVENTFD_FLAG_DEASSIGN ? deassign(space, request)
							   : assign(space, request);
}

Result<> IoBus::assign(IoSpace space, const kvm_ioeventfd &request)
{
	/* There are no virtio-ccw devices that would notify: KVM takes the flag, and no notice comes. */
	constexpr u32 known = KVM_IOEVENTFD_VALID_FLAG_MASK & ~KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY;
	u32 length = request.len;

	if (length > 8 || (length & (length - 1)))
		return Errno::inval;
	if (request.addr + length < request.addr)
		return Errno::inval;
	if (request.flags & ~known)
		return Errno::inval;
	if (length == 0 && (request.flags & KVM_IOEVENTFD_FLAG_DATAMATCH))
		return Errno::inval;
	EventFd eventfd;
	if (Result<> r = eventfd.get(request.fd); !r)
		return r;
	IoTaker taker = taker_of(request, eventfd);
	Locked locked(lock_);
	if (table(space).collides(taker))
		return Errno::exist;
	if (Result<> r = add(space, taker); !r)
		return r;
	/* It is the table's. */
	eventfd.release();
	return {};
}

Result<> IoBus::deassign(IoSpace space, const kvm_ioeventfd &request)
{
	EventFd eventfd;

	if (Result<> r = eventfd.get(request.fd); !r)
		return r;
	IoTaker taker = taker_of(request, eventfd);
	Locked locked(lock_);
	if (table(space).find(taker) == table(space).count())
		return Errno::noent;
	auto less = table(space).without([&](const IoTaker &t) { return t == taker; });
	if (!less)
		return Errno::nomem;
	publish(space, std::move(less));
	/* What was the table's. */
	glue_eventfd_put(taker.eventfd);
	return {};
}

Result<> IoBus::coalesce(const kvm_coalesced_mmio_zone &zone)
{
	Result<IoSpace> space = space_of(zone);

	if (!space)
		return space.error();
	Locked locked(lock_);
	return add(*space, {.address = zone.addr, .length = zone.size});
}

Result<> IoBus::uncoalesce(const kvm_coalesced_mmio_zone &zone)
{
	Result<IoSpace> space = space_of(zone);

	if (!space)
		return space.error();
	Locked locked(lock_);
	auto less = table(*space).without(
		[&](const IoTaker &t) { return t.is_zone() && t.contains(zone.addr, zone.size); });
	if (!less)
		return Errno::nomem;
	/* There may have been none, which is no error. */
	if (less->count() != table(*space).count())
		publish(*space, std::move(less));
	return {};
}

bool IoBus::take(const IoWrite &write)
{
	SrcuRead read(srcu_);
	const IoTable &table =
		*tables_[static_cast<unsigned>(write.space)].load(std::memory_order_acquire);

	return table.offer(write, [&](const IoTaker &taker) {
		if (taker.is_zone())
			return ring_.put(write);
		glue_eventfd_signal(taker.eventfd);
		return true;
	});
}

} // namespace kvmpp
