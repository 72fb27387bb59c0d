// SPDX-License-Identifier: GPL-2.0
#include "paging.hpp"

namespace kvmpp
{

namespace
{

constexpr u64 entry_present = 1 << 0, entry_writable = 1 << 1, entry_user = 1 << 2,
	      entry_accessed = 1 << 5, entry_dirty = 1 << 6, entry_large = 1 << 7,
	      entry_nx = u64{1} << 63;
constexpr u64 address_field = 0x000ffffffffff000;

/* "Page-Fault Exception": bits of the error code. */
constexpr u32 error_present = 1 << 0, error_write = 1 << 1, error_user = 1 << 2,
	      error_fetch = 1 << 4;

/* What a walk has come by: all entries must grant W and U, one denies X. */
struct Passed {
	u64 in_all = ~u64{0};
	u64 in_any = 0;

	void add(u64 entry)
	{
		in_all &= entry;
		in_any |= entry;
	}
};

/* "Determination of Access Rights" */
bool allowed(const VcpuState &s, const Passed &passed, PageAccess access, bool user_mode, bool nx)
{
	bool writable = passed.in_all & entry_writable, user = passed.in_all & entry_user;

	if (access.fetch && nx && (passed.in_any & entry_nx))
		return false;
	if (user_mode)
		return user && (!access.write || writable);
	if (user) {
		if (access.fetch)
			return !(s.cr4 & cr4::smep);
		if ((s.cr4 & cr4::smap) && !(s.rflags & rflags::ac))
			return false;
	}
	return !access.write || writable || !(s.cr0 & cr0::wp);
}

/* The entries that a walk has used, from the root on. */
class Used
{
public:
	explicit Used(unsigned entry_bytes) : entry_bytes_(entry_bytes) {}

	void add(GuestPhys address, u64 entry)
	{
		address_[count_] = address.value;
		entry_[count_++] = entry;
	}
	/*
	 * "Accessed and Dirty Flags", from the root on. Tables that cannot be written are left as they
	 * are. False where an entry has changed since it was read. Errno::fault.
	 */
	Result<bool> set_flags(const GuestMemory &memory, bool write) const
	{
		for (unsigned i = 0; i < count_; i++) {
			bool is_leaf = i + 1 == count_;
			u64 wanted =
				entry_[i] | entry_accessed | (write && is_leaf ? entry_dirty : 0);

			if (wanted == entry_[i])
				continue;
			Result<bool> same = memory.compare_exchange({address_[i]}, entry_[i],
								    wanted, entry_bytes_);
			if (!same && same.error() != Errno::noent)
				return same;
			if (same && !*same)
				return false;
		}
		return true;
	}

private:
	u64 address_[4], entry_[4]; /* the first count_ */
	unsigned count_ = 0;
	unsigned entry_bytes_;
};

Translation page_fault(const VcpuState &s, PageAccess access, u32 error)
{
	bool nx = (s.cr4 & cr4::pae) && (s.efer & efer::nx);

	error |= (access.write ? error_write : 0) | (s.cpl() == 3 ? error_user : 0) |
		 (access.fetch && (nx || (s.cr4 & cr4::smep)) ? error_fetch : 0);
	return {.outcome = Translation::Outcome::page_fault, .error_code = error};
}

/* False: an entry changed while it was in use, and all is to be done again. */
[[gnu::always_inline]] inline bool walk(const VcpuState &s, const GuestMemory &memory,
					GuestLinear linear, PageAccess access, Translation &result)
{
	using Outcome = Translation::Outcome;

	constexpr unsigned shift_of_pml4 = 39;
	bool wide = s.cr4 & cr4::pae;
	u64 large = wide || (s.cr4 & cr4::pse) ? entry_large : 0;
	unsigned entry_shift = wide ? 3 : 2, entry_bytes = 1u << entry_shift;
	unsigned index_bits = page_shift - entry_shift;
	/* Of an entry's place in its table. */
	u64 place_mask = low_bits(page_shift) & ~low_bits(entry_shift);
	Used used(entry_bytes);
	Passed passed;
	u64 table, entry;
	unsigned shift;

	if (s.long_mode()) {
		shift = shift_of_pml4;
		table = s.cr3 & address_field;
	} else {
		shift = page_shift + index_bits;
		table = s.cr3 & 0xfffff000;
		linear.value = static_cast<u32>(linear.value);
		if (wide) {
			u64 pdpte = s.pdpte[linear.value >> 30];

			if (!(pdpte & entry_present)) {
				result = page_fault(s, access, 0);
				return true;
			}
			table = pdpte & address_field;
		}
	}
	for (;; shift -= index_bits) {
		GuestPhys address = {table +
				     ((linear.value >> (shift - entry_shift)) & place_mask)};

		if (!memory.read_entry(address, entry, entry_bytes)) {
			result = {.outcome = Outcome::no_tables};
			return true;
		}
		if (!(entry & entry_present)) {
			result = page_fault(s, access, 0);
			return true;
		}
		used.add(address, entry);
		passed.add(entry);
		if (shift == page_shift || ((entry & large) && shift != shift_of_pml4))
			break;
		table = entry & address_field;
	}
	if (!allowed(s, passed, access, s.cpl() == 3, wide && (s.efer & efer::nx))) {
		result = page_fault(s, access, error_present);
		return true;
	}
	if (!(passed.in_all & entry_accessed) || (access.write && !(entry & entry_dirty))) {
		Result<bool> same = used.set_flags(memory, access.write);

		if (!same) {
			result = {.outcome = Outcome::no_tables};
			return true;
		}
		if (!*same)
			return false;
	}
	u64 base = entry & address_field, in_page = (u64{1} << shift) - 1;
	/* 4 MiB pages: bits 39:32 of the address are in bits 20:13 ("PSE-36"). */
	if (!wide && shift != page_shift)
		base = (entry & 0xffc00000) | ((entry >> 13) & 0xff) << 32;
	result = {.outcome = Outcome::ok,
		  .address = {(base & ~in_page) | (linear.value & in_page)}};
	return true;
}

} // namespace

Translation translate(const VcpuState &s, const GuestMemory &memory, GuestLinear linear,
		      PageAccess access)
{
	Translation result{.outcome = Translation::Outcome::ok,
			   .address = {static_cast<u32>(linear.value)}};

	if (!s.paging())
		return result;
	while (!walk(s, memory, linear, access, result))
		;
	return result;
}

bool load_pdptes(VcpuState &s, const GuestMemory &memory, unsigned physical_address_bits)
{
	/* "PDPTE Registers": bits 2:1, 8:5 and those above the physical address are reserved. */
	u64 reserved = 0x1e6 | ~low_bits(physical_address_bits);
	u64 pdpte[4];

	if (!memory.read({s.cr3 & 0xffffffe0}, pdpte, sizeof(pdpte)))
		return false;
	for (u64 entry : pdpte)
		if ((entry & entry_present) && (entry & reserved))
			return false;
	for (int i = 0; i < 4; i++)
		s.pdpte[i] = pdpte[i];
	s.mark_dirty(Group::pdpte);
	return true;
}

} // namespace kvmpp
