// SPDX-License-Identifier: GPL-2.0
//
// Instructions on device memory against the CPU itself: each form of guest/forms.S runs in memory,
// and again with the same operands where there is none, the test being the device. Registers, flags
// and memory must be the same afterwards.

#include "expect.hpp"
#include "forms.hpp"
#include "ktap.hpp"
#include "vm.hpp"

#include <algorithm>
#include <array>
#include <cpuid.h>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace
{

using expect::equal;
using expect::that;

enum class Mode { real, protected_, long_ };

struct Form {
	uint16_t address, undefined;
	const char *text;

	bool is(const char *name) const { return std::strstr(text, name) != nullptr; }
	bool two_addresses() const { return is("movs") && !is("(%") ? true : is("cmps"); }
};

// Where an operand is: in memory, on the device, or in both, its first bytes in memory.
enum class Where { memory, device, edge };
constexpr uint64_t window = 0x2000; // that operands lie in, around their address

constexpr uint64_t arithmetic_flags = 0x8d5, direction_flag = 0x400;

class Forms
{
public:
	explicit Forms(Mode mode);

	// All forms, with their operands at an offset in a page.
	void run(uint64_t offset, Where rest, unsigned rounds);

private:
	struct Outcome {
		kvm_regs regs;
		std::vector<uint8_t> si, di;
	};
	struct Input {
		kvm_regs regs;
		std::array<uint8_t, 512> si, di;
	};

	uint64_t base(Where where) const;
	std::byte *at(uint64_t address, unsigned i);
	Input make_input(const Form &form);
	Outcome execute(const Form &form, const Input &input, Where si, Where di, uint64_t offset);
	void compare(const Form &form, const Input &input, Where si, Where di, uint64_t offset,
		     const Outcome &native);
	uint32_t mask() const { return mode_ == Mode::real ? 0xffff : 0xffffffff; }

	const Mode mode_;
	Machine machine_;
	Memory device_;
	std::vector<Form> forms_;
	std::mt19937_64 random_{7};
};

// The two strings are a page apart, so that each may cross into a page of its own.
constexpr uint64_t di_distance = 0x2000;

Forms::Forms(Mode mode) : mode_(mode), machine_(guest::forms::image()), device_(0x10000)
{
	switch (mode) {
	case Mode::real:
		machine_.vcpu.enter_real(0);
		break;
	case Mode::protected_:
		machine_.prepare_protected();
		machine_.vcpu.enter_protected(0);
		break;
	case Mode::long_:
		machine_.prepare_long();
		machine_.vcpu.enter_long(0);
		break;
	}
	const uint64_t table = mode == Mode::real         ? guest::forms::forms16
			       : mode == Mode::protected_ ? guest::forms::forms32
							  : guest::forms::forms64;
	unsigned a, b, c = 0, d;
	__get_cpuid(1, &a, &b, &c, &d);
	// KVM ends with KVM_INTERNAL_ERROR_EMULATION at MOVBE.
	const bool movbe = (c & bit_MOVBE) && Device::is_kvmpp();
	for (uint64_t at = table; machine_.at<uint16_t>(at);) {
		Form form{machine_.at<uint16_t>(at), machine_.at<uint16_t>(at + 2),
			  &machine_.at<char>(at + 4)};
		at += 4 + std::strlen(form.text) + 1;
		if (movbe || !form.is("movbe"))
			forms_.push_back(form);
	}
	expect::note("%zu forms", forms_.size());
}

// Where the window of RSI begins; that of RDI is di_distance further.
uint64_t Forms::base(Where where) const
{
	const uint64_t device = mode_ == Mode::real ? GUEST_MMIO16 : GUEST_MMIO;
	return where == Where::memory ? GUEST_SCRATCH
	       : where == Where::edge ? GUEST_MEMORY - 0x1000
				      : device;
}

// The byte of guest-physical memory.
std::byte *Forms::at(uint64_t address, unsigned i)
{
	address += i;
	if (address < GUEST_MEMORY)
		return machine_.memory.data() + address;
	return device_.data() + (address & 0xffff);
}

Forms::Input Forms::make_input(const Form &form)
{
	constexpr uint8_t extremes[] = {0, 0xff, 0x80, 0x7f, 1};
	Input input{};
	auto byte = [&]() -> uint8_t {
		return random_() % 2 ? static_cast<uint8_t>(random_())
				     : extremes[random_() % std::size(extremes)];
	};
	auto word = [&] {
		uint64_t value = 0;
		for (int i = 0; i < 8; i++)
			value = value << 8 | byte();
		return value;
	};

	std::generate(input.si.begin(), input.si.end(), byte);
	// Strings that are alike, but for a byte now and then.
	input.di = input.si;
	input.di[256 + random_() % 64] = byte();
	kvm_regs &regs = input.regs;
	regs.rax = word();
	regs.rcx = word();
	regs.rbx = word();
	regs.rdx = word();
	regs.r9 = word();
	regs.rflags = 2 | (random_() & arithmetic_flags);
	if (form.is("rep"))
		regs.rcx = random_() % 5;
	if (form.is("bt"))
		regs.rdx = static_cast<uint64_t>(static_cast<int64_t>(random_() % 512) - 256);
	const bool is_string = !form.is("(%");
	if (is_string && random_() % 3 == 0)
		regs.rflags |= direction_flag;
	if (is_string || form.is("cmpxchg")) {
		// What SCAS and CMPXCHG look for, mostly.
		if (random_() % 3) {
			std::memcpy(&regs.rax, &input.si[256], sizeof(regs.rax));
			if (form.is("8b"))
				std::memcpy(&regs.rdx, &input.si[260], 4);
		}
		for (size_t i = 264; i < 300; i++)
			input.di[i] = form.is("scas") ? input.di[256 + i % 8] : input.di[i];
	}
	return input;
}

Forms::Outcome Forms::execute(const Form &form, const Input &input, Where si, Where di,
			      uint64_t offset)
{
	const uint64_t si_at = base(si) + offset, di_at = base(di) + di_distance + offset;
	Vcpu &vcpu = machine_.vcpu;
	kvm_regs regs = input.regs;
	// The edge is RSI's alone.
	for (unsigned i = 0; i < input.si.size(); i++) {
		*at(si_at - 256, i) = std::byte{input.si[i]};
		*at(di_at - 256, i) = std::byte{input.di[i]};
	}
	regs.rip = form.address;
	regs.rsp = GUEST_STACK;
	if (mode_ == Mode::real) {
		kvm_sregs sregs = vcpu.sregs();
		sregs.ds.base = base(si);
		sregs.es.base = base(di) + di_distance;
		sregs.ds.selector = static_cast<uint16_t>(sregs.ds.base >> 4);
		sregs.es.selector = static_cast<uint16_t>(sregs.es.base >> 4);
		vcpu.set_sregs(sregs);
		regs.rsi = regs.rdi = regs.rbx = offset;
	} else {
		regs.rsi = regs.rbx = si_at;
		regs.rdi = di_at;
	}
	if (form.is("8b"))
		regs.rbx = input.regs.rbx;
	vcpu.set_regs(regs);
	for (;;) {
		const long result = vcpu.try_run();
		if (result)
			expect::fail("%s: KVM_RUN: %ld", form.text, result);
		kvm_run &run = vcpu.state();
		if (run.exit_reason == KVM_EXIT_HLT)
			break;
		if (run.exit_reason != KVM_EXIT_MMIO)
			expect::fail("%s: %s, suberror %u, at %#llx", form.text,
				     exit_name(run.exit_reason), run.internal.suberror,
				     vcpu.regs().rip);
		for (unsigned i = 0; i < run.mmio.len; i++) {
			std::byte &there = *at(run.mmio.phys_addr, i);
			std::byte &data = reinterpret_cast<std::byte *>(run.mmio.data)[i];
			(run.mmio.is_write ? there : data) = run.mmio.is_write ? data : there;
		}
	}
	Outcome outcome{vcpu.regs(), {}, {}};
	for (unsigned i = 0; i < input.si.size(); i++) {
		outcome.si.push_back(static_cast<uint8_t>(*at(si_at - 256, i)));
		outcome.di.push_back(static_cast<uint8_t>(*at(di_at - 256, i)));
	}
	// As if the windows had been at the same place.
	if (mode_ != Mode::real) {
		outcome.regs.rsi -= si_at;
		outcome.regs.rdi -= di_at;
		outcome.regs.rbx -= form.is("8b") ? 0 : si_at;
	}
	outcome.regs.rflags &= ~uint64_t{form.undefined};
	return outcome;
}

void Forms::compare(const Form &form, const Input &input, Where si, Where di, uint64_t offset,
		    const Outcome &native)
{
	const Outcome emulated = execute(form, input, si, di, offset);
	const auto fail = [&](const char *what, uint64_t seen, uint64_t wanted) {
		expect::fail("%s (RSI %d, RDI %d, offset %#llx, RAX %#llx, RCX %#llx, RDX %#llx): "
			     "%s %#llx, the CPU has %#llx",
			     form.text, static_cast<int>(si), static_cast<int>(di),
			     static_cast<unsigned long long>(offset), input.regs.rax,
			     input.regs.rcx, input.regs.rdx, what,
			     static_cast<unsigned long long>(seen),
			     static_cast<unsigned long long>(wanted));
	};
	// Outside 64-bit code the upper halves are not the guest's.
	const uint64_t bits = mode_ == Mode::long_ ? ~0ul : 0xffffffff;
	const auto same = [&](const char *what, uint64_t seen, uint64_t wanted) {
		if ((seen ^ wanted) & bits)
			fail(what, seen, wanted);
	};
	same("RAX", emulated.regs.rax, native.regs.rax);
	same("RBX", emulated.regs.rbx, native.regs.rbx);
	same("RCX", emulated.regs.rcx, native.regs.rcx);
	same("RDX", emulated.regs.rdx, native.regs.rdx);
	same("RSI", emulated.regs.rsi, native.regs.rsi);
	same("RDI", emulated.regs.rdi, native.regs.rdi);
	same("RSP", emulated.regs.rsp, native.regs.rsp);
	same("R9", emulated.regs.r9, native.regs.r9);
	same("RIP", emulated.regs.rip, native.regs.rip);
	same("RFLAGS", emulated.regs.rflags, native.regs.rflags);
	for (unsigned i = 0; i < input.si.size(); i++) {
		if (emulated.si[i] != native.si[i])
			fail("a byte at RSI", emulated.si[i], native.si[i]);
		if (emulated.di[i] != native.di[i])
			fail("a byte at RDI", emulated.di[i], native.di[i]);
	}
}

void Forms::run(uint64_t offset, Where where, unsigned rounds)
{
	for (const Form &form : forms_) {
		for (unsigned round = 0; round < rounds; round++) {
			const Input input = make_input(form);
			const Outcome native =
				execute(form, input, Where::memory, Where::memory, offset);
			compare(form, input, where, Where::device, offset, native);
			if (!form.two_addresses() || where != Where::device)
				continue;
			compare(form, input, Where::memory, Where::device, offset, native);
			compare(form, input, Where::device, Where::memory, offset, native);
		}
	}
}

void in_mode(Mode mode)
{
	Forms(mode).run(0x800, Where::device, 3);
}

void long_mode()
{
	in_mode(Mode::long_);
}

void protected_mode()
{
	in_mode(Mode::protected_);
}

void real_mode()
{
	in_mode(Mode::real);
}

// All of them, the operand lying in two pages.
void across_pages()
{
	Forms(Mode::long_).run(0xfff, Where::device, 1);
	Forms(Mode::long_).run(0xffd, Where::device, 1);
}

// The operand's first bytes in memory, the others on the device.
void across_the_end_of_memory()
{
	Forms(Mode::long_).run(0xfff, Where::edge, 1);
	Forms(Mode::long_).run(0xffc, Where::edge, 1);
}

constexpr ktap::Case cases[] = {
	{"long_mode", long_mode, 120},
	{"protected_mode", protected_mode, 120},
	{"real_mode", real_mode, 120},
	{"across_pages", across_pages, 120},
	{"across_the_end_of_memory", across_the_end_of_memory, 120},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
