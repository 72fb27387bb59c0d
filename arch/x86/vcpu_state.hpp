/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A vCPU as plain memory: its registers, what it waits for, what user space is to be told. Exit
 * handlers work on this and on nothing else, so that each runs anywhere, a host test included.
 *
 * Registers that live in the VMCS while the guest runs belong to a Group. A group is `valid` when
 * this copy is up to date and `dirty` when it is newer than the VMCS: vmcs_state.hpp reads what a
 * handler needs before it is called, and writes what it changed before the next entry. What the
 * guest cannot change without an exit is always valid: EFER, DR7, PAT, the TSC offset, and of CR0
 * and CR4 the bits that are not in cr0_guest_owned and cr4_guest_owned.
 */
#pragma once

#include "controls.hpp"
#include "include/kvmpp/types.hpp"
#include "instruction.hpp"
#include "kvmclock.hpp"
#include "machine_check.hpp"
#include "mtrr.hpp"
#include "paravirtual.hpp"
#include "x86.hpp"

#include <atomic>
#include <bit>
#include <type_traits>

/* What entry.S moves, as it moves it; gpr[rsp] it leaves to the VMCS. */
struct kvmpp_gprs {
	kvmpp::u64 gpr[16] = {};
	kvmpp::u64 cr2 = 0;
};

namespace kvmpp
{

inline constexpr unsigned segment_count = 8;

struct Segment {
	u64 base = 0;
	u32 limit = 0;
	/* "Guest Register State": type, S, DPL, P, AVL, L, D/B, G, and 16: unusable. */
	u32 access_rights = 0;
	u16 selector = 0;

	static constexpr u32 type_mask = 0xf, s_bit = 1 << 4, present = 1 << 7, avl = 1 << 12,
			     l_bit = 1 << 13, db_bit = 1 << 14, g_bit = 1 << 15, unusable = 1 << 16;
	constexpr unsigned dpl() const { return (access_rights >> 5) & 3; }
	constexpr bool is_long() const { return access_rights & l_bit; }
	constexpr bool is_big() const { return access_rights & db_bit; }
};

struct DescriptorTable {
	u64 base = 0;
	u16 limit = 0;
};

enum class Group : u32 {
	rip = 1 << 0,
	rsp = 1 << 1,
	rflags = 1 << 2,
	cr0 = 1 << 3,
	cr3 = 1 << 4,
	cr4 = 1 << 5,
	efer = 1 << 6,
	segments = 1 << 7,
	tables = 1 << 8,           /* GDTR, IDTR */
	interruptibility = 1 << 9, /* blocking by STI, MOV SS, NMI */
	dr7 = 1 << 10,
	sysenter = 1 << 11,
	pdpte = 1 << 12,
	pat = 1 << 13,
	tsc_offset = 1 << 14,
	controls = 1 << 15, /* primary controls with the windows, exception bitmap */
	pending_debug = 1 << 16,
	ept_pointer = 1 << 17,
	/* Of segments, what the code's mode uses: in 64-bit code little. Never dirty. */
	segments_in_use = 1 << 18,
};

/* Bits that the guest changes without an exit. */
inline constexpr u64 cr0_guest_owned = cr0::mp | cr0::em | cr0::ts | cr0::wp | cr0::am;
inline constexpr u64 cr4_guest_owned =
	cr4::pvi | cr4::tsd | cr4::de | cr4::pce | cr4::osfxsr | cr4::osxmmexcpt | cr4::pge;

/* In VcpuState::interruptibility. */
inline constexpr u32 blocking_by_sti = 1, blocking_by_mov_ss = 2, blocking_by_sti_or_mov_ss = 3,
		     blocking_by_nmi = 8;

class Groups
{
public:
	constexpr Groups() = default;
	constexpr Groups(Group group) : bits_(static_cast<u32>(group)) {}
	static constexpr Groups all() { return Groups((1 << 19) - 1); }

