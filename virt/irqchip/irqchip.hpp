/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The interrupt controllers of a VM that are in the kernel: local APICs only, with the rest in user space
 * (KVM_CAP_SPLIT_IRQCHIP), or 8259s and I/O APIC too (KVM_CREATE_IRQCHIP). Made before the first vCPU.
 */
#pragma once

#include "apic_bus.hpp"
#include "include/kvmpp/list.hpp"
#include "include/kvmpp/owned.hpp"
#include "virt/io_table.hpp"

namespace kvmpp
{

/* Who holds a line: it is up while any of them holds it up. */
enum class IrqSource : u8 { user, resample, pit };

/* Told when a guest has acknowledged what came by a line. */
struct IrqAckTag;
class IrqAckListener : public ListLink<IrqAckTag>
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
	 * KVM_IRQ_LINE, an irqfd, the PIT: what ApicBus::deliver() says. Errno::inval: there is no such GSI. Any
	 * context but NMI.
	 */
	Result<int> set_irq(IrqSource source, u32 gsi, bool level);
	/* Whether set_irq() of @gsi is of a message, which has no level. */
	void add(IrqAckListener &listener);
	/* Not inside acknowledged(); nobody is in it when this returns. May sleep. */
	void remove(IrqAckListener &listener) MAY_SLEEP;

	/* False: no device here is at that address. */
	bool access(DeviceAccess &access);

	/* A local APIC has ended an interrupt that was level-triggered. By the thread of the vCPU. */
	void end_of_interrupt(u32 apic_id, u8 vector);
	/* Whether user space is to be told of that instead: KVM_EXIT_IOAPIC_EOI. */
	bool user_wants_end_of(u32 apic_id, u8 vector) const;

	/* The 8259s hold INTR up; and the acknowledge cycle, which gives the vector. */
	bool has_external_interrupt() const;
	u8 acknowledge_external_interrupt();
};

} // namespace kvmpp
