/* SPDX-License-Identifier: GPL-2.0 */
/* A VM exit as a record, and which parts of the VMCS each kind of exit has to be read for. */
#pragma once

#include "controls.hpp"
#include "include/kvmpp/types.hpp"
#include "vcpu_state.hpp"

namespace kvmpp
{

struct Exit {
	u32 raw_reason = 0;
	u32 instruction_length = 0;
	u64 qualification = 0;
	u64 guest_linear = 0;
	GuestPhys guest_phys;
	InterruptionInfo interruption;
	u32 interruption_error_code = 0;
	InterruptionInfo vectoring;
	u32 vectoring_error_code = 0;
	u32 instruction_info = 0;
	CpuId cpu; /* the exit happened on */
	/* More than the reason and the instruction's length is there: else all other fields are 0. */
	bool has_more = false;

	/* Another one, on the same CPU. */
	void renew(u32 reason)
	{
		if (has_more) {
			CpuId here = cpu;

			*this = Exit();
			cpu = here;
		}
		raw_reason = reason;
	}
	ExitReason reason() const { return static_cast<ExitReason>(raw_reason & 0xffff); }
	/* "VM-entry failure": the guest did not run. */
	bool entry_failed() const { return raw_reason & (u32{1} << 31); }
	/* An interrupt of the host's, which comes when interrupts are on again. */
	bool is_interrupt() const
	{
		return raw_reason == static_cast<u32>(ExitReason::external_interrupt);
	}
	/* It is the host's NMI. */
	bool is_nmi() const
	{
		return !entry_failed() && reason() == ExitReason::exception_or_nmi &&
		       interruption.type() == InterruptionInfo::Type::nmi;
	}
	/* The guest consumed what is bad, or the entry did. */
	bool is_machine_check() const
	{
		return reason() == ExitReason::machine_check_on_entry ||
		       (!entry_failed() && reason() == ExitReason::exception_or_nmi &&
			static_cast<Vector>(interruption.vector()) == Vector::machine_check);
	}
};

/* What of the exit's own fields a handler reads. */
struct ExitFields {
	bool instruction_length : 1 = false;
	bool qualification : 1 = false;
	bool addresses : 1 = false;    /* guest linear, guest physical */
	bool interruption : 1 = false; /* information and error code */
	bool vectoring : 1 = false;    /* the exit may interrupt the delivery of an event */
	bool of_string : 1 = false;    /* INS, OUTS: guest linear, instruction information */
};

/* What the handlers of a kind of exit need. */
struct ExitNeeds {
	ExitFields fields;
	/* More of them than the instruction length, which most that are frequent do with. */
	bool more = false;
	/* Of the guest's state, unless it depends on the fields. */
	bool depends = false;
	Groups state;
};
/* Of tables by basic exit reason; the last row is for reasons that there are not, and for failed entries. */
inline constexpr unsigned exit_rows = static_cast<unsigned>(ExitReason::count) + 1;
unsigned odd_exit_row(u32 raw_reason);
inline unsigned exit_row(u32 raw_reason)
{
	if (raw_reason >= exit_rows) [[unlikely]]
		return odd_exit_row(raw_reason);
	return raw_reason;
}

struct NeedsOfExits {
	ExitNeeds of[exit_rows];

	constexpr NeedsOfExits();
};
extern const NeedsOfExits needs_of_exits;

/* "Information for VM Exits Due to Vectored Events": the exit is of an IRET, which is to be done anew. */
bool unblocked_nmis(const Exit &exit);

/* As ExitNeeds::state, where that depends. */
Groups dependent_exit_state(const Exit &exit);
/* What of the guest's state its handler reads; @exit has the fields of @needs, which are its own. */
inline Groups exit_state(const ExitNeeds &needs, const Exit &exit)
{
	return needs.depends ? dependent_exit_state(exit) : needs.state;
}

/* What VcpuState::skip_instruction() needs, after any instruction that the host completes. */
inline constexpr Groups skip_state = Group::rip | Group::rflags | Group::interruptibility;

/*
 * What the emulation of an instruction on memory needs: all of an address, and of the way it is translated.
 * Of CR4 nothing that the guest changes without an exit.
 */
inline constexpr Groups emulation_state = Group::rip | Group::rsp | Group::rflags | Group::cr0 |
					  Group::cr3 | Group::segments_in_use |
					  Group::interruptibility | Group::pdpte;

/* "Exit Qualification for Control-Register Accesses" */
struct CrAccess {
	enum class Type : u8 { mov_to, mov_from, clts, lmsw };
	u8 cr;
	Type type;
	Gpr reg;
	u16 lmsw_source;

	explicit CrAccess(u64 qualification)
		: cr(qualification & 0xf), type(static_cast<Type>((qualification >> 4) & 3)),
		  reg(static_cast<Gpr>((qualification >> 8) & 0xf)),
		  lmsw_source(static_cast<u16>(qualification >> 16))
	{
	}
};

/* "Exit Qualification for MOV DR" */
struct DrAccess {
	u8 dr;
	bool from;
	Gpr reg;

	explicit DrAccess(u64 qualification)
		: dr(qualification & 7), from(qualification & (1 << 4)),
		  reg(static_cast<Gpr>((qualification >> 8) & 0xf))
	{
	}
};

/* "Exit Qualification for I/O Instructions" */
struct IoAccess {
	u8 size;
	bool in;
	bool string;
	bool rep;
	u16 port;

	explicit IoAccess(u64 qualification)
		: size(static_cast<u8>((qualification & 7) + 1)), in(qualification & (1 << 3)),
		  string(qualification & (1 << 4)), rep(qualification & (1 << 5)),
		  port(static_cast<u16>(qualification >> 16))
	{
	}
};

/* "Exit Qualification for EPT Violations" */
struct EptViolation {
	bool write;
	bool fetch;
	bool linear_valid;
	/* Of the guest's paging structures, on the way to a linear address. */
	bool page_walk;
	/* There was something, which did not allow the access. */
	bool mapped;

	explicit EptViolation(u64 qualification)
		: write(qualification & (1 << 1)), fetch(qualification & (1 << 2)),
		  linear_valid(qualification & (1 << 7)),
		  page_walk(linear_valid && !(qualification & (1 << 8))),
		  mapped(qualification & (7 << 3))
	{
	}
};

} // namespace kvmpp
