// SPDX-License-Identifier: GPL-2.0
#include "irqfd.hpp"

#include "include/kvmpp/owned.hpp"
#include "include/kvmpp/reader_list.hpp"
#include "irqchip.hpp"
#include "virt/eventfd.hpp"

#include <linux/kvm.h>

#include <atomic>

namespace kvmpp
{

/*
 * The irqfds of one GSI that hold its line up until the guest has acknowledged. One that listens for all of
 * them: who was told first may have raised the line anew when the last one is told.
 */
class Resampler final : public IrqAckListener
{
public:
	Resampler(Irqchip &irqchip, u32 number) : irqchip_(irqchip) { gsi = number; }

	void acknowledged() override;
	/* One at a time. */
	void add(Irqfd &irqfd);
	/* Nobody looks at it any more when this returns. */
	void remove(Irqfd &irqfd) MAY_SLEEP;
	bool empty() const { return irqfds_.empty(); }

private:
	Irqchip &irqchip_;
	/* Read in acknowledged(). */
	ReaderList<Irqfd> irqfds_;
};

/* Told by its eventfd's wait queue, in whatever context that is signalled. */
class Irqfd final : public ListLink<IrqfdTag>, public ReaderLink<Irqfd>, private glue_eventfd_waiter
{
public:
	Irqfd(Irqfds &irqfds, Irqchip &irqchip, u32 gsi)
		: glue_eventfd_waiter{.opaque = {},
				      .eventfd = nullptr,
				      .signalled = is_signalled,
				      .closed = is_closed},
		  irqfds_(irqfds), irqchip_(irqchip), gsi_(gsi)
	{
	}

	/* What both eventfds of the request are. EBADF, Errno::inval. May sleep. */
	Result<> find(const kvm_irqfd &request) MAY_SLEEP;
	/* From here on interrupts come. EBADF when @fd has become another file. */
	Result<> begin(int fd);
	/* None is under way when this returns. */
	void end() { glue_eventfd_leave(this); }

	u32 gsi() const { return gsi_; }
	glue_eventfd *source() const { return source_.eventfd(); }
	bool resamples() const { return resample_.eventfd() != nullptr; }
	bool closed() const { return closed_.load(std::memory_order_relaxed); }
	Irqchip &irqchip() const { return irqchip_; }
	glue_eventfd *resample() const { return resample_.eventfd(); }

	/* Of those that resample: who listens for it. */
	Resampler *resampler = nullptr;

private:
	static Irqfd &of(glue_eventfd_waiter *waiter) { return *static_cast<Irqfd *>(waiter); }
	static void is_signalled(glue_eventfd_waiter *waiter) { of(waiter).inject(); }
	static void is_closed(glue_eventfd_waiter *waiter);
	void inject();

	Irqfds &irqfds_;
	Irqchip &irqchip_;
	const u32 gsi_;
	EventFd source_, resample_;
	std::atomic<bool> closed_{false};
};

void Resampler::acknowledged()
{
	/* Before anybody is told, who may raise it again at once. */
	irqchip_.set_irq(IrqSource::resample, gsi, false);
	irqfds_.for_each([](Irqfd &irqfd) { glue_eventfd_signal(irqfd.resample()); });
}

void Resampler::add(Irqfd &irqfd)
{
	irqfds_.push_front(irqfd);
}

void Resampler::remove(Irqfd &irqfd)
{
	irqfds_.remove(irqfd);
	irqchip_.synchronize();
}

Result<> Irqfd::find(const kvm_irqfd &request)
{
	if (Result<> r = source_.get(static_cast<int>(request.fd)); !r)
		return r;
	eventfd = source_.eventfd();
	if (request.flags & KVM_IRQFD_FLAG_RESAMPLE)
		return resample_.get(static_cast<int>(request.resamplefd));
	return {};
}

Result<> Irqfd::begin(int fd)
{
	int pending = glue_eventfd_wait(fd, this);

	if (pending < 0)
		return from_errno(pending);
	if (pending)
		inject();
	return {};
}

void Irqfd::is_closed(glue_eventfd_waiter *waiter)
{
	Irqfd &irqfd = of(waiter);

	irqfd.closed_.store(true, std::memory_order_relaxed);
	glue_work_queue(&irqfd.irqfds_);
}

/* What leads nowhere is no error: a route may be made later. */
void Irqfd::inject()
{
	if (resamples()) {
		irqchip_.set_irq(IrqSource::resample, gsi_, true);
		return;
	}
	irqchip_.set_irq(IrqSource::user, gsi_, true);
	irqchip_.set_irq(IrqSource::user, gsi_, false);
}

void Irqfds::init()
{
	lock_.init(GLUE_LOCK_IRQFDS);
	glue_work_init(this, remove_closed);
}

Result<> Irqfds::irqfd(const kvm_irqfd &request, Irqchip *irqchip)
{
	if (request.flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE))
		return Errno::inval;
	return request.flags & KVM_IRQFD_FLAG_DEASSIGN ? deassign(request)
						       : assign(request, irqchip);
}

