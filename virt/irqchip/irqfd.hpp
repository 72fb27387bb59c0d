/* SPDX-License-Identifier: GPL-2.0 */
/* KVM_IRQFD: eventfds of user space whose signals are interrupts of a VM's. */
#pragma once

#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/list.hpp"

#include <linux_glue/workqueue.h>

struct kvm_irqfd;

namespace kvmpp
{

class Irqchip;
class Irqfd;
struct IrqfdTag;

/* Those of a VM. Its work takes away those whose eventfd was closed, which its closing alone cannot wait for. */
class Irqfds : private glue_work
{
public:
	Irqfds() = default;
	Irqfds(const Irqfds &) = delete;
	Irqfds &operator=(const Irqfds &) = delete;
	/* Once. */
	void init();

	/*
	 * KVM_IRQFD. @irqchip, which outlives it, is null where the VM has none. A GSI that leads nowhere is
	 * no error, nor is one to be taken out that is not there. Errno::inval, busy, nomem, EBADF. May sleep.
	 */
	Result<> irqfd(const kvm_irqfd &request, Irqchip *irqchip) EXCLUDES(lock_) MAY_SLEEP;
	/* All go: the VM's file is closed, and no more come. May sleep. */
	void end() EXCLUDES(lock_) MAY_SLEEP;

private:
	friend class Irqfd;
	using Members = List<Irqfd, IrqfdTag>;

	Result<> assign(const kvm_irqfd &request, Irqchip *irqchip) EXCLUDES(lock_) MAY_SLEEP;
	Result<> deassign(const kvm_irqfd &request) EXCLUDES(lock_) MAY_SLEEP;
	Result<> join_resampler(Irqfd &irqfd) REQUIRES(lock_) MAY_SLEEP;
	void leave_resampler(Irqfd &irqfd) REQUIRES(lock_) MAY_SLEEP;
	/* Those that @matches() says go. */
	template <class Matches> void remove(Matches matches) REQUIRES(lock_) MAY_SLEEP;
	static void remove_closed(glue_work *work);

	Mutex lock_;
	Members members_ GUARDED_BY(lock_);
};

} // namespace kvmpp
