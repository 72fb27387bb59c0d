/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A VMCS and the CPU that may hold part of it. Processors keep a VMCS's contents in internal state
 * from VMPTRLD until VMCLEAR on that same CPU; before anybody else uses the memory, that CPU must
 * have cleared it. Only the CPU that a VMCS is on changes this record, with interrupts off; others
 * ask it by IPI, and find nothing to do if they come late.
 */
#pragma once

#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/list.hpp"
#include "include/kvmpp/owned.hpp"
#include "include/kvmpp/types.hpp"
#include "vmcs_field.hpp"
#include "vmx_insn.hpp"

#include <atomic>

namespace kvmpp
{

class LoadedVmcs;
class VmxCpu;

/* Why a VMCS is cleared; each is counted. */
enum class ClearCause {
	move,    /* its vCPU goes on on another CPU */
	free,    /* its vCPU is gone */
	offline, /* VMX goes off on its CPU: hotplug, suspend, the machine goes down */
	put,     /* not exclusive: its vCPU's thread leaves the CPU, and VMX goes off there */
	crash,   /* the kernel has crashed */
};
inline constexpr unsigned clear_causes = 5;
const char *clear_cause_name(ClearCause cause);

/* Whose it is, for those who look at the module from outside. */
struct VmcsOwner {
	u32 process = 0; /* that made the VM, as user space numbers it */
	u32 vm = 0;      /* counted from the module's start */
	u32 vcpu = 0;
};

/*
 * The scope in which a VMCS is current on this CPU and may be read and written. A failed access is
 * remembered; ok() is looked at once, after the last one.
 */
class ActiveVmcs
{
public:
	template <u32 Encoding> typename Field<Encoding>::Value read(Field<Encoding>)
	{
		return static_cast<typename Field<Encoding>::Value>(read_encoding(Encoding));
	}
	template <u32 Encoding>
	void write(Field<Encoding>, std::type_identity_t<typename Field<Encoding>::Value> value)
	{
		static_assert(!Field<Encoding>::read_only);
		write_encoding(Encoding, value);
	}
	/* For the rows of segment_field(). */
	u64 read_encoding(u32 encoding)
	{
		u64 value;

		if (!insn::vmread(encoding, value)) [[unlikely]]
			failed_ = encoding | failed_bit;
		return value;
	}
	void write_encoding(u32 encoding, u64 value)
	{
		if (!insn::vmwrite(encoding, value)) [[unlikely]]
			failed_ = encoding | failed_bit;
	}

	/* Errno::io, and one line in the log, if an access failed since the scope began. */
	Result<> ok() const;
	bool failed() const { return failed_ != 0; }
	inline bool launched() const;
	/* To be called when VMLAUNCH has succeeded. */
	inline void set_launched();

private:
	friend class LoadedVmcs;
	static constexpr u32 failed_bit = 1;

	explicit ActiveVmcs(LoadedVmcs &vmcs) : vmcs_(&vmcs) {}

	LoadedVmcs *vmcs_;
	u32 failed_ = 0;
};

class LoadedVmcs : public ListLink<LoadedVmcs>
{
public:
	LoadedVmcs() = default;
	LoadedVmcs(const LoadedVmcs &) = delete;
	LoadedVmcs &operator=(const LoadedVmcs &) = delete;
	/* Clears it where it is and frees it. Interrupts on; may sleep. */
	~LoadedVmcs();

	/* Gives it memory. May sleep. Errno::nomem. */
	Result<> create(u32 revision, const VmcsOwner &owner) MAY_SLEEP;

	/* If another CPU has it, has that one clear it. Interrupts on. */
	void leave_other_cpu(const PreemptOff &preempt) WAITS_FOR_IPIS
	{
		if (CpuId on = cpu(); !on.is_none() && on != preempt.cpu())
			clear(ClearCause::move);
	}
	/*
	 * Makes it current on this CPU. It must be on no other CPU: see leave_other_cpu().
	 * Errno::again when it is, or when VMX is off here because the CPU is about to go offline;
	 * the caller switches interrupts on and tries again, there or elsewhere. Errno::busy when
	 * another hypervisor is in VMX operation here, Errno::io when an instruction fails.
	 */
	Result<ActiveVmcs> load(const IrqOff &irq) REQUIRES(irqs_off);

	/*
	 * Has the CPU that it is on, if any, clear it. Afterwards it is on none, unless somebody
	 * loaded it meanwhile. Interrupts on; preemption may be off.
	 */
	void clear(ClearCause cause) WAITS_FOR_IPIS;

	/*
	 * On a CPU that Linux does not have, by that CPU, which has no list and no other VMCS: makes it
	 * current there, it being on no other CPU; and clears it, which nobody else can.
	 */
	Result<ActiveVmcs> load_dedicated(CpuId cpu);
	void clear_dedicated();

	/* The CPU it is on or none; may have changed when it is looked at. */
	CpuId cpu() const { return {cpu_.load(std::memory_order_acquire)}; }
	const VmcsOwner &owner() const { return owner_; }
	/* Of one that is on this CPU. */
	bool launched(const IrqOff &) const REQUIRES(irqs_off) { return launched_; }

private:
	friend class ActiveVmcs;
	friend class VmxCpu;

	/* On the CPU it is on, and nowhere else; a no-op elsewhere. */
	void clear_here(const IrqOff &irq, ClearCause cause) REQUIRES(irqs_off);

	Page page_;
	HostPhys phys_;
	VmcsOwner owner_;
	/* Written by the CPU it is on only, or by load() where it is on none. */
	std::atomic<int> cpu_{-1};
	bool launched_ = false;
	bool cleared_once_ = false;
};

bool ActiveVmcs::launched() const
{
	return vmcs_->launched_;
}

void ActiveVmcs::set_launched()
{
	vmcs_->launched_ = true;
}

} // namespace kvmpp
