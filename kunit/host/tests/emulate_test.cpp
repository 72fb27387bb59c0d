// SPDX-License-Identifier: GPL-2.0
/* Instructions that user space completes: on device memory, and string I/O. */
#include "guest.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class Emulate : public GuestTest
{
protected:
	using Data = u8[8];

	Next emulate(std::initializer_list<u8> code)
	{
		ram.put(0x1000, code);
		length = code.size();
		return emulate_mmio(s, exit_of(ExitReason::ept_violation), memory);
	}
	Next complete(std::initializer_list<u8> bytes = {})
	{
		Data data = {};
		std::copy(bytes.begin(), bytes.end(), data);
		return complete_access(s, memory, data);
	}
	void expect_mmio(Next next, bool write, u64 address, std::initializer_list<u8> bytes,
			 u32 count)
	{
		EXPECT_EQ(next, Next::user);
		ASSERT_EQ(s.user.reason, u32{KVM_EXIT_MMIO});
		EXPECT_EQ(s.user.mmio.is_write, write);
		EXPECT_EQ(s.user.mmio.phys_addr, address);
		EXPECT_EQ(s.user.mmio.len, count);
		Data want = {};
		std::copy(bytes.begin(), bytes.end(), want);
		EXPECT_EQ(std::memcmp(s.user.mmio.data, want, 8), 0);
	}
	void expect_done(Next next)
	{
		EXPECT_EQ(next, Next::resume);
		EXPECT_FALSE(s.has_event);
		EXPECT_EQ(s.rip, 0x1000 + length);
		EXPECT_EQ(s.pending.kind, PendingAccess::Kind::none);
	}
	void expect_emulation_error(Next next)
	{
		EXPECT_EQ(next, Next::user);
		EXPECT_EQ(s.user.reason, u32{KVM_EXIT_INTERNAL_ERROR});
		EXPECT_EQ(s.user.internal.suberror, u32{KVM_INTERNAL_ERROR_EMULATION});
		EXPECT_EQ(s.rip, 0x1000u);
	}

	/* INS or OUTS with the exit's fields. */
	Next string_io(bool in, u64 size, bool rep, u64 linear, unsigned address_size)
	{
		Exit exit = exit_of(ExitReason::io_instruction,
				    0x01f00010 | (size - 1) | (in ? 8 : 0) | (rep ? 0x20 : 0), 2);
		exit.guest_linear = linear;
		exit.instruction_info = (address_size == 2   ? 0u
					 : address_size == 4 ? 1u
							     : 2u)
						<< 7 |
					u32{3} << 15; /* DS */
		length = 2;
		return handle(exit);
	}

	void put_port_page(std::initializer_list<u8> bytes)
	{
		std::copy(bytes.begin(), bytes.end(), port_page.begin());
	}

	size_t length = 0;
};

} // namespace

TEST_F(Emulate, store_of_each_size)
{
	protected_mode();
	s.gpr[rbx] = device + 4;
	s.gpr[rax] = 0x44332211;
	expect_mmio(emulate({0x88, 0x03}), true, device + 4, {0x11}, 1);
	EXPECT_EQ(s.rip, 0x1002u) << "a write is past its instruction when user space sees it";
	expect_done(complete());
	s.rip = 0x1000;
	expect_mmio(emulate({0x66, 0x89, 0x03}), true, device + 4, {0x11, 0x22}, 2);
	expect_done(complete());
	s.rip = 0x1000;
	expect_mmio(emulate({0x89, 0x03}), true, device + 4, {0x11, 0x22, 0x33, 0x44}, 4);
	expect_done(complete());
	long_mode();
	s.gpr[rax] = 0x8877665544332211;
	expect_mmio(emulate({0x48, 0x89, 0x03}), true, device + 4,
		    {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}, 8);
	expect_done(complete());
}

