// SPDX-License-Identifier: GPL-2.0
#include "soup.hpp"

#include "abi.hpp"

#include <cstring>
#include <iterator>
#include <string_view>

namespace fuzz
{
namespace
{

// Bytes in hexadecimal, ".." being any. Before them, what registers get: M, ECX an MSR; L, EAX a leaf and ECX
// a subleaf; P, DX a port and the addresses; A, EBX, ESI and EDI an address; C, EAX any value.
constexpr std::string_view templates[] = {
	// CPUID, MSRs, ports, time
	"L0fa2",
	"M0f32",
	"M0f30",
	"M0f32",
	"M0f30",
	"Pec",
	"Ped",
	"P66ed",
	"Pee",
	"Pef",
	"P66ef",
	"P6c",
	"P6d",
	"P6e",
	"P6f",
	"Pf36c",
	"Pf36d",
	"Pf36e",
	"Pf26f",
	"e4..",
	"e5..",
	"e6..",
	"e7..",
	"0f31",
	"0f01f9",
	"M0f33",
	// control and debug registers
	"C0f22c0",
	"C0f22d0",
	"C0f22d8",
	"C0f22e0",
	"C440f22c0",
	"C0f22..",
	"0f20c0",
	"0f20d0",
	"0f20d8",
	"0f20e0",
	"440f20c0",
	"C0f23c0",
	"C0f23d8",
	"C0f23f0",
	"C0f23f8",
	"C0f23..",
	"0f21f0",
	"0f21f8",
	"0f06",
	"C0f01f0",
	"0f01e0",
	"A0f0133",
	"L0f01d1",
	"L0f01d0",
	// descriptors and ways through them
	"A0f0113",
	"A0f011b",
	"A0f0103",
	"A0f010b",
	"C0f00d0",
	"C0f00d8",
	"0f00c0",
	"0f00c8",
	"C0f00e0",
	"C0f00e8",
	"C0f02c0",
	"C0f03c0",
	"C8ed8",
	"C8ec0",
	"C8ed0",
	"C8ee0",
	"C8ee8",
	"1f",
	"07",
	"17",
	"0fa1",
	"0fa9",
	"A0fb203",
	"A0fb403",
	"ea............",
	"9a............",
	"Aff1b",
	"Aff2b",
	"cb",
	"cf",
	"48cf",
	"48cb",
	"ca....",
	"cd..",
	"cc",
	"ce",
	"f1",
	"0f05",
	"0f07",
	"480f07",
	"0f34",
	"0f35",
	"480f35",
	"0f01f8",
	"C509d",
	"9c",
	"9d",
	"fa",
	"fb",
	// VMX, SMX, SGX, SMM
	"0f01c1",
	"0f01c2",
	"0f01c3",
	"0f01c4",
	"A0fc733",
	"A660fc733",
	"Af30fc733",
	"A0fc73b",
	"A0f7803",
	"A0f7903",
	"A660f388003",
	"A660f388103",
	"L0f01d4",
	"0f37",
	"0faa",
	"L0f01cf",
	"L0f01d7",
	"L0f01c0",
	"L0f01c5",
	// caches, TLBs, waiting
	"0f08",
	"0f09",
	"f30f09",
	"A0f013b",
	"A660f388203",
	"A0fae3b",
	"A0f01c8",
	"0f01c9",
	"f390",
	"f30faef3",
	"f20faef0",
	"660faef0",
	"A0f0d03",
	// state
	"A0fae03",
	"A0fae0b",
	"A0fae23",
	"A0fae2b",
	"A0fc723",
	"A0fc72b",
	"A0fc71b",
	"Add03",
	"Add23",
	"Add33",
	"dbe3",
	"9b",
	"0f77",
	"Cf30faed0",
	"f30faec0",
	"Cf30faed8",
	"0f01ca",
	"0f01cb",
	"0f01ee",
	"0f01ef",
	"0fc7f0",
	"0fc7f8",
	"C0f01d6",
	"c7f8........",
	"0f01d5",
	// memory, devices among it
	"A8b03",
	"A8903",
	"A8a03",
	"A8803",
	"A0fb703",
	"A0fb603",
	"A0fbe03",
	"Af00fb10b",
	"Af00fc10b",
	"A0fc70b",
	"A480fc70b",
	"A8703",
	"A0103",
	"A2103",
	"A3103",
	"A83..03",
	"A8003..",
	"Ac703........",
	"Af7..03",
	"A0fab03",
	"A0fba2b..",
	"Aa4",
	"Aa5",
	"Af3a4",
	"Af3a5",
	"Aaa",
	"Af3ab",
	"Aac",
	"Aad",
	"Aa6",
	"Af3a7",
	"Aae",
	"Aff33",
	"A8f03",
	"Aff13",
	"Aff23",
	"A0f6f03",
	"A0f2803",
	"A660fe703",
	"A0f2903",
	"Ac5fc2803",
	"Ac5fc2903",
	"A0fc303",
	"A0f38f003",
	"60",
	"61",
	"c8......",
	"c9",
	"A6203",
	"d7",
	"c3",
	// anything
	"0f0b",
	"d6",
	"0fff",
	"0f..",
	"0f....",
	"0f38....",
	"0f3a......",
	"f0....",
	"66....",
	"67....",
	"f3....",
	"f2....",
	"2e....",
	"c5......",
	"c4........",
	"62............",
	"............",
};

class Writer
{
public:
	Writer(Mode mode, std::byte *to) : mode_(mode), to_(to) {}

