/* SPDX-License-Identifier: GPL-2.0 */
/* A vCPU's state and some memory of its guest, without a VM around them. */
#pragma once

#include "fixture.hpp"

#include "arch/x86/cpuid_table.hpp"
#include "arch/x86/handlers.hpp"
#include "virt/memslots.hpp"

#include <linux/kvm.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace kvmpp::host
{

inline const ExitNeeds &needs_of(ExitReason reason)
{
	return needs_of_exits.of[exit_row(static_cast<u32>(reason))];
}

inline Groups exit_state(const Exit &exit)
{
	return kvmpp::exit_state(needs_of(exit.reason()), exit);
}

/* As Vcpu has it. */
inline Next complete_access(VcpuState &s, const GuestMemory &memory, const u8 (&data)[8])
{
	return s.pending.needs_memory() ? complete_in_memory(s, memory, data)
					: complete_in_registers(s, data);
}

/* RAM from guest-physical 0 on. */
class GuestRam
{
public:
	explicit GuestRam(u64 bytes)
		: bytes_(bytes), memory_(static_cast<u8 *>(std::aligned_alloc(page_size, bytes)))
	{
		std::memset(memory_, 0, bytes);
		add_user_memory(address(), bytes);
		table_ = table_of(false);
	}
	~GuestRam()
	{
		remove_user_memory(address());
		std::free(memory_);
	}
	GuestRam(const GuestRam &) = delete;
	GuestRam &operator=(const GuestRam &) = delete;

	u64 address() const { return reinterpret_cast<u64>(memory_); }
	u64 bytes() const { return bytes_; }
	GuestMemory memory() const { return GuestMemory(*table_); }
	const MemslotTable &table() const { return *table_; }
	/* The same memory, in a slot that takes no writes. */
	Owned<MemslotTable> read_only_table() const { return table_of(true); }
	u8 *at(u64 guest_phys) const { return memory_ + guest_phys; }
	template <class T> T get(u64 guest_phys) const
	{
		T value;
		std::memcpy(&value, at(guest_phys), sizeof(value));
		return value;
	}
	template <class T> void put(u64 guest_phys, T value)
	{
		std::memcpy(at(guest_phys), &value, sizeof(value));
	}
	void put(u64 guest_phys, std::initializer_list<u8> bytes)
	{
		std::memcpy(at(guest_phys), bytes.begin(), bytes.size());
	}
	/* The VMM takes its memory away. */
	void unmap() { remove_user_memory(address()); }

private:
	Owned<MemslotTable> table_of(bool read_only) const
	{
		Memslot slot{.id = 0,
			     .invalid = false,
			     .first_frame = 0,
			     .frames = bytes_ >> page_shift,
			     .user = {address()},
			     .read_only = read_only};
		return MemslotTable().with_change(0, &slot);
	}

	u64 bytes_;
	u8 *memory_;
	Owned<MemslotTable> table_;
};

class GuestTest : public MachineTest
{
protected:
	static constexpr u64 ram_bytes = 0x100000;
	static constexpr u64 device = 0x40000000; /* guest-physical: no RAM there */

	GuestTest() : ram(ram_bytes), memory(ram.memory()) { reset(); }

	void reset()
	{
		offer_cpuid();
		s.machine_check = &machine_check;
		s.reset(0, 0);
		s.port_page = port_page.data();
		clean();
	}

	/* All that is supported, and an x2APIC. */
	void offer_cpuid()
	{
		cpuid = {};
		ASSERT_TRUE(supported_cpuid(cpuid, GuestCpuid::max_entries));
		set_cpuid([](CpuidEntry &e) {
			if (e.function == 1)
				e.ecx |= 1 << cpuid_bit::ecx_x2apic;
		});
	}
	/* With a change to each of its entries. */
	template <class Change> void set_cpuid(Change change)
	{
		GuestCpuid changed;

		for (u32 i = 0; i < cpuid.count(); i++) {
			CpuidEntry e = cpuid.entry(i);
			change(e);
			ASSERT_TRUE(changed.add(e));
		}
		cpuid = changed;
		s.cpuid = &cpuid;
		s.model = cpuid.model();
	}

	/* As if all had been written to the VMCS. */
	void clean()
	{
		s.dirty = {};
		s.flush_tlb = s.cpu_registers_dirty = false;
	}
	/* A mode with flat segments and CS:RIP at @rip. */
	void flat(u64 rip)
	{
		for (Segment &seg : s.segment)
			seg = {.base = 0,
			       .limit = ~u32{0},
			       .access_rights = 0xc093,
			       .selector = 0x10};
		s.seg(Seg::cs) = {
			.base = 0, .limit = ~u32{0}, .access_rights = 0xc09b, .selector = 8};
		s.seg(Seg::tr).access_rights = 0x8b;
		s.rip = rip;
	}
	void protected_mode(u64 rip = 0x1000)
	{
		flat(rip);
		s.cr0 = cr0::pe | cr0::et;
		clean();
	}
	/* 4-level paging, the first 4 MiB and 4 MiB at `device` mapped to themselves by 2-MiB pages. */
	void long_mode(u64 rip = 0x1000)
	{
		flat(rip);
		s.seg(Seg::cs).access_rights = 0xa09b;
		s.cr0 = cr0::pe | cr0::et | cr0::pg;
		s.cr4 = cr4::pae;
		s.efer = efer::lme | efer::lma | efer::nx | efer::sce;
		s.cr3 = pml4;
		ram.put<u64>(pml4, pdpt | 7);
		ram.put<u64>(pdpt, pd | 7);
		ram.put<u64>(pdpt + 8, pd_device | 7);
		for (u64 i = 0; i < 2; i++) {
			ram.put<u64>(pd + 8 * i, (i << 21) | 0x87);
			ram.put<u64>(pd_device + 8 * i, (device + (i << 21)) | 0x87);
		}
		clean();
	}
	static constexpr u64 pml4 = 0x80000, pdpt = 0x81000, pd = 0x82000, pd_device = 0x83000;

	Next handle(const Exit &exit) { return handle_exit(s, identity, exit, memory); }
	static Exit exit_of(ExitReason reason, u64 qualification = 0, u32 length = 2)
	{
		Exit exit;

		exit.raw_reason = static_cast<u32>(reason);
		exit.qualification = qualification;
		exit.instruction_length = length;
		exit.cpu = {0};
		return exit;
	}
	/* The event that waits for the next entry; what is not given must be 0. */
	void expect_event(Vector vector,
			  InterruptionInfo::Type type = InterruptionInfo::Type::hardware_exception)
	{
		EXPECT_TRUE(s.has_event);
		EXPECT_TRUE(s.event.info.valid());
		EXPECT_EQ(s.event.info.vector(), static_cast<u8>(vector));
		EXPECT_EQ(s.event.info.type(), type);
	}
	void expect_general_protection()
	{
		expect_event(Vector::general_protection);
		EXPECT_EQ(s.event.error_code, 0u);
	}

	GuestRam ram;
	GuestMemory memory;
	std::array<u8, page_size> port_page = {};
	GuestCpuid cpuid;
	MachineCheck machine_check;
	VcpuState s;
	VcpuIdentity identity{.id = 0, .physical_address_bits = 39};
};

} // namespace kvmpp::host