TEST_F(Emulate, store_of_a_high_byte_and_of_immediates)
{
	protected_mode();
	s.gpr[rbx] = device;
	s.gpr[rcx] = 0xaabbccdd;
	expect_mmio(emulate({0x88, 0x2b}), true, device, {0xcc}, 1); /* %ch */
	expect_done(complete());
	s.rip = 0x1000;
	expect_mmio(emulate({0xc7, 0x03, 1, 2, 3, 4}), true, device, {1, 2, 3, 4}, 4);
	expect_done(complete());
	long_mode();
	expect_mmio(emulate({0x48, 0xc7, 0x03, 0xfe, 0xff, 0xff, 0xff}), true, device,
		    {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 8);
	expect_done(complete());
}

TEST_F(Emulate, load_into_parts_of_registers)
{
	const struct {
		std::initializer_list<u8> code;
		u32 size;
		u8 reg;
		u64 want;
	} loads[] = {
		{{0x8a, 0x03}, 1, rax, 0x11223344556677f1},       /* mov (%rbx), %al */
		{{0x8a, 0x23}, 1, rax, 0x112233445566f188},       /* %ah */
		{{0x40, 0x8a, 0x23}, 1, rsp, 0x11223344556677f1}, /* %spl */
		{{0x66, 0x8b, 0x03}, 2, rax, 0x112233445566f2f1},
		{{0x8b, 0x03}, 4, rax, 0xf4f3f2f1},
		{{0x48, 0x8b, 0x03}, 8, rax, 0xf8f7f6f5f4f3f2f1},
		{{0x4c, 0x8b, 0x0b}, 8, r9, 0xf8f7f6f5f4f3f2f1},
		{{0x0f, 0xb6, 0x0b}, 1, rcx, 0xf1}, /* movzbl */
		{{0x66, 0x0f, 0xb6, 0x0b}, 1, rcx, 0x11223344556600f1},
		{{0x48, 0x0f, 0xb7, 0x0b}, 2, rcx, 0xf2f1},
		{{0x0f, 0xbe, 0x0b}, 1, rcx, 0xfffffff1}, /* movsbl */
		{{0x66, 0x0f, 0xbe, 0x0b}, 1, rcx, 0x112233445566fff1},
		{{0x48, 0x0f, 0xbf, 0x0b}, 2, rcx, 0xfffffffffffff2f1},
		{{0x48, 0x63, 0x0b}, 4, rcx, 0xfffffffff4f3f2f1}, /* movslq */
	};

	for (const auto &load : loads) {
		SCOPED_TRACE(testing::PrintToString(std::vector<u8>(load.code)));
		long_mode();
		s.gpr[load.reg] = 0x1122334455667788;
		s.gpr[rbx] = device;
		expect_mmio(emulate(load.code), false, device, {}, load.size);
		EXPECT_EQ(s.rip, 0x1000u) << "a read is done when its data is there";
		expect_done(complete({0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8}));
		EXPECT_EQ(s.gpr[load.reg], load.want);
		EXPECT_EQ(s.dirty.has(Group::rsp), load.reg == rsp);
	}
}

TEST_F(Emulate, real_mode)
{
	s.seg(Seg::cs) = {.base = 0x800, .limit = 0xffff, .access_rights = 0x9b, .selector = 0x80};
	s.rip = 0x800; /* linear 0x1000 */
	s.seg(Seg::ds).base = device;
	s.gpr[rbx] = 0xffff0010; /* only BX counts */
	ram.put(0x1000, {0x89, 0x07});
	s.gpr[rax] = 0x1234;
	expect_mmio(emulate_mmio(s, exit_of(ExitReason::ept_violation), memory), true,
		    device + 0x10, {0x34, 0x12}, 2);
	EXPECT_EQ(s.rip, 0x802u);
}

TEST_F(Emulate, rip_relative_operand)
{
	long_mode();
	ram.put<u64>(pd, device | 0x87); /* linear 0 is the device; code is at 2 MiB */
	ram.put<u64>(pd + 8, 0x87);
	s.rip = 0x201000;
	ram.put(0x1000, {0x8b, 0x05, 0, 0, 0xe0, 0xff}); /* -2 MiB */
	expect_mmio(emulate_mmio(s, exit_of(ExitReason::ept_violation), memory), false,
		    device + 0x1006, {}, 4);
}

TEST_F(Emulate, store_split_over_two_device_pages)
{
	protected_mode();
	s.gpr[rbx] = device + 0xffd;
	s.gpr[rax] = 0x44332211;
	expect_mmio(emulate({0x89, 0x03}), true, device + 0xffd, {0x11, 0x22, 0x33}, 3);
	expect_mmio(complete(), true, device + 0x1000, {0x44}, 1);
	expect_done(complete());
}

TEST_F(Emulate, load_split_over_two_device_pages)
{
	protected_mode();
	s.gpr[rbx] = device + 0xfff;
	expect_mmio(emulate({0x8b, 0x03}), false, device + 0xfff, {}, 1);
	expect_mmio(complete({0x11}), false, device + 0x1000, {}, 3);
	EXPECT_EQ(s.rip, 0x1000u);
	expect_done(complete({0x22, 0x33, 0x44}));
	EXPECT_EQ(s.gpr[rax], 0x44332211u);
}

TEST_F(Emulate, operand_partly_in_ram)
{
	protected_mode();
	s.gpr[rbx] = ram_bytes - 2;
	s.gpr[rax] = 0x44332211;
	expect_mmio(emulate({0x89, 0x03}), true, ram_bytes, {0x33, 0x44}, 2);
	EXPECT_EQ(ram.get<u16>(ram_bytes - 2), 0x2211);
	expect_done(complete());

	ram.put<u16>(ram_bytes - 2, 0xbbaa);
	s.rip = 0x1000;
	expect_mmio(emulate({0x8b, 0x03}), false, ram_bytes, {}, 2);
	expect_done(complete({0xcc, 0xdd}));
	EXPECT_EQ(s.gpr[rax], 0xddccbbaau);
}

TEST_F(Emulate, split_pages_are_translated_each)
{
	long_mode();
	/* Linear 0x3ff000 is a device page, linear 0x400000 another one elsewhere. */
	ram.put<u64>(pd + 8 * 1, 0x84000 | 7);
	ram.put<u64>(0x84000 + 8 * 0x1ff, (device + 0x7000) | 7);
	ram.put<u64>(pd + 8 * 2, 0x85000 | 7);
	ram.put<u64>(0x85000, (device + 0x3000) | 7);
	s.gpr[rbx] = 0x3ffffc;
	s.gpr[rax] = 0x8877665544332211;
	expect_mmio(emulate({0x48, 0x89, 0x03}), true, device + 0x7ffc, {0x11, 0x22, 0x33, 0x44},
		    4);
	expect_mmio(complete(), true, device + 0x3000, {0x55, 0x66, 0x77, 0x88}, 4);
	expect_done(complete());
}

TEST_F(Emulate, page_fault_on_the_second_page_comes_before_any_effect)
{
	long_mode();
	ram.put<u64>(pd + 8 * 1, 0x84000 | 7);
	ram.put<u64>(0x84000 + 8 * 0x1ff, (device + 0x7000) | 7);
	s.gpr[rbx] = 0x3ffffc;
	EXPECT_EQ(emulate({0x48, 0x89, 0x03}), Next::resume);
	expect_event(Vector::page_fault);
	EXPECT_EQ(s.cr2, 0x400000u);
	EXPECT_EQ(s.event.error_code, 2u);
	EXPECT_EQ(s.rip, 0x1000u);
	EXPECT_EQ(s.pending.kind, PendingAccess::Kind::none);
}

/* The CPU does it then: what has LOCK has to be atomic. */
TEST_F(Emulate, memory_that_became_ram_meanwhile)
{
	protected_mode();
	s.gpr[rbx] = 0x8000;
	s.gpr[rax] = 0xdeadbeef;
	EXPECT_EQ(emulate({0xf0, 0x01, 0x03}), Next::resume);
	EXPECT_EQ(s.rip, 0x1000u);
	EXPECT_EQ(ram.get<u32>(0x8000), 0u);
	EXPECT_EQ(s.pending.kind, PendingAccess::Kind::none);
}

TEST_F(Emulate, read_modify_write)
{
	protected_mode();
	s.gpr[rbx] = device;
	s.gpr[rax] = 0x01010101;
	s.rflags = rflags::fixed | rflags::cf;
	expect_mmio(emulate({0xf0, 0x01, 0x03}), false, device, {}, 4); /* lock add */
	EXPECT_EQ(s.rip, 0x1000u);
	EXPECT_TRUE(s.rflags & rflags::cf);
	expect_mmio(complete({0xff, 0xfe, 0xfe, 0xfe}), true, device, {0, 0, 0, 0}, 4);
	EXPECT_EQ(s.rip, 0x1003u);
	EXPECT_EQ(s.rflags, rflags::fixed | rflags::cf | rflags::pf | rflags::af | rflags::zf);
	EXPECT_TRUE(s.dirty.has(Group::rflags));
	expect_done(complete());
}

TEST_F(Emulate, read_only_memory_is_a_device_to_writes_alone)
{
	protected_mode();
	Owned<MemslotTable> table = ram.read_only_table();
	s.gpr[rbx] = 0x9000;
	s.gpr[rax] = 1;
	ram.put(0x1000, {0x01, 0x03}); /* addl %eax, (%ebx) */
	ram.put<u32>(0x9000, 0x11);
	length = 2;
	expect_mmio(emulate_mmio(s, exit_of(ExitReason::ept_violation), GuestMemory(*table)), true,
		    0x9000, {0x12}, 4);
	EXPECT_EQ(ram.get<u32>(0x9000), 0x11u);
	expect_done(complete());
}

TEST_F(Emulate, compare_only_reads)
{
	protected_mode();
	s.gpr[rbx] = device;
	expect_mmio(emulate({0x80, 0x3b, 0x80}), false, device, {}, 1); /* cmpb $0x80, (%ebx) */
	expect_done(complete({0x7f}));
	EXPECT_EQ(s.rflags, rflags::fixed | rflags::cf | rflags::pf | rflags::sf | rflags::of);
}

TEST_F(Emulate, read_modify_write_over_ram_and_two_device_pages)
{
	long_mode();
	/* Linear 0x3ff000 is a page of RAM, linear 0x400000 one of a device. */
	ram.put<u64>(pd + 8 * 1, 0x84000 | 7);
	ram.put<u64>(0x84000 + 8 * 0x1ff, 0x9000 | 7);
	ram.put<u64>(pd + 8 * 2, 0x85000 | 7);
	ram.put<u64>(0x85000, (device + 0x3000) | 7);
	ram.put<u16>(0x9ffe, 0xffff);
	s.gpr[rbx] = 0x3ffffe;
	expect_mmio(emulate({0xff, 0x03}), false, device + 0x3000, {}, 2); /* incl */
	EXPECT_EQ(ram.get<u16>(0x9ffe), 0xffff);
	expect_mmio(complete({0x34, 0x12}), true, device + 0x3000, {0x35, 0x12}, 2);
	EXPECT_EQ(ram.get<u16>(0x9ffe), 0);
	expect_done(complete());
}

TEST_F(Emulate, exchange)
{
	protected_mode();
	s.gpr[rbx] = device;
	s.gpr[rcx] = 0x11223344;
	expect_mmio(emulate({0x86, 0x2b}), false, device, {}, 1); /* xchg %ch, (%ebx) */
	expect_mmio(complete({0xaa}), true, device, {0x33}, 1);
	expect_done(complete());
	EXPECT_EQ(s.gpr[rcx], 0x1122aa44u);
}

TEST_F(Emulate, compare_and_exchange)
{
	long_mode();
	s.gpr[rbx] = device;
	s.gpr[rax] = 0xffffffff00000001;
	s.gpr[rcx] = 0x77;
	EXPECT_EQ(emulate({0xf0, 0x0f, 0xb1, 0x0b}), Next::user);
	expect_mmio(complete({1, 0, 0, 0}), true, device, {0x77, 0, 0, 0}, 4);
	expect_done(complete());
	EXPECT_TRUE(s.rflags & rflags::zf);
	EXPECT_EQ(s.gpr[rax], 0xffffffff00000001u);
	s.rip = 0x1000;
	EXPECT_EQ(emulate({0xf0, 0x0f, 0xb1, 0x0b}), Next::user);
	expect_mmio(complete({2, 0, 0, 0}), true, device, {2, 0, 0, 0}, 4);
	expect_done(complete());
	EXPECT_FALSE(s.rflags & rflags::zf);
	EXPECT_EQ(s.gpr[rax], 2u);
}

TEST_F(Emulate, rep_stos_does_one_at_a_time)
{
	long_mode();
	s.gpr[rdi] = device;
	s.gpr[rcx] = 2;
	s.gpr[rax] = 0x44332211;
	expect_mmio(emulate({0xf3, 0xab}), true, device, {0x11, 0x22, 0x33, 0x44}, 4);
	EXPECT_EQ(s.gpr[rdi], device + 4);
	EXPECT_EQ(s.gpr[rcx], 1u);
	EXPECT_EQ(s.rip, 0x1000u);
	EXPECT_EQ(complete(), Next::resume);
	EXPECT_EQ(s.rip, 0x1000u);
	expect_mmio(emulate({0xf3, 0xab}), true, device + 4, {0x11, 0x22, 0x33, 0x44}, 4);
	EXPECT_EQ(s.gpr[rcx], 0u);
	expect_done(complete());
}

TEST_F(Emulate, rep_traps_after_each_iteration)
{
	long_mode();
	s.rflags |= rflags::tf;
	s.gpr[rdi] = device;
	s.gpr[rcx] = 2;
	EXPECT_EQ(emulate({0xf3, 0xaa}), Next::user);
	EXPECT_EQ(complete(), Next::resume);
	expect_event(Vector::debug);
	EXPECT_EQ(s.rip, 0x1000u);
}

TEST_F(Emulate, rep_with_nothing_to_do)
{
	long_mode();
	s.gpr[rdi] = device;
	s.gpr[rcx] = 0xffffffff00000000;
	expect_done(emulate({0x67, 0xf3, 0xaa}));
	EXPECT_EQ(s.gpr[rdi], device);
}

TEST_F(Emulate, movs_from_device_to_device)
{
	protected_mode();
	s.rflags |= rflags::df;
	s.gpr[rsi] = device + 0x10;
	s.gpr[rdi] = device + 0x20;
	expect_mmio(emulate({0x66, 0xa5}), false, device + 0x10, {}, 2);
	EXPECT_EQ(s.gpr[rsi], device + 0x10);
	expect_mmio(complete({0xaa, 0xbb}), true, device + 0x20, {0xaa, 0xbb}, 2);
	EXPECT_EQ(s.gpr[rsi], device + 0xe);
	EXPECT_EQ(s.gpr[rdi], device + 0x1e);
	expect_done(complete());
}

/* Four fragments: two operands in two pages each. */
TEST_F(Emulate, cmps_reads_both_operands)
{
	long_mode();
	s.gpr[rsi] = device + 0xffe;
	s.gpr[rdi] = device + 0x2fff;
	s.gpr[rcx] = 5;
	expect_mmio(emulate({0xf3, 0x48, 0xa7}), false, device + 0x2fff, {}, 1);
	expect_mmio(complete({1}), false, device + 0x3000, {}, 7);
	expect_mmio(complete({2, 3, 4, 5, 6, 7, 8}), false, device + 0xffe, {}, 2);
	expect_mmio(complete({1, 2}), false, device + 0x1000, {}, 6);
	EXPECT_EQ(s.gpr[rcx], 5u);
	EXPECT_EQ(complete({3, 4, 5, 6, 7, 8}), Next::resume);
	EXPECT_EQ(s.gpr[rcx], 4u);
	EXPECT_EQ(s.rip, 0x1000u) << "they are equal: on it goes";
	EXPECT_TRUE(s.rflags & rflags::zf);
	s.gpr[rsi] = device;
	s.gpr[rdi] = device + 0x20;
	EXPECT_EQ(emulate({0xf3, 0xa6}), Next::user);
	EXPECT_EQ(complete({1}), Next::user);
	expect_done(complete({2}));
	EXPECT_EQ(s.gpr[rcx], 3u);
}

/* The register's bit number leads out of the operand. */
TEST_F(Emulate, bit_far_away)
{
	long_mode();
	s.gpr[rbx] = device + 0x100;
	s.gpr[rdx] = static_cast<u64>(-33);
	expect_mmio(emulate({0x0f, 0xab, 0x13}), false, device + 0xf8, {}, 4); /* btsl */
	expect_mmio(complete({0, 0, 0, 0}), true, device + 0xf8, {0, 0, 0, 0x80}, 4);
	expect_done(complete());
	EXPECT_FALSE(s.rflags & rflags::cf);
}

/* MOVS reads the device; that it cannot write then must be known before. */
TEST_F(Emulate, fault_of_the_destination_comes_before_the_read)
{
	long_mode();
	s.gpr[rsi] = device;
	s.gpr[rdi] = 0x600000;
	EXPECT_EQ(emulate({0xa4}), Next::resume);
	expect_event(Vector::page_fault);
	EXPECT_EQ(s.cr2, 0x600000u);
	EXPECT_EQ(s.event.error_code, 2u);
}

TEST_F(Emulate, segment_checks)
{
	protected_mode();
	s.gpr[rsi] = device;
	s.gpr[rdi] = 0x8000;
	s.seg(Seg::es).limit = 0x8000;
	EXPECT_EQ(emulate({0x66, 0xa5}), Next::resume); /* movsw: its second byte */
	expect_general_protection();

	protected_mode();
	s.has_event = false;
	s.seg(Seg::es).access_rights |= Segment::unusable;
	EXPECT_EQ(emulate({0xa4}), Next::resume);
	expect_general_protection();

	protected_mode();
	s.has_event = false;
	s.seg(Seg::es).access_rights = 0xc091; /* read-only */
	EXPECT_EQ(emulate({0xa4}), Next::resume);
	expect_general_protection();

	protected_mode();
	s.has_event = false;
	s.seg(Seg::es) = {.base = 0, .limit = 0xfff, .access_rights = 0xc097, .selector = 0x10};
	EXPECT_EQ(emulate({0xa4}), Next::user) << "an expand-down segment is what is above";
	s.gpr[rdi] = 0xfff;
	EXPECT_EQ(emulate({0xa4}), Next::resume);
	expect_general_protection();

	protected_mode();
	s.has_event = false;
	s.seg(Seg::ss).limit = 0xfff;
	s.gpr[rbp] = 0x1000;
	EXPECT_EQ(emulate({0x8b, 0x45, 0}), Next::resume);
	expect_event(Vector::stack_fault);

	long_mode();
	s.has_event = false;
	s.gpr[rsi] = device;
	s.gpr[rdi] = 0x7fffffffffff;
	EXPECT_EQ(emulate({0x66, 0xa5}), Next::resume);
	expect_general_protection();
	EXPECT_EQ(s.rip, 0x1000u);
}

/* As KVM has it: user mode cannot bring the VM to an end. */
TEST_F(Emulate, unknown_instruction_of_user_mode)
{
	protected_mode();
	s.seg(Seg::ss).access_rights |= 3 << 5;
	s.gpr[rbx] = device;
	EXPECT_EQ(emulate({0x0f, 0x10, 0x03}), Next::resume);
	expect_event(Vector::invalid_opcode);
	EXPECT_EQ(s.rip, 0x1000u);
}

TEST_F(Emulate, read_with_another_address_begins_anew)
{
	protected_mode();
	s.gpr[rbx] = device;
	expect_mmio(emulate({0x8b, 0x03}), false, device, {}, 4);
	s.gpr[rbx] = device + 8; /* by KVM_SET_REGS */
	expect_mmio(complete({1, 2, 3, 4}), false, device + 8, {}, 4);
	expect_done(complete({5, 6, 7, 8}));
	EXPECT_EQ(s.gpr[rax], 0x08070605u);
}

TEST_F(Emulate, instruction_split_over_two_pages)
{
	long_mode(0x201ffe);
	ram.put<u64>(pd + 8, 0x84000 | 7);
	ram.put<u64>(0x84000 + 8, 0x5000 | 7);
	ram.put<u64>(0x84000 + 8 * 2, 0x3000 | 7);
	ram.put(0x5ffe, {0xc7, 0x03});
	ram.put(0x3000, {1, 2, 3, 4});
	s.gpr[rbx] = device;
	expect_mmio(emulate_mmio(s, exit_of(ExitReason::ept_violation), memory), true, device,
		    {1, 2, 3, 4}, 4);
	EXPECT_EQ(s.rip, 0x202004u);
}

TEST_F(Emulate, first_page_of_an_instruction_is_not_decoded_as_all_of_it)
{
	long_mode(0x201fff);
	ram.put<u64>(pd + 8, 0x84000 | 7);
	ram.put<u64>(0x84000 + 8, 0x5000 | 7);
	ram.put<u64>(0x84000 + 8 * 2, 0x3000 | 7);
	/* mov %al, 0x40000000: with 0 for ModR/M it would have RAX as its base. */
	ram.put(0x5fff, {0x88});
	ram.put(0x3000, {0x04, 0x25, 0, 0, 0, 0x40});
	s.gpr[rax] = 0x123;
	expect_mmio(emulate_mmio(s, exit_of(ExitReason::ept_violation), memory), true, device,
		    {0x23}, 1);
}

TEST_F(Emulate, same_bytes_are_the_same_instruction_in_code_of_one_size_only)
{
	auto again = [&](std::initializer_list<u8> code) {
		s.rip = 0x1000;
		return emulate(code);
	};

	s.gpr[rbx] = device;
	s.gpr[rax] = 0x44332211;
	long_mode();
	expect_mmio(emulate({0x89, 0x03}), true, device, {0x11, 0x22, 0x33, 0x44}, 4);
	expect_done(complete());
	expect_mmio(again({0x89, 0x03}), true, device, {0x11, 0x22, 0x33, 0x44}, 4);
	expect_done(complete());
	/* It is written anew, the first byte alone and the last one that can be of it. */
	expect_mmio(again({0x88, 0x03}), true, device, {0x11}, 1);
	expect_done(complete());
	expect_mmio(again({0x48, 0xc7, 0x84, 0x23, 1, 0, 0, 0, 0x77, 0, 0, 0, 0, 0, 0, 0}), true,
		    device + 1, {0x77}, 8);
	(void)complete();
	expect_mmio(again({0x48, 0xc7, 0x84, 0x23, 1, 0, 0, 0, 0x77, 0, 0, 1, 0, 0, 0, 0}), true,
		    device + 1, {0x77, 0, 0, 1}, 8);
	(void)complete();
	/* What cannot be decoded leaves nothing behind that it could be taken for. */
	expect_mmio(again({0x89, 0x03}), true, device, {0x11, 0x22, 0x33, 0x44}, 4);
	(void)complete();
	expect_emulation_error(again({0x0f, 0x0b}));
	expect_emulation_error(again({0x0f, 0x0b}));
	s.user = {};
	expect_mmio(again({0x48, 0x89, 0x03}), true, device, {0x11, 0x22, 0x33, 0x44}, 8);
	(void)complete();
	protected_mode();
	EXPECT_NE(again({0x48, 0x89, 0x03}), Next::resume) << "DEC EAX there";
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_INTERNAL_ERROR});
	s.user = {};
	expect_mmio(again({0x89, 0x03}), true, device, {0x11, 0x22, 0x33, 0x44}, 4);
}