	void byte(unsigned value) { to_[size_++] = static_cast<std::byte>(value); }
	void bytes(uint64_t value, unsigned count)
	{
		std::memcpy(to_ + size_, &value, count);
		size_ += count;
	}
	// MOV of an immediate operand to register @number.
	void load(unsigned number, uint64_t value)
	{
		const bool wide = mode_ == Mode::long_;
		byte(wide ? 0x48 : mode_ == Mode::real ? 0x66 : 0x90);
		byte(0xb8 + number);
		bytes(value, wide ? 8 : 4);
	}
	size_t size() const { return size_; }

private:
	const Mode mode_;
	std::byte *to_;
	size_t size_ = 0;
};

enum Register : unsigned { eax, ecx, edx, ebx, esp, ebp, esi, edi };

constexpr Places nowhere{0, 0xa0000, [](Random &) { return 0; }};

uint64_t any_address(Random &random)
{
	constexpr uint64_t bases[] = {0xfee00000, 0xfec00000, 0x10000000, 0xb8000, 0xa000,
				      0xb000,     0xc000,     0x10000,    0x20000, 0x9fff0};
	const uint64_t base = bases[random.below(std::size(bases))];
	// Registers of APICs are 16 bytes apart.
	const unsigned offset =
		random.one_in(2) ? random.below(0x40) * 0x10 : random.below(0x1000) & -4;
	return random.one_in(8) ? random.number() : base + offset;
}

uint64_t any_port(Random &random)
{
	// PICs, the PIT, what its channel 2 goes through, and how interrupts are triggered.
	constexpr uint16_t devices[] = {0x20, 0x21, 0xa0, 0xa1, 0x40,  0x41,
					0x42, 0x43, 0x43, 0x61, 0x4d0, 0x4d1};
	switch (random.below(4)) {
	case 0:
		return random.next() & 0xffff;
	case 1:
		return random.below(0x100);
	default:
		return devices[random.below(std::size(devices))];
	}
}

void load_operands(char what, Random &random, Writer &writer)
{
	switch (what) {
	case 'M':
		writer.load(eax, random.number());
		writer.load(ecx, number_of_kind('m', random, nowhere));
		writer.load(edx, random.number());
		break;
	case 'L':
		writer.load(eax, random.one_in(2) ? random.below(32) : random.number());
		writer.load(ecx, random.one_in(2) ? random.below(4) : random.number());
		break;
	case 'P':
		writer.load(edx, any_port(random));
		writer.load(random.one_in(2) ? esi : edi, any_address(random));
		writer.load(ecx, random.one_in(8) ? random.number() : random.below(300));
		break;
	case 'A':
		writer.load(ebx, any_address(random));
		writer.load(random.one_in(2) ? esi : edi, any_address(random));
		writer.load(ecx, random.one_in(8) ? random.number() : random.below(300));
		break;
	case 'C':
		writer.load(eax, random.number());
		break;
	}
}

unsigned hex(char digit)
{
	return static_cast<unsigned>(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

} // namespace

size_t random_instruction(Random &random, Mode mode, bool halts, std::byte *to)
{
	Writer writer(mode, to);
	if (halts && random.one_in(32)) {
		writer.byte(0xf4);
		return writer.size();
	}
	std::string_view text = templates[random.below(std::size(templates))];
	if (text[0] >= 'A' && text[0] <= 'Z') {
		load_operands(text[0], random, writer);
		// Addresses of 32 bits, which segments of real mode may still keep it from.
		if (mode == Mode::real && text[0] == 'A' && random.one_in(2))
			writer.byte(0x67);
		text.remove_prefix(1);
	}
	for (; !text.empty(); text.remove_prefix(2)) {
		const auto any = static_cast<unsigned>(random.next());
		writer.byte(text[0] == '.' ? any : hex(text[0]) << 4 | hex(text[1]));
	}
	return writer.size();
}

void fill_with_instructions(Random &random, Mode mode, std::span<std::byte> to)
{
	while (to.size() >= longest_instruction)
		to = to.subspan(random_instruction(random, mode, true, to.data()));
	for (std::byte &rest : to)
		rest = std::byte{0xf4};
}

} // namespace fuzz