Result<> Irqfds::assign(const kvm_irqfd &request, Irqchip *irqchip)
{
	bool resample = request.flags & KVM_IRQFD_FLAG_RESAMPLE;

	/* In user space an I/O APIC is told of the end by KVM_EXIT_IOAPIC_EOI. */
	if (!irqchip || (resample && irqchip->mode() != Irqchip::Mode::kernel))
		return Errno::inval;
	auto irqfd = Owned<Irqfd>::create(*this, *irqchip, request.gsi);
	if (!irqfd)
		return Errno::nomem;
	if (Result<> r = irqfd->find(request); !r)
		return r;

	Locked locked(lock_);
	bool busy = false;
	members_.for_each([&](const Irqfd &other) { busy |= other.source() == irqfd->source(); });
	if (busy)
		return Errno::busy;
	if (resample)
		if (Result<> r = join_resampler(*irqfd); !r)
			return r;
	if (Result<> r = irqfd->begin(static_cast<int>(request.fd)); !r) {
		if (resample)
			leave_resampler(*irqfd);
		return r;
	}
	members_.push_front(*irqfd.release());
	return {};
}

Result<> Irqfds::deassign(const kvm_irqfd &request)
{
	EventFd eventfd;

	if (Result<> r = eventfd.get(static_cast<int>(request.fd)); !r)
		return r;
	Locked locked(lock_);
	remove([&](const Irqfd &irqfd) {
		return irqfd.source() == eventfd.eventfd() && irqfd.gsi() == request.gsi;
	});
	return {};
}

Result<> Irqfds::join_resampler(Irqfd &irqfd)
{
	Resampler *resampler = nullptr;

	members_.for_each([&](const Irqfd &other) {
		if (other.resampler && other.gsi() == irqfd.gsi())
			resampler = other.resampler;
	});
	if (!resampler) {
		auto made = Owned<Resampler>::create(irqfd.irqchip(), irqfd.gsi());

		if (!made)
			return Errno::nomem;
		resampler = made.release();
		irqfd.irqchip().add(*resampler);
	}
	resampler->add(irqfd);
	irqfd.resampler = resampler;
	return {};
}

void Irqfds::leave_resampler(Irqfd &irqfd)
{
	Resampler *resampler = irqfd.resampler;

	resampler->remove(irqfd);
	if (!resampler->empty())
		return;
	irqfd.irqchip().remove(*resampler);
	/* It may be up, and nobody is left to lower it. */
	irqfd.irqchip().set_irq(IrqSource::resample, irqfd.gsi(), false);
	Owned<Resampler>::adopt(resampler);
}

void Irqfds::end()
{
	{
		Locked locked(lock_);
		remove([](const Irqfd &) { return true; });
	}
	/* It may wait for the lock. */
	glue_work_cancel(this);
}

void Irqfds::remove_closed(glue_work *work)
{
	Irqfds &irqfds = static_cast<Irqfds &>(*work);

	Locked locked(irqfds.lock_);
	irqfds.remove([](const Irqfd &irqfd) { return irqfd.closed(); });
}

template <class Matches> void Irqfds::remove(Matches matches)
{
	Members leaving;

	members_.for_each([&](Irqfd &irqfd) {
		if (matches(irqfd)) {
			irqfd.unlink();
			leaving.push_front(irqfd);
		}
	});
	while (Irqfd *irqfd = leaving.front()) {
		irqfd->unlink();
		irqfd->end();
		if (irqfd->resampler)
			leave_resampler(*irqfd);
		Owned<Irqfd>::adopt(irqfd);
	}
}

} // namespace kvmpp