TEST_F(Emulate, second_page_of_an_instruction_is_not_fetched_without_need)
{
	long_mode(0x201ffe);
	ram.put<u64>(pd + 8, 0x84000 | 7);
	ram.put<u64>(0x84000 + 8, 0x5000 | 7);
	ram.put(0x5ffe, {0x89, 0x03});
	s.gpr[rbx] = device;
	EXPECT_EQ(emulate_mmio(s, exit_of(ExitReason::ept_violation), memory), Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_MMIO});
	/* With need it is a page fault at its address. */
	s.rip = 0x201ffe;
	ram.put(0x5ffe, {0xc7, 0x03});
	EXPECT_EQ(emulate_mmio(s, exit_of(ExitReason::ept_violation), memory), Next::resume);
	expect_event(Vector::page_fault);
	EXPECT_EQ(s.cr2, 0x202000u);
	EXPECT_EQ(s.event.error_code, 0x10u);
}

TEST_F(Emulate, what_cannot_be_emulated)
{
	protected_mode();
	s.gpr[rbx] = device;
	expect_emulation_error(emulate({0x0f, 0x10, 0x03})); /* MOVUPS */
	expect_emulation_error(emulate({0xf0, 0x89, 0x03}));
	expect_emulation_error(emulate({0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
					0x66, 0x66, 0x66, 0x66, 0x66, 0x89, 0x03}));
	/* Code outside RAM. */
	protected_mode(device);
	EXPECT_EQ(emulate_mmio(s, exit_of(ExitReason::ept_violation), memory), Next::user);
	EXPECT_EQ(s.user.internal.suberror, u32{KVM_INTERNAL_ERROR_EMULATION});
}

