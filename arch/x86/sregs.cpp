// SPDX-License-Identifier: GPL-2.0
#include "sregs.hpp"

#include "cpuid.hpp"
#include "events.hpp"
#include "guest_debug.hpp"
#include "paging.hpp"
#include "x2apic.hpp"

#include <linux/kvm.h>

#include <cstddef>
#include <cstring>

namespace kvmpp
{

namespace
{

constexpr u32 bit_if(u32 condition, u32 bit)
{
	return condition ? bit : 0;
}

kvm_segment to_kvm(const Segment &s)
{
	kvm_segment k{};
	u32 ar = s.access_rights;

	k.base = s.base;
	k.limit = s.limit;
	k.selector = s.selector;
	k.type = ar & Segment::type_mask;
	k.s = !!(ar & Segment::s_bit);
	k.dpl = static_cast<u8>(s.dpl());
	k.unusable = !!(ar & Segment::unusable);
	/* VMX knows no "present" of an unusable segment; user space does not either. */
	k.present = !k.unusable;
	k.avl = !!(ar & Segment::avl);
	k.l = !!(ar & Segment::l_bit);
	k.db = !!(ar & Segment::db_bit);
	k.g = !!(ar & Segment::g_bit);
	return k;
}

Segment from_kvm(const kvm_segment &k, Seg which)
{
	Segment s{.base = k.base, .limit = k.limit, .access_rights = 0, .selector = k.selector};

	s.access_rights = (k.type & Segment::type_mask) | bit_if(k.s, Segment::s_bit) |
			  (k.dpl & 3u) << 5 | bit_if(k.present, Segment::present) |
			  bit_if(k.avl, Segment::avl) | bit_if(k.l, Segment::l_bit) |
			  bit_if(k.db, Segment::db_bit) | bit_if(k.g, Segment::g_bit) |
			  bit_if(k.unusable || !k.present, Segment::unusable);
	/* VM entry wants every usable segment accessed; user space need not know. */
	if (which != Seg::ldtr)
		s.access_rights |= 1;
	return s;
}

bool valid_cr0(u64 value)
{
	return !(value & ~cr0::all) && !((value & cr0::nw) && !(value & cr0::cd)) &&
	       !((value & cr0::pg) && !(value & cr0::pe));
}

/* kvm_sregs and kvm_sregs2 begin alike. */
constexpr std::size_t common_size = offsetof(kvm_sregs2, flags);
static_assert(common_size == offsetof(kvm_sregs, interrupt_bitmap));

struct SegmentPlace {
	Seg seg;
	kvm_segment kvm_sregs2::*place;
};

constexpr SegmentPlace segment_places[] = {
	{Seg::cs, &kvm_sregs2::cs}, {Seg::ds, &kvm_sregs2::ds},    {Seg::es, &kvm_sregs2::es},
	{Seg::fs, &kvm_sregs2::fs}, {Seg::gs, &kvm_sregs2::gs},    {Seg::ss, &kvm_sregs2::ss},
	{Seg::tr, &kvm_sregs2::tr}, {Seg::ldtr, &kvm_sregs2::ldt},
};

bool valid_sregs(const VcpuState &s, const kvm_sregs2 &k)
{
	u64 beyond = ~low_bits(s.model.physical_address_bits);

	if ((k.efer & efer::lme) && (k.cr0 & cr0::pg)) {
		if (!(k.cr4 & cr4::pae) || !(k.efer & efer::lma) || (k.cr3 & beyond))
			return false;
	} else if ((k.efer & efer::lma) || k.cs.l) {
		return false;
	}
	return valid_cr0(k.cr0) && valid_cr4(s.model, k.cr4) &&
	       valid_apic_base(s.model, k.apic_base) && k.cr8 <= 15;
}

void read_sregs(const VcpuState &s, kvm_sregs2 &k)
{
	k = {};
	for (const SegmentPlace &segment : segment_places)
		k.*segment.place = to_kvm(s.seg(segment.seg));
	k.gdt.base = s.gdtr.base;
	k.gdt.limit = s.gdtr.limit;
	k.idt.base = s.idtr.base;
	k.idt.limit = s.idtr.limit;
	k.cr0 = s.cr0;
	k.cr2 = s.cr2;
	k.cr3 = s.cr3;
	k.cr4 = s.cr4;
	k.cr8 = s.cr8;
	k.efer = s.efer;
	k.apic_base = s.apic_base;
}

void write_sregs(VcpuState &s, const kvm_sregs2 &k)
{
	for (const SegmentPlace &segment : segment_places)
		s.seg(segment.seg) = from_kvm(k.*segment.place, segment.seg);
	s.gdtr = {k.gdt.base, k.gdt.limit};
	s.idtr = {k.idt.base, k.idt.limit};
	s.cr0 = k.cr0 | cr0::et;
	s.cr2 = k.cr2;
	s.cr3 = k.cr3;
	s.cr4 = k.cr4;
	s.cr8 = k.cr8;
	s.efer = k.efer;
	s.apic_base = k.apic_base;
	/* Of the PDPTEs this copy may be an old one. */
	s.mark_dirty(sregs_groups - Group::pdpte);
	s.cpu_registers_dirty = true;
	s.flush_tlb = true;
}

/* Where CR3 points to nothing they stay as they were, and VM entry has the last word. */
void load_pdptes_for_pae(VcpuState &s, const GuestMemory &memory)
{
	if (s.pae_paging())
		(void)load_pdptes(s, memory, guest_features().physical_address_bits);
}

} // namespace

void get_regs(const VcpuState &s, kvm_regs &k)
{
	k = {.rax = s.gpr[rax],
	     .rbx = s.gpr[rbx],
	     .rcx = s.gpr[rcx],
	     .rdx = s.gpr[rdx],
	     .rsi = s.gpr[rsi],
	     .rdi = s.gpr[rdi],
	     .rsp = s.gpr[rsp],
	     .rbp = s.gpr[rbp],
	     .r8 = s.gpr[r8],
	     .r9 = s.gpr[r9],
	     .r10 = s.gpr[r10],
	     .r11 = s.gpr[r11],
	     .r12 = s.gpr[r12],
	     .r13 = s.gpr[r13],
	     .r14 = s.gpr[r14],
	     .r15 = s.gpr[r15],
	     .rip = s.rip,
	     .rflags = s.own_rflags()};
}

void set_regs(VcpuState &s, const kvm_regs &k)
{
	const u64 gpr[16] = {k.rax, k.rcx, k.rdx, k.rbx, k.rsp, k.rbp, k.rsi, k.rdi,
			     k.r8,  k.r9,  k.r10, k.r11, k.r12, k.r13, k.r14, k.r15};

	for (int i = 0; i < 16; i++)
		s.gpr[i] = gpr[i];
	s.rip = k.rip;
	s.rip_passed_4g = false;
	set_rflags(s, k.rflags | rflags::fixed);
	s.debug.step_due = false;
	/* An exception that was on its way belongs to the state before; half delivered, it does not. */
	if (!s.event.again)
		s.has_event = false;
	s.mark_dirty(regs_groups);
}

void get_sregs(const VcpuState &s, kvm_sregs &k)
{
	kvm_sregs2 common;

	read_sregs(s, common);
	k = {};
	std::memcpy(&k, &common, common_size);
	if (s.interrupt.queued && !s.interrupt.soft)
		k.interrupt_bitmap[s.interrupt.vector / 64] |= __u64{1} << s.interrupt.vector % 64;
}

Result<> set_sregs(VcpuState &s, const kvm_sregs &k, const GuestMemory &memory)
{
	kvm_sregs2 common{};

	std::memcpy(&common, &k, common_size);
	if (!valid_sregs(s, common))
		return Errno::inval;
	write_sregs(s, common);
	load_pdptes_for_pae(s, memory);
	/* The first; that there is none takes away none. */
	for (unsigned vector = 0; vector < 256; vector++)
		if (k.interrupt_bitmap[vector / 64] & (__u64{1} << vector % 64)) {
			queue_interrupt(s, static_cast<u8>(vector));
			break;
		}
	return {};
}

void get_sregs2(const VcpuState &s, kvm_sregs2 &k)
{
	read_sregs(s, k);
	if (!s.pae_paging())
		return;
	std::memcpy(k.pdptrs, s.pdpte, sizeof(k.pdptrs));
	k.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
}

Result<> set_sregs2(VcpuState &s, const kvm_sregs2 &k, const GuestMemory &memory)
{
	bool has_pdptes = k.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
	bool pae = (k.cr0 & cr0::pg) && (k.cr4 & cr4::pae) && !(k.efer & efer::lma);

	if ((k.flags & ~static_cast<u64>(KVM_SREGS2_FLAGS_PDPTRS_VALID)) || (has_pdptes && !pae))
		return Errno::inval;
	if (!valid_sregs(s, k))
		return Errno::inval;
	write_sregs(s, k);
	if (!has_pdptes) {
		load_pdptes_for_pae(s, memory);
		return {};
	}
	std::memcpy(s.pdpte, k.pdptrs, sizeof(s.pdpte));
	s.mark_dirty(Group::pdpte);
	return {};
}

void get_debug_registers(const VcpuState &s, kvm_debugregs &k)
{
	k = {};
	std::memcpy(k.db, s.dr, sizeof(k.db));
	k.dr6 = s.dr6;
	k.dr7 = s.dr7;
}

Result<> set_debug_registers(VcpuState &s, const kvm_debugregs &k)
{
	if (k.flags || k.dr6 >> 32 || k.dr7 >> 32)
		return Errno::inval;
	std::memcpy(s.dr, k.db, sizeof(s.dr));
	s.dr6 = k.dr6;
	s.dr7 = k.dr7;
	s.mark_dirty(Group::dr7);
	return {};
}

} // namespace kvmpp
