/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The interrupt controllers of a VM that are in the kernel: local APICs only, with the rest in user space
 * (KVM_CAP_SPLIT_IRQCHIP), or 8259s and I/O APIC too (KVM_CREATE_IRQCHIP). Made before the first vCPU.
 */
#pragma once

#include "apic_bus.hpp"
#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/owned.hpp"
#include "include/kvmpp/reader_list.hpp"
#include "ioapic.hpp"
#include "irq_line.hpp"
#include "irq_routing.hpp"
#include "pic.hpp"
#include "virt/io_table.hpp"
#include "x2apic_api.hpp"

#include <linux_glue/timer.h>

#include <atomic>

namespace kvmpp
{

class Pit;

/* Told when a guest has acknowledged what came by a line. */
class IrqAckListener : public ReaderLink<IrqAckListener>
{
public:
	u32 gsi = 0;
	/* Any context but NMI, no lock of the controllers held; interrupts may be off. */
	virtual void acknowledged() = 0;

protected:
	~IrqAckListener() = default;
};

/* An access of a guest to a device in the kernel. */
struct DeviceAccess {
	IoSpace space = IoSpace::mmio;
	bool is_write = false;
	u64 address = 0;
	u32 length = 0; /* up to 8 */
	u8 data[8] = {};
};

class Irqchip
{
public:
	enum class Mode : u8 { split, kernel };

	/*
	 * @vcpus and @api are the VM's. @user_pins: with Mode::split, how many GSIs are pins of user space's I/O
	 * APIC. Errno::nomem. May sleep.
	 */
	static Result<Owned<Irqchip>> create(Mode mode, u32 user_pins, const VcpuTable &vcpus,
					     const X2apicApi &api) MAY_SLEEP;

	Mode mode() const { return mode_; }
	const ApicBus &bus() const { return bus_; }

	/* KVM_CREATE_PIT2, with Mode::kernel. Errno::exist, nomem. May sleep. */
	Result<> create_pit(bool speaker) MAY_SLEEP;
	/* Null without one; one that is there stays. */
	Pit *pit() const { return pit_.load(std::memory_order_acquire); }

	/*
	 * KVM_SET_GSI_ROUTING: what is sent from its return on goes by @entries. Errno::inval, nomem. May sleep;
	 * not inside acknowledged().
	 */
	Result<> set_routing(std::span<const kvm_irq_routing_entry> entries)
		EXCLUDES(srcu_) MAY_SLEEP;
	/*
	 * KVM_IRQ_LINE, an irqfd, the PIT: what ApicBus::deliver() says; negative also where nothing is routed.
	 * What is routed to a message has no level: it is sent when @level is true. Any context but NMI.
	 */
	int set_irq(IrqSource source, u32 gsi, bool level) EXCLUDES(lock_);
	/* KVM_SIGNAL_MSI: the same. Errno::inval. */
	Result<int> signal(const Msi &message) const;

	void add(IrqAckListener &listener) EXCLUDES(lock_);
	/* Not inside acknowledged(); nobody is in it when this returns. May sleep. */
	void remove(IrqAckListener &listener) EXCLUDES(lock_, srcu_) MAY_SLEEP;
	/* Whoever was in acknowledged() when this was called has left it. Not inside it. May sleep. */
	void synchronize() EXCLUDES(srcu_) MAY_SLEEP { srcu_.synchronize(); }

	/* False: no device here is at that address. By the thread of a vCPU. */
	bool access(DeviceAccess &access) EXCLUDES(lock_);

	/*
	 * A local APIC has ended an interrupt, edge-triggered ones as well, for whose ends the PIT waits. @level:
	 * it was level-triggered, and its end goes to the I/O APIC. Any context but NMI.
	 */
	void end_of_interrupt(u8 vector, bool level) EXCLUDES(lock_);
	/*
	 * What a vCPU writes to an MSR of its local APIC, if that takes no sleep and little time: ICR for one vCPU,
	 * EOI whose interrupt nobody waits for, and IA32_TSC_DEADLINE, of a guest's TSC with that offset, where
	 * the CPU watches it. False: nothing was done. By its thread; interrupts may be off.
	 */
	bool write_at_once(Lapic &lapic, u32 index, u64 value, u64 tsc_offset);
	/* Whether user space is to be told of that instead: KVM_EXIT_IOAPIC_EOI. */
	bool user_wants_end_of(u8 vector);

	/* The 8259s hold INTR up; and the acknowledge cycle, which gives the vector. Any context but NMI. */
	bool has_external_interrupt() const { return intr_.load(std::memory_order_acquire); }
	u8 acknowledge_external_interrupt() EXCLUDES(lock_);

	/* KVM_GET_IRQCHIP and KVM_SET_IRQCHIP, with Mode::kernel. */
	void get_pic(unsigned chip, kvm_pic_state &state) EXCLUDES(lock_);
	void set_pic(unsigned chip, const kvm_pic_state &state) EXCLUDES(lock_);
	void get_ioapic(kvm_ioapic_state &state) EXCLUDES(lock_);
	void set_ioapic(const kvm_ioapic_state &state) EXCLUDES(lock_);

private:
	template <class T> friend class Owned;
	Irqchip(Mode mode, u32 user_pins, const VcpuTable &vcpus, const X2apicApi &api);
	~Irqchip();
	Result<> init() MAY_SLEEP;

	const IrqRouting &routing(const SrcuRead &) const REQUIRES_SHARED(srcu_)
	{
		return *routing_.load(std::memory_order_acquire);
	}
	bool access_pic(DeviceAccess &access) EXCLUDES(lock_);
	bool access_ioapic(DeviceAccess &access) EXCLUDES(lock_);
	/* Its address alone may be looked at without the lock. */
	bool ioapic_has(u64 address, u32 length) const NO_THREAD_SAFETY_ANALYSIS
	{
		return ioapic_.has_address(address, length);
	}
	template <class Use> void use_pic(Use use) EXCLUDES(lock_);
	void update_intr() REQUIRES(lock_);
	static u64 resend(glue_timer *timer);
	void tell_listeners(IrqchipId chip, u32 pins) EXCLUDES(lock_);

	const Mode mode_;
	const u32 user_pins_;
	const X2apicApi &api_;
	const ApicBus bus_;

	/* Written by exchange, read under srcu_. */
	std::atomic<IrqRouting *> routing_{nullptr};
	Srcu srcu_;
	bool srcu_made_ = false;

	IrqSpinLock lock_ ACQUIRED_AFTER(srcu_);
	Pic pic_ GUARDED_BY(lock_);
	VectorSet ioapic_vectors_;
	Ioapic ioapic_ GUARDED_BY(lock_){bus_, ioapic_vectors_};
	/*
	 * For a guest that ends an interrupt, and has it again before its next instruction, since the driver that
	 * would serve the device is not there yet: now and then it is to get on. A real I/O APIC takes its time.
	 */
	struct ResendTimer : glue_timer {
		Irqchip *irqchip;
	} resend_timer_;
	static constexpr u64 resend_after = 10'000'000; /* ns */

	/* Written under lock_. */
	std::atomic<bool> intr_{false};
	/* Changed under lock_, read under srcu_. */
	ReaderList<IrqAckListener> listeners_;
	/* Written once. */
	std::atomic<Pit *> pit_{nullptr};
};

} // namespace kvmpp