TEST_F(Emulate, code_that_the_vmm_took_away)
{
	protected_mode();
	ram.unmap();
	expect_emulation_error(emulate_mmio(s, exit_of(ExitReason::ept_violation), memory));
}

TEST_F(Emulate, violation_during_the_delivery_of_an_event)
{
	protected_mode();
	s.has_event = true;
	Exit exit = exit_of(ExitReason::ept_violation);
	exit.vectoring = {0x80000020};
	EXPECT_EQ(emulate_mmio(s, exit, memory), Next::user);
	EXPECT_EQ(s.user.internal.suberror, u32{KVM_INTERNAL_ERROR_DELIVERY_EV});
}

/* As in KVM the guest would try for ever to set an accessed flag; here user space is told. */
TEST_F(Emulate, page_walk_that_cannot_write)
{
	constexpr u64 walk = 0x82, access = 0x182;

	for (u64 qualification : {walk, access}) {
		for (unsigned dpl : {0u, 3u}) {
			protected_mode();
			s.seg(Seg::ss).access_rights |= dpl << 5;
			s.gpr[rbx] = 0x2000; /* RAM */
			ram.put(0x1000, {0x8b, 0x03});
			Next next = emulate_mmio(
				s, exit_of(ExitReason::ept_violation, qualification), memory);
			if (qualification == walk)
				expect_emulation_error(next);
			else
				EXPECT_EQ(next, Next::resume);
		}
	}
}

