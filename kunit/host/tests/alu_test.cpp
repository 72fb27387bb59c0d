// SPDX-License-Identifier: GPL-2.0
/* What the ALU's functions say against the machine that the tests run on, flags and all. */
#include "arch/x86/alu.hpp"

#include <gtest/gtest.h>

#include <random>

using namespace kvmpp;

namespace
{

constexpr u64 flags = rflags::cf | rflags::pf | rflags::af | rflags::zf | rflags::sf | rflags::of;
constexpr u64 no_af = flags & ~rflags::af;

/* One instruction of the host, on registers of type T; below the red zone. */
#define HOST(name, insn)                                                                           \
	template <class T> AluResult name(T a, T b, u64 old)                                       \
	{                                                                                          \
		u64 f = old | rflags::fixed;                                                       \
		asm("lea -128(%%rsp), %%rsp; push %[f]; popf; " insn                               \
		    "; pushf; pop %[f]; lea 128(%%rsp), %%rsp"                                     \
		    : [f] "+&r"(f), [a] "+&r"(a)                                                   \
		    : [b] "r"(b)                                                                   \
		    : "cc", "memory");                                                             \
		return {a, f & flags};                                                             \
	}

HOST(host_add, "add %[b], %[a]")
HOST(host_adc, "adc %[b], %[a]")
HOST(host_sub, "sub %[b], %[a]")
HOST(host_sbb, "sbb %[b], %[a]")
HOST(host_cmp, "cmp %[b], %[a]")
HOST(host_and, "and %[b], %[a]")
HOST(host_or, "or %[b], %[a]")
HOST(host_xor, "xor %[b], %[a]")
HOST(host_test, "test %[b], %[a]")
HOST(host_inc, "inc %[a]")
HOST(host_dec, "dec %[a]")
HOST(host_not, "not %[a]")
HOST(host_neg, "neg %[a]")
HOST(host_bt, "bt %[b], %[a]")
HOST(host_bts, "bts %[b], %[a]")
HOST(host_btr, "btr %[b], %[a]")
HOST(host_btc, "btc %[b], %[a]")
#undef HOST

template <class T>
void check(Operation operation, AluResult (*host)(T, T, u64), u64 defined, T a, T b, u64 old)
{
	AluResult want = host(a, b, old);
	AluResult have = alu(operation, sizeof(T), a, b, old | rflags::if_);

	EXPECT_TRUE(have.rflags & rflags::if_) << "other flags stay";
	/* CMP and TEST have no result. */
	bool result = operation != Operation::cmp && operation != Operation::test;
	if ((result && have.value != want.value) || ((have.rflags ^ want.rflags) & defined))
		FAIL() << "operation " << int(operation) << " of " << sizeof(T)
		       << " bytes: " << std::hex << u64{a} << ", " << u64{b} << ", flags " << old
		       << ": " << have.value << " " << (have.rflags & flags) << ", the CPU has "
		       << want.value << " " << want.rflags;
}

template <class T> void check_all()
{
	std::mt19937_64 random(4);
	const u64 extremes[] = {0, 1, ~u64{0}, low_bits(8 * sizeof(T) - 1),
				u64{1} << (8 * sizeof(T) - 1)};
	auto number = [&] {
		return static_cast<T>(random() % 2 ? random() : extremes[random() % 5]);
	};

	for (int round = 0; round < 5000 && !testing::Test::HasFailure(); round++) {
		T a = number(), b = number();
		u64 old = random() & flags;

		check<T>(Operation::add, host_add<T>, flags, a, b, old);
		check<T>(Operation::adc, host_adc<T>, flags, a, b, old);
		check<T>(Operation::sub, host_sub<T>, flags, a, b, old);
		check<T>(Operation::sbb, host_sbb<T>, flags, a, b, old);
		check<T>(Operation::cmp, host_cmp<T>, flags, a, b, old);
		check<T>(Operation::and_, host_and<T>, no_af, a, b, old);
		check<T>(Operation::or_, host_or<T>, no_af, a, b, old);
		check<T>(Operation::xor_, host_xor<T>, no_af, a, b, old);
		check<T>(Operation::test, host_test<T>, no_af, a, b, old);
		check<T>(Operation::inc, host_inc<T>, flags, a, b, old);
		check<T>(Operation::dec, host_dec<T>, flags, a, b, old);
		check<T>(Operation::not_, host_not<T>, flags, a, b, old);
		check<T>(Operation::neg, host_neg<T>, flags, a, b, old);
		if constexpr (sizeof(T) > 1) {
			check<T>(Operation::bt, host_bt<T>, rflags::cf, a, b, old);
			check<T>(Operation::bts, host_bts<T>, rflags::cf, a, b, old);
			check<T>(Operation::btr, host_btr<T>, rflags::cf, a, b, old);
			check<T>(Operation::btc, host_btc<T>, rflags::cf, a, b, old);
		}
	}
}

} // namespace

TEST(Alu, like_the_host)
{
	check_all<u8>();
	check_all<u16>();
	check_all<u32>();
	check_all<u64>();
}