	constexpr Groups operator|(Groups other) const { return Groups(bits_ | other.bits_); }
	constexpr Groups operator-(Groups other) const { return Groups(bits_ & ~other.bits_); }
	constexpr Groups operator&(Groups other) const { return Groups(bits_ & other.bits_); }
	constexpr bool has(Group group) const { return bits_ & static_cast<u32>(group); }
	constexpr bool empty() const { return bits_ == 0; }
	constexpr bool operator==(const Groups &) const = default;

private:
	constexpr explicit Groups(u32 bits) : bits_(bits) {}
	u32 bits_ = 0;
};

constexpr Groups operator|(Group a, Group b)
{
	return Groups(a) | Groups(b);
}

/* An exception or interrupt to be delivered at the next entry. */
struct Event {
	InterruptionInfo info;
	u32 error_code = 0;
	u32 instruction_length = 0;
	/* Its delivery had begun, before an exit or in the VM that the state comes from. */
	bool again = false;
};

/* An interrupt that user space has queued, or whose delivery is to be done again. */
struct QueuedInterrupt {
	bool queued = false;
	bool soft = false; /* INT n */
	u8 vector = 0;
	u8 instruction_length = 0;
};

struct NmiState {
	bool injected = false; /* to be delivered at the next entry, blocked or not */
	u8 queued = 0;         /* they have come since the last look at them */
	u8 pending = 0;
};

/* Which of the events is on its way in the VMCS. */
enum class Delivery : u8 { none, exception, nmi, interrupt };

/* What KVM_SET_GUEST_DEBUG has set: KVM_GUESTDBG_*, and the VMM's debug registers. */
struct GuestDebug {
	u32 control = 0;
	u64 dr[4] = {};
	u64 dr7 = 0;
	/* Linear: where RFLAGS.TF is the VMM's, and not what the guest's register is set to. */
	u64 step_from = 0;
	/* An instruction was emulated: before the next one user space is told. */
	bool step_due = false;

	static constexpr u32 enable = 1 << 0, single_step = 1 << 1, block_irq = 1 << 20,
			     software_breakpoints = 1 << 16, hardware_breakpoints = 1 << 17,
			     inject_db = 1 << 18, inject_bp = 1 << 19;
	static constexpr u32 all = enable | single_step | block_irq | software_breakpoints |
				   hardware_breakpoints | inject_db | inject_bp;
};

/* What user space is told when KVM_RUN returns; virt/ copies it into struct kvm_run. */
struct UserExit {
	u32 reason = 0; /* KVM_EXIT_* */
	union {
		struct {
			u8 direction;
			u8 size;
			u16 port;
			/* String I/O: of data, which are in VcpuState::port_page. */
			u32 string_count;
			u8 data[8];
		} io;
		struct {
			u64 phys_addr;
			u8 data[8];
			u32 len;
			bool is_write;
		} mmio;
		struct {
			u32 index;
			u64 data;
		} msr;
		struct {
			u8 vector;
		} eoi;
		struct {
			u64 hardware_entry_failure_reason;
			u32 cpu;
		} fail_entry;
		struct {
			u32 exception;
			u64 pc, dr6, dr7;
		} debug;
		struct {
			u32 suberror;
			u32 ndata;
			u64 data[16];
		} internal;
	};
};

/* An access that user space is working on; KVM_RUN finishes it when it comes back. */
struct PendingAccess {
	enum class Kind : u8 {
		none,
		port_out,
		port_in,
		string_in,
		mmio_read,
		mmio_write,
		msr_read,
		msr_write
	};

	/* The part of an MMIO access that lies in one page. */
	struct Fragment {
		GuestPhys address;
		u8 offset; /* in the data */
		u8 length;
	};

	Kind kind = Kind::none;
	bool refused = false; /* by user space: an MSR access gets its #GP */
	u8 instruction_length = 0;
	u8 size = 0; /* bytes of a datum */
	/* Of the instruction: user space may have moved the vCPU elsewhere meanwhile. */
	u64 rip = 0;
	/* MMIO: an instruction reads up to two operands, each in up to two pages. */
	static constexpr unsigned max_fragments = 4;
	u8 data[16] = {};
	Fragment fragments[max_fragments] = {};
	u8 fragment_count = 0;
	u8 fragment_next = 0; /* those before it are done */
	/* String input: where the data go in guest memory, and how the loop goes on. */
	GuestLinear string_address;
	u32 count = 0;
	u8 address_size = 0;
	bool rep = false;

	/* Else what is left is for registers, or for user space. */
	bool needs_memory() const { return kind == Kind::string_in || kind == Kind::mmio_read; }
};

/*
 * The instruction that was decoded last, which a pending MMIO access is of; and the bytes that it was decoded
 * from, as far as they were looked at: the same ones are the same instruction, wherever they are.
 */
struct DecodedInstruction {
	Instruction instruction;
	CodeSize code = CodeSize::bits16;
	bool has_bytes = false;
	u64 bytes[2] = {};