/* The CPU has walked the guest's tables for the access already; what it has not walked for is walked. */
TEST_F(Emulate, page_of_the_exit_is_not_walked_for_again)
{
	constexpr u64 read = 0x181, write = 0x182, fetch = 0x184;
	const struct {
		u64 qualification;
		std::initializer_list<u8> code;
		bool walks;
	} rows[] = {
		{write, {0x89, 0x03}, false}, {write, {0x8b, 0x03}, false},
		{read, {0x8b, 0x03}, false},  {read, {0x89, 0x03}, true},
		{fetch, {0x8b, 0x03}, true},  {read & ~u64{0x80}, {0x8b, 0x03}, true},
	};

	for (const auto &row : rows) {
		Exit exit = exit_of(ExitReason::ept_violation, row.qualification);

		long_mode();
		s.gpr[rbx] = device + 0x123;
		ram.put(0x1000, row.code);
		exit.guest_linear = device + 0x10;
		/* Elsewhere than the tables have it, so that one can tell. */
		exit.guest_phys = {device + 0x7010};
		EXPECT_EQ(emulate_mmio(s, exit, memory), Next::user);
		EXPECT_EQ(s.user.mmio.phys_addr, device + (row.walks ? 0x123 : 0x7123))
			<< row.qualification;
	}
}

