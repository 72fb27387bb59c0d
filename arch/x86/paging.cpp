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

/* The entries that a walk has used. */
class Used
{
public:
	explicit Used(unsigned entry_bytes) : entry_bytes_(entry_bytes) {}

	void add(GuestPhys address, u64 entry)
	{
		entries_[count_].address = address;
		entries_[count_++].entry = entry;
	}
	/*
	 * "Accessed and Dirty Flags", from the root on. Tables that cannot be written are left as they
	 * are. False where an entry has changed since it was read. Errno::fault.
	 */
	Result<bool> set_flags(const GuestMemory &memory, bool write) const
	{
		for (unsigned i = 0; i < count_; i++) {
			const Entry &used = entries_[i];
			bool is_leaf = i + 1 == count_;
			u64 wanted =
				used.entry | entry_accessed | (write && is_leaf ? entry_dirty : 0);

			if (wanted == used.entry)
				continue;
			Result<bool> same = memory.compare_exchange(used.address, used.entry,
								    wanted, entry_bytes_);
			if (!same && same.error() != Errno::noent)
				return same;
			if (same && !*same)
				return false;
		}
		return true;
	}

private:
	struct Entry {
		GuestPhys address;
		u64 entry;
	};
	Entry entries_[4]; /* the first count_ */
	unsigned count_ = 0;
	unsigned entry_bytes_;
};

/* False: an entry changed while it was in use, and all is to be done again. */
bool walk(const VcpuState &s, const GuestMemory &memory, GuestLinear linear, PageAccess access,
	  Translation &result)
{
	using Outcome = Translation::Outcome;

	bool user_mode = s.cpl() == 3;
	bool nx_enabled = s.efer & efer::nx;
	bool wide = s.cr4 & cr4::pae;
	unsigned entry_bytes = wide ? 8 : 4;
	Used used(entry_bytes);
	Passed passed;
	unsigned index_bits = wide ? 9 : 10;
	int level = s.long_mode() ? 4 : 2;
	u64 table = s.cr3 & (s.long_mode() ? address_field : 0xfffff000);
	u64 entry = 0;
	unsigned shift = 0;
	bool large = false;
	u32 error =
		(access.write ? error_write : 0) | (user_mode ? error_user : 0) |
		(access.fetch && ((wide && nx_enabled) || (s.cr4 & cr4::smep)) ? error_fetch : 0);

	if (!s.long_mode())
		linear.value = static_cast<u32>(linear.value);
	if (s.pae_paging()) {
		u64 pdpte = s.pdpte[linear.value >> 30];

		if (!(pdpte & entry_present)) {
			result = {Outcome::page_fault, {}, error};
			return true;
		}
		table = pdpte & address_field;
	}
	for (;; level--) {
		shift = page_shift + (level - 1) * index_bits;
		u64 index = (linear.value >> shift) & low_bits(index_bits);
		GuestPhys address = {table + index * entry_bytes};

		if (!memory.read_entry(address, entry, entry_bytes)) {
			result = {Outcome::no_tables, {}};
			return true;
		}
		if (!(entry & entry_present)) {
			result = {Outcome::page_fault, {}, error};
			return true;
		}
		used.add(address, entry);
		passed.add(entry);
		large = level > 1 && level < 4 && (entry & entry_large) &&
			(wide || (s.cr4 & cr4::pse));
		if (level == 1 || large)
			break;
		table = entry & address_field;
	}
	if (!allowed(s, passed, access, user_mode, wide && nx_enabled)) {
		result = {Outcome::page_fault, {}, error | error_present};
		return true;
	}
	if (!(passed.in_all & entry_accessed) || (access.write && !(entry & entry_dirty))) {
		Result<bool> same = used.set_flags(memory, access.write);

		if (!same) {
			result = {Outcome::no_tables, {}};
			return true;
		}
		if (!*same)
			return false;
	}
	u64 base = entry & address_field;
	/* 4 MiB pages: bits 39:32 of the address are in bits 20:13 ("PSE-36"). */
	if (large && !wide)
		base = (entry & 0xffc00000) | ((entry >> 13) & 0xff) << 32;
	result = {Outcome::ok, {(base & ~low_bits(shift)) | (linear.value & low_bits(shift))}};
	return true;
}

} // namespace

Translation translate(const VcpuState &s, const GuestMemory &memory, GuestLinear linear,
		      PageAccess access)
{
	Translation result{Translation::Outcome::ok, {static_cast<u32>(linear.value)}};

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