	bool is_of(const u64 (&these)[2], CodeSize in) const
	{
		return has_bytes && code == in && bytes[0] == these[0] && bytes[1] == these[1];
	}
};

/* "Page-Modification Logging": a page of addresses, from the last entry on down. */
inline constexpr u16 pml_entries = 512;

class ApicMap;
class TscRecord;

/*
 * The guest's local APIC. While the CPU's own is the guest's, only what is intercepted is here; else,
 * what that one was left with.
 */
struct LocalApic {
	static constexpr u32 masked = 1 << 16, svr_enabled = 1 << 8;

	/* It is in the kernel: virt/irqchip/. Then nothing of the rest is in use. */
	bool in_kernel = false;
	/* The guest has the APIC of the CPU that it is on. */
	bool owned = false;
	const ApicMap *map = nullptr;
	/* Set while the map is in use: see write_x2apic(). */
	std::atomic<u32> *sending = nullptr;

	u64 icr = 0;
	u32 lvt_cmci = masked, lvt_thermal = masked, lvt_performance = masked, lvt_lint0 = masked,
	    lvt_lint1 = masked;
	/* Of the CPU's APIC when it was the guest's. */
	struct Registers {
		u32 svr = 0xff, tpr = 0, lvt_error = masked, lvt_timer = masked, divide = 0,
		    initial_count = 0;
		u32 irr[8] = {};
	} real;
};

class GuestCpuid;

/* What the guest's CPUID makes of its registers: see GuestCpuid::model(). As without any CPUID. */
struct GuestModel {
	u64 cr4 = 0;  /* of cr4_by_cpuid */
	u64 xcr0 = 0; /* beside x87 */
	unsigned physical_address_bits = 36;
	bool intel = false;
	bool long_mode = false, nx = false;
	bool rdtscp = false, rdpid = false, invpcid = false;
	bool tsc_adjust = false;
	/* Without an APIC in the kernel its VMM means it to have that of the CPU that is dedicated to it. */
	bool x2apic = false;
	bool tsc_deadline = false;
};

/* Bits of CR4 that are there where CPUID has them. */
inline constexpr u64 cr4_by_cpuid =
	cr4::umip | cr4::fsgsbase | cr4::pcide | cr4::osxsave | cr4::smep | cr4::smap;

/* What an entry has to see to beside registers: at most there is nothing, which is one look at all of it. */
struct alignas(u64) DueAtEntry {
	/* The guest changed an MSR that is in the CPU, not in the VMCS, while it runs; or XCR0. */
	bool cpu_registers_dirty = false;
	/* RIP went past 4 GiB in skip_instruction(): right in 64-bit code, to be cut elsewhere. */
	bool rip_passed_4g = false;
	/* The guest's TLB entries are to be dropped. */
	bool flush_tlb = false;
	/* There is an exception to be delivered. */
	bool has_event = false;
	NmiState nmi;
	/* User space wants to know when an interrupt can be delivered. */
	bool window_wanted = false;
	QueuedInterrupt interrupt;
	/* Of the primary controls, the windows to exit for. */
	u32 windows = 0;
};
static_assert(std::has_unique_object_representations_v<DueAtEntry>);

/* gpr[rsp] belongs to Group::rsp. */
struct VcpuState : kvmpp_gprs, DueAtEntry {
	/* What it is, and its MSRs in memory of their own: they stay at reset. */
	GuestModel model;
	const GuestCpuid *cpuid = nullptr; /* never null while the guest runs */
	MachineCheck *machine_check = nullptr;
	/* Of the VM, if vCPUs are to agree. */
	TscRecord *tsc_record = nullptr;

	u64 rip = 0;
	u64 rflags = 0;
	u64 cr0 = 0;
	u64 cr3 = 0;
	u64 cr4 = 0;
	u64 cr8 = 0;
	u64 efer = 0;
	u64 xcr0 = 1;
	Segment segment[segment_count];
	DescriptorTable gdtr, idtr;
	u32 interruptibility = 0;
	u64 pending_debug = 0;
	u64 dr[4] = {};
	u64 dr6 = 0;
	u64 dr7 = 0;
	u64 pdpte[4] = {};
	u64 sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
	u64 pat = 0;
	u64 tsc_offset = 0;
	/* MSRs that are in the CPU, not in the VMCS, while the guest runs. */
	u64 star = 0, lstar = 0, cstar = 0, syscall_mask = 0;
	u64 kernel_gs_base = 0;
	u64 tsc_aux = 0;
	/* MSRs that exist only here. */
	u64 apic_base = 0;
	u64 misc_enable = 0;
	u64 tsc_adjust = 0;
	u64 feature_control = 0;
	u64 microcode_version = 0;
	u64 power_control = 0;
	u64 smi_count = 0;
	Mtrrs mtrrs;
	LocalApic apic;
	GuestClock clock;
	GuestParavirtual paravirtual;