TEST_F(Emulate, segment_is_checked_in_the_page_of_the_exit)
{
	Exit exit = exit_of(ExitReason::ept_violation, 0x182);

	protected_mode();
	s.seg(Seg::ds).limit = device + 0x11;
	s.gpr[rbx] = device + 0x10;
	ram.put(0x1000, {0x89, 0x03});
	exit.guest_linear = device + 0x10;
	exit.guest_phys = {device + 0x10};
	EXPECT_EQ(emulate_mmio(s, exit, memory), Next::resume);
	EXPECT_TRUE(s.has_event) << "#GP(0)";
	EXPECT_EQ(s.event.info.vector(), static_cast<u8>(Vector::general_protection));
}

TEST_F(Emulate, operand_that_goes_on_in_another_page_than_the_exits)
{
	Exit exit = exit_of(ExitReason::ept_violation, 0x182);

	long_mode();
	s.gpr[rbx] = device + 0xffe;
	s.gpr[rax] = 0x44332211;
	ram.put(0x1000, {0x89, 0x03});
	length = 2;
	exit.guest_linear = device + 0xffe;
	exit.guest_phys = {device + 0x7ffe};
	expect_mmio(emulate_mmio(s, exit, memory), true, device + 0x7ffe, {0x11, 0x22}, 2);
	expect_mmio(complete(), true, device + 0x1000, {0x33, 0x44}, 2);
	expect_done(complete());
}

TEST_F(Emulate, read_is_dropped_when_the_vmm_moved_rip)
{
	protected_mode();
	s.gpr[rbx] = device;
	s.gpr[rax] = 0x55;
	EXPECT_EQ(emulate({0x8b, 0x03}), Next::user);
	s.rip = 0x7000;
	EXPECT_EQ(complete({1, 2, 3, 4}), Next::resume);
	EXPECT_EQ(s.gpr[rax], 0x55u);
	EXPECT_EQ(s.rip, 0x7000u);
	EXPECT_EQ(s.pending.kind, PendingAccess::Kind::none);
}

TEST_F(Emulate, split_write_goes_on_when_the_vmm_moved_rip)
{
	protected_mode();
	s.gpr[rbx] = device + 0xffe;
	s.gpr[rax] = 0x44332211;
	EXPECT_EQ(emulate({0x89, 0x03}), Next::user);
	s.rip = 0x7000;
	expect_mmio(complete(), true, device + 0x1000, {0x33, 0x44}, 2);
	EXPECT_EQ(complete(), Next::resume);
	EXPECT_EQ(s.rip, 0x7000u);
}

TEST_F(Emulate, single_step_after_mmio)
{
	protected_mode();
	s.rflags |= rflags::tf;
	s.gpr[rbx] = device;
	EXPECT_EQ(emulate({0x8b, 0x03}), Next::user);
	EXPECT_FALSE(s.has_event);
	EXPECT_EQ(complete({1}), Next::resume);
	expect_event(Vector::debug);
}

/* Linear addresses outside 64-bit code are 32 bits wide: what CR2 shows included. */
TEST_F(Emulate, fetch_wraps_at_4_gib)
{
	protected_mode();
	s.seg(Seg::cs).base = 0xfffff000;
	s.rip = 0x2000; /* linear 0x1000 */
	s.gpr[rbx] = device;
	ram.put(0x1000, {0x89, 0x03});
	EXPECT_EQ(emulate_mmio(s, exit_of(ExitReason::ept_violation), memory), Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_MMIO});
}

