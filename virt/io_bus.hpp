/* SPDX-License-Identifier: GPL-2.0 */
/* What of a VM takes its guests' writes to devices without user space, and the ioctls for it. */
#pragma once

#include "coalesced_ring.hpp"
#include "include/kvmpp/guards.hpp"
#include "io_table.hpp"

#include <atomic>

struct kvm_ioeventfd;
struct kvm_coalesced_mmio_zone;

namespace kvmpp
{

class IoBus
{
public:
	/* Those who look at the tables do so inside @srcu, which outlives it. */
	explicit IoBus(Srcu &srcu) : srcu_(srcu) {}
	IoBus(const IoBus &) = delete;
	IoBus &operator=(const IoBus &) = delete;
	/* Nobody is inside @srcu. */
	~IoBus();
	/* Errno::nomem. May sleep. */
	Result<> create() MAY_SLEEP;

	/*
	 * KVM_IOEVENTFD. The eventfd stays until it is taken out or the VM ends, whoever closes it
	 * meanwhile. Errno::inval, exist, noent, nospc, nomem, EBADF. Not inside the SRCU; may sleep.
	 */
	Result<> ioeventfd(const kvm_ioeventfd &request) EXCLUDES(lock_) MAY_SLEEP;
	/* KVM_REGISTER_COALESCED_MMIO and its opposite. Errno::inval, nospc, nomem. The same. */
	Result<> coalesce(const kvm_coalesced_mmio_zone &zone) EXCLUDES(lock_) MAY_SLEEP;
	Result<> uncoalesce(const kvm_coalesced_mmio_zone &zone) EXCLUDES(lock_) MAY_SLEEP;

	/* True: somebody has taken it, and user space need not see it. */
	bool take(const IoWrite &write);
	/* Else take() need not be asked, of a write there. */
	bool has_takers(IoSpace space) const
	{
		return has_takers_[static_cast<unsigned>(space)].load(std::memory_order_acquire);
	}
	void *ring_page() const { return ring_.page(); }

private:
	Result<> assign(IoSpace space, const kvm_ioeventfd &request) EXCLUDES(lock_) MAY_SLEEP;
	Result<> deassign(IoSpace space, const kvm_ioeventfd &request) EXCLUDES(lock_) MAY_SLEEP;
	const IoTable &table(IoSpace space) const
	{
		return *tables_[static_cast<unsigned>(space)].load(std::memory_order_relaxed);
	}
	Result<> add(IoSpace space, const IoTaker &taker) REQUIRES(lock_) MAY_SLEEP;
	/* As Vm::publish(). */
	void publish(IoSpace space, Owned<IoTable> table) REQUIRES(lock_) MAY_SLEEP;

	Srcu &srcu_;
	Mutex lock_;
	/* Written under lock_, read under srcu_. */
	std::atomic<IoTable *> tables_[io_spaces] = {};
	/* Whether the table has any. Written under lock_. */
	std::atomic<bool> has_takers_[io_spaces] = {};
	CoalescedRing ring_;
};

} // namespace kvmpp