	Groups valid;
	Groups dirty;
	/* From this entry of the page-modification log on, it has pages that no slot's log has. */
	u16 pml_first = pml_entries;

	/* In the order of their priority: see settle_events(). */
	/* An error that it cannot be told of: it shuts down in place of its next entry. */
	bool shutdown_pending = false;
	Event event; /* an exception, when has_event */
	Delivery delivering = Delivery::none;
	/* Of the software exception or interrupt seen last: for one that user space has injected. */
	u32 soft_length = 0;

	/* What the VMCS was set up with, without windows. */
	u32 primary_controls = 0;
	/* Of the VM's EPT, as this vCPU uses it: see Ept::give_up_accessed_bits(). */
	u64 ept_pointer = 0;
	GuestDebug debug;

	PendingAccess pending;
	DecodedInstruction decoded;
	UserExit user;
	/* The data of string I/O. User space has it mapped and may change it at any time. */
	u8 *port_page = nullptr;

	Segment &seg(Seg s) { return segment[static_cast<unsigned>(s)]; }
	const Segment &seg(Seg s) const { return segment[static_cast<unsigned>(s)]; }

	bool long_mode() const { return efer & efer::lma; }
	bool code64() const { return long_mode() && seg(Seg::cs).is_long(); }
	bool paging() const { return cr0 & cr0::pg; }
	bool pae_paging() const { return paging() && (cr4 & cr4::pae) && !long_mode(); }
	unsigned cpl() const { return seg(Seg::ss).dpl(); }
	bool is_debugged(u32 how) const { return debug.control & how; }
	/* The next entry has more to see to than what is dirty. */
	bool is_due() const
	{
		return std::bit_cast<unsigned __int128>(static_cast<const DueAtEntry &>(*this)) ||
		       is_debugged(GuestDebug::single_step);
	}
	/* Those that the guest runs with. */
	u64 effective_dr7() const
	{
		return is_debugged(GuestDebug::hardware_breakpoints) ? debug.dr7 : dr7;
	}
	const u64 (&effective_dr() const)[4]
	{
		return is_debugged(GuestDebug::hardware_breakpoints) ? debug.dr : dr;
	}
	/* Needs segments. */
	u64 linear_rip() const
	{
		return code64() ? rip : static_cast<u32>(seg(Seg::cs).base + rip);
	}
	/* RFLAGS without the VMM's TF. Needs rflags. */
	u64 own_rflags() const
	{
		return is_debugged(GuestDebug::single_step) ? rflags & ~rflags::tf : rflags;
	}

	void mark_dirty(Groups groups)
	{
		dirty = dirty | groups;
		valid = valid | groups;
	}

	/* The state after RESET ("Processor State After Reset"). */
	void reset(u32 vcpu_id, u64 tsc_offset_at_reset);
	/* And after INIT, from a state that is all valid: FPU and MSRs stay. */
	void init();
	/* The start-up IPI with @vector after that. */
	void start_at(u8 vector);

	/*
	 * The instruction at RIP is done. Needs rip, rflags, interruptibility. A single-step trap
	 * that was due after it becomes pending: the guest's, or the VMM's.
	 */
	void skip_instruction(u32 length)
	{
		u64 before = rip;

		rip += length;
		rip_passed_4g = (before ^ rip) >> 32;
		mark_dirty(Group::rip);
		if ((interruptibility & blocking_by_sti_or_mov_ss) || (rflags & rflags::tf) ||
		    is_debugged(GuestDebug::single_step)) [[unlikely]]
			end_instruction();
	}

	/*
	 * A fault or trap for the guest; two that meet become a double fault, or a triple fault,
	 * for which this returns false ("Conditions for Generating a Double Fault").
	 */
	[[nodiscard]] bool inject(Vector vector);
	[[nodiscard]] bool inject(Vector vector, u32 error_code);
	[[nodiscard]] bool inject_page_fault(u64 address, u32 error_code);

private:
	[[nodiscard]] bool inject(InterruptionInfo info, u32 error_code);
	void reset_registers();
	void end_instruction();
};

} // namespace kvmpp