TEST_F(Emulate, fetch_wraps_at_4_gib_in_compatibility_mode)
{
	long_mode();
	s.seg(Seg::cs) = {
		.base = 0xfffff000, .limit = ~u32{0}, .access_rights = 0xc09b, .selector = 8};
	s.rip = 0x2000; /* linear 0x1000 */
	s.gpr[rbx] = device;
	ram.put(0x1000, {0x89, 0x03});
	EXPECT_EQ(emulate_mmio(s, exit_of(ExitReason::ept_violation), memory), Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_MMIO});
}

TEST_F(Emulate, cr2_of_a_fetch_that_wrapped_at_4_gib)
{
	protected_mode();
	s.cr0 |= cr0::pg;
	s.cr3 = 0x80000; /* an empty directory */
	s.seg(Seg::cs).base = 0xf0000000;
	s.rip = 0x20001000;
	EXPECT_EQ(emulate_mmio(s, exit_of(ExitReason::ept_violation), memory), Next::resume);
	expect_event(Vector::page_fault);
	EXPECT_EQ(s.cr2, 0x10001000u);
}

TEST_F(Emulate, operand_wraps_at_4_gib_in_compatibility_mode)
{
	long_mode();
	s.seg(Seg::cs).access_rights = 0xc09b;
	/* The last page of the 4 GiB and the first one are device pages. */
	ram.put<u64>(pdpt + 8 * 3, 0x84000 | 7);
	ram.put<u64>(0x84000 + 8 * 0x1ff, (device + 0x200000) | 0x87);
	ram.put<u64>(pd, 0x85000 | 7);
	ram.put<u64>(0x85000, (device + 0x5000) | 7);
	ram.put<u64>(0x85000 + 8, 0x1000 | 7);
	s.gpr[rbx] = 0xfffffffe;
	s.gpr[rax] = 0x44332211;
	expect_mmio(emulate({0x89, 0x03}), true, device + 0x3ffffe, {0x11, 0x22}, 2);
	expect_mmio(complete(), true, device + 0x5000, {0x33, 0x44}, 2);
}

/* String I/O */

TEST_F(Emulate, outs_shows_memory_and_steps)
{
	const u64 sizes[] = {1, 2, 4};

	for (u64 size : sizes) {
		protected_mode();
		s.rflags = rflags::fixed;
		port_page = {};
		ram.put(0x8000, {0x11, 0x22, 0x33, 0x44});
		s.gpr[rsi] = 0x8000;
		EXPECT_EQ(string_io(false, size, false, 0x8000, 4), Next::user);
		EXPECT_EQ(s.user.reason, u32{KVM_EXIT_IO});
		EXPECT_EQ(s.user.io.direction, KVM_EXIT_IO_OUT);
		EXPECT_EQ(s.user.io.size, size);
		EXPECT_EQ(s.user.io.port, 0x1f0);
		EXPECT_EQ(s.user.io.string_count, 1u);
		for (u8 i = 0; i < 8; i++)
			EXPECT_EQ(port_page[i], i < size ? 0x11 * (i + 1) : 0);
		EXPECT_EQ(s.gpr[rsi], 0x8000 + size);
		EXPECT_EQ(s.rip, 0x1002u);
		expect_done(complete());
	}
}

TEST_F(Emulate, df_steps_down)
{
	protected_mode();
	s.rflags |= rflags::df;
	s.gpr[rsi] = 0x8000;
	EXPECT_EQ(string_io(false, 4, false, 0x8000, 4), Next::user);
	EXPECT_EQ(s.gpr[rsi], 0x7ffcu);
}

TEST_F(Emulate, rep_of_outs_in_one_exit)
{
	protected_mode();
	ram.put(0x8000, {1, 2, 3, 4, 5, 6});
	s.gpr[rsi] = 0x8000;
	s.gpr[rcx] = 3;
	EXPECT_EQ(string_io(false, 2, true, 0x8000, 4), Next::user);
	EXPECT_EQ(s.user.io.string_count, 3u);
	EXPECT_EQ(std::memcmp(port_page.data(), ram.at(0x8000), 6), 0);
	EXPECT_EQ(s.gpr[rcx], 0u);
	EXPECT_EQ(s.gpr[rsi], 0x8006u);
	EXPECT_EQ(s.rip, 0x1002u);
	expect_done(complete());
}

TEST_F(Emulate, rep_of_ins_stops_at_the_end_of_the_page)
{
	protected_mode();
	s.gpr[rdi] = 0x8ffb;
	s.gpr[rcx] = 5;
	EXPECT_EQ(string_io(true, 2, true, 0x8ffb, 4), Next::user);
	EXPECT_EQ(s.user.io.string_count, 2u);
	EXPECT_EQ(s.gpr[rcx], 5u);
	put_port_page({1, 2, 3, 4, 5, 6});
	EXPECT_EQ(complete(), Next::resume);
	EXPECT_EQ(ram.get<u64>(0x8ffa), 0x0000000403020100u);
	EXPECT_EQ(s.gpr[rcx], 3u);
	EXPECT_EQ(s.gpr[rdi], 0x8fffu);
	EXPECT_EQ(s.rip, 0x1000u) << "there is more";
	/* The next one lies in two pages. */
	EXPECT_EQ(string_io(true, 2, true, 0x8fff, 4), Next::user);
	EXPECT_EQ(s.user.io.string_count, 1u);
	put_port_page({7, 8});
	EXPECT_EQ(complete(), Next::resume);
	EXPECT_EQ(ram.get<u16>(0x8fff), 0x0807);
	EXPECT_EQ(s.gpr[rcx], 2u);
}

TEST_F(Emulate, a_page_is_the_most_of_a_rep)
{
	protected_mode();
	s.gpr[rdi] = 0x8000;
	s.gpr[rcx] = 0x100000;
	EXPECT_EQ(string_io(true, 1, true, 0x8000, 4), Next::user);
	EXPECT_EQ(s.user.io.string_count, page_size);
	EXPECT_EQ(complete(), Next::resume);
	EXPECT_EQ(s.gpr[rcx], 0x100000 - page_size);
}

