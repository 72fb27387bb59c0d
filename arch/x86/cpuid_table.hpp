/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The CPUID of a guest: what its VMM has set, entry by entry, and what follows from it for the guest's
 * registers. A vCPU has none until it is set. Dedicated CPUs see it.
 */
#pragma once

#include "cpu_insn.hpp"
#include "include/kvmpp/result.hpp"
#include "vcpu_state.hpp"

namespace kvmpp
{

/* KVM's entry without its padding. */
struct CpuidEntry {
	u32 function = 0, index = 0, flags = 0;
	u32 eax = 0, ebx = 0, ecx = 0, edx = 0;

	/* KVM_CPUID_FLAG_SIGNIFCANT_INDEX: it is for this subleaf only. */
	static constexpr u32 has_index = 1;

	bool is_for(u32 leaf, u32 subleaf) const
	{
		if (function != leaf)
			return false;
		return !(flags & has_index) || index == subleaf;
	}
	insn::CpuidResult result() const { return {eax, ebx, ecx, edx}; }

	bool operator==(const CpuidEntry &) const = default;
};

class GuestCpuid
{
public:
	/* KVM_MAX_CPUID_ENTRIES */
	static constexpr u32 max_entries = 256;

	GuestCpuid()
	{
		for (u16 &first : first_)
			first = none;
	}
	u32 count() const { return count_; }
	/* For who fills it, in order. False: it is full. */
	bool add(const CpuidEntry &entry);

	/*
	 * Whether a guest can have it: Errno::inval for a width of linear addresses that there is not,
	 * Errno::perm for state that takes a permission which nobody has here.
	 */
	Result<> check() const;
	/* What the guest can do by it. */
	GuestModel model() const;

	const CpuidEntry &entry(u32 i) const { return entries_[i]; }
	/* An entry with what depends on the vCPU's registers; @i is below count(). */
	CpuidEntry as_seen(u32 i, const VcpuState &state) const;
	/* Whether @other says the same of a vCPU in @state. */
	bool is_same(const GuestCpuid &other, const VcpuState &state) const;

	/* The instruction. */
	insn::CpuidResult ask(const VcpuState &state, u32 leaf, u32 subleaf) const;
	/* The same where an entry has it as it stands; else false. */
	bool ask_constant(u32 leaf, u32 subleaf, insn::CpuidResult &result) const
	{
		/* Of those that as_found() changes. */
		const u32 depend = 1u << chain_of(1) | 1u << chain_of(7) | 1u << chain_of(0xd);
		u32 chain = chain_of(leaf);

		if (1u << chain & depend)
			return false;
		for (u32 i = first_[chain]; i != none; i = next_[i]) {
			if (!entries_[i].is_for(leaf, subleaf))
				continue;
			result = entries_[i].result();
			return true;
		}
		return false;
	}

private:
	static constexpr u16 none = 0xffff;

	/* Where the search for a function's entries begins; in order they are linked by next_. */
	static constexpr u32 chains = 32;
	static constexpr u32 chain_of(u32 function) { return (function ^ function >> 27) % chains; }
	/* The first entry for both, or null; for a function alone, whatever its index. */
	const CpuidEntry *find(u32 function, u32 index) const
	{
		for (u32 i = first_[chain_of(function)]; i != none; i = next_[i])
			if (entries_[i].is_for(function, index))
				return &entries_[i];
		return nullptr;
	}
	const CpuidEntry *find(u32 function) const;
	/* as_seen() of one that find() has found. */
	static CpuidEntry as_found(CpuidEntry entry, const VcpuState &state);
	const CpuidEntry *find_out_of_range(u32 &function, u32 index) const;
	bool is_amd() const;

	u32 count_ = 0;
	CpuidEntry entries_[max_entries];
	u16 first_[chains], next_[max_entries];
};

} // namespace kvmpp