/* What is to happen after each datum has one exit each. */
TEST_F(Emulate, rep_of_io_one_by_one)
{
	protected_mode();
	s.gpr[rdi] = 0x8100;
	s.gpr[rcx] = 5;
	s.rflags |= rflags::df;
	EXPECT_EQ(string_io(true, 1, true, 0x8100, 4), Next::user);
	EXPECT_EQ(s.user.io.string_count, 1u);
	s.rflags ^= rflags::df | rflags::tf;
	EXPECT_EQ(string_io(true, 1, true, 0x8100, 4), Next::user);
	EXPECT_EQ(s.user.io.string_count, 1u);
	s.rflags ^= rflags::tf;
	/* The segment ends within the page; DI wraps. */
	s.seg(Seg::es).limit = 0x8102;
	EXPECT_EQ(string_io(true, 1, true, 0x8100, 4), Next::user);
	EXPECT_EQ(s.user.io.string_count, 1u);
	s.seg(Seg::es).limit = ~u32{0};
	s.seg(Seg::es).base = 0x100;
	s.gpr[rdi] = 0xfffe;
	EXPECT_EQ(string_io(true, 1, true, 0x100fe, 2), Next::user);
	EXPECT_EQ(s.user.io.string_count, 1u);
}

TEST_F(Emulate, rep_of_nothing)
{
	protected_mode();
	s.gpr[rcx] = 0;
	s.gpr[rsi] = 0x8000;
	expect_done(string_io(false, 1, true, 0x8000, 4));
	EXPECT_EQ(s.gpr[rsi], 0x8000u);
	/* Of RCX only what the address size says. */
	long_mode();
	s.gpr[rcx] = 0xffffffff00000000;
	expect_done(string_io(true, 1, true, 0x8000, 4));
	long_mode();
	EXPECT_EQ(string_io(true, 1, true, 0x8000, 8), Next::user);
}

TEST_F(Emulate, address_size_of_string_io)
{
	long_mode();
	s.gpr[rsi] = 0xaaaabbbbffffffff;
	s.gpr[rcx] = 0xaaaabbbb00000001;
	EXPECT_EQ(string_io(false, 1, true, 0x8000, 4), Next::user);
	EXPECT_EQ(s.gpr[rsi], 0u) << "32-bit registers clear the upper half";
	EXPECT_EQ(s.gpr[rcx], 0u);
	reset();
	s.seg(Seg::cs).base = 0;
	s.rip = 0x1000;
	s.gpr[rsi] = 0x1234ffff;
	s.gpr[rcx] = 0x12340001;
	EXPECT_EQ(string_io(false, 1, true, 0x8000, 2), Next::user);
	EXPECT_EQ(s.gpr[rsi], 0x12340000u) << "SI wraps";
	EXPECT_EQ(s.gpr[rcx], 0x12340000u);
	EXPECT_EQ(s.rip, 0x1002u);
	long_mode();
	s.gpr[rsi] = 0xffffffff;
	EXPECT_EQ(string_io(false, 1, false, 0x8000, 8), Next::user);
	EXPECT_EQ(s.gpr[rsi], 0x100000000u);
}

TEST_F(Emulate, ins_writes_memory_when_the_data_is_there)
{
	protected_mode();
	s.gpr[rdi] = 0x8000;
	s.gpr[rcx] = 1;
	EXPECT_EQ(string_io(true, 2, true, 0x8000, 4), Next::user);
	EXPECT_EQ(s.user.io.direction, KVM_EXIT_IO_IN);
	EXPECT_EQ(s.gpr[rdi], 0x8000u);
	put_port_page({0xaa, 0xbb, 0xcc});
	expect_done(complete());
	EXPECT_EQ(ram.get<u32>(0x8000), 0xbbaau);
	EXPECT_EQ(s.gpr[rdi], 0x8002u);
	EXPECT_EQ(s.gpr[rcx], 0u);
}

TEST_F(Emulate, ins_over_two_pages)
{
	protected_mode();
	s.gpr[rdi] = 0x8ffe;
	EXPECT_EQ(string_io(true, 4, false, 0x8ffe, 4), Next::user);
	put_port_page({1, 2, 3, 4});
	expect_done(complete());
	EXPECT_EQ(ram.get<u32>(0x8ffe), 0x04030201u);
}

TEST_F(Emulate, ins_to_a_page_that_cannot_be_written)
{
	long_mode();
	s.cr0 |= cr0::wp;
	ram.put<u64>(pd + 8, 0x200000 | 0x85); /* 2 MiB, read-only */
	s.gpr[rdi] = 0x200000;
	EXPECT_EQ(string_io(true, 1, false, 0x200000, 8), Next::resume);
	expect_event(Vector::page_fault);
	EXPECT_EQ(s.cr2, 0x200000u);
	EXPECT_EQ(s.event.error_code, 3u);
	EXPECT_EQ(s.pending.kind, PendingAccess::Kind::none) << "the device was not asked";
}

TEST_F(Emulate, ins_is_dropped_when_the_vmm_moved_rip)
{
	protected_mode();
	s.gpr[rdi] = 0x8000;
	EXPECT_EQ(string_io(true, 1, false, 0x8000, 4), Next::user);
	s.rip = 0x7000;
	EXPECT_EQ(complete({0xaa}), Next::resume);
	EXPECT_EQ(ram.get<u8>(0x8000), 0);
	EXPECT_EQ(s.gpr[rdi], 0x8000u);
}

TEST_F(Emulate, string_io_outside_ram)
{
	protected_mode();
	s.gpr[rsi] = device;
	EXPECT_EQ(string_io(false, 1, false, device, 4), Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_INTERNAL_ERROR});
	EXPECT_EQ(s.rip, 0x1000u);
}
