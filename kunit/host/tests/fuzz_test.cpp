// SPDX-License-Identifier: GPL-2.0
/*
 * Any ioctl with any argument, and any exit of a guest with any fields that hardware could give it, under the
 * sanitizers and the model's rules. FUZZ_CALLS=N for more of them, FUZZ_SEED=N for others.
 */
#include "tools/testing/fuzz/abi.hpp"
#include "tools/testing/fuzz/soup.hpp"
#include "vm_fixture.hpp"

#include <asm/errno.h>
#include <uapi/kvmpp.h>

#include <csignal>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

unsigned long from_environment(const char *name, unsigned long otherwise)
{
	const char *text = std::getenv(name);

	return text ? std::strtoul(text, nullptr, 0) : otherwise;
}

class Fuzz : public ModuleTest
{
protected:
	static constexpr u64 ram_bytes = 0x10000;
	static constexpr unsigned vms = 2, vcpus = 4;

	Fuzz()
		: random(from_environment("FUZZ_SEED", 1), 0),
		  ram(static_cast<u8 *>(std::aligned_alloc(page_size, ram_bytes))),
		  arena(static_cast<std::byte *>(std::malloc(fuzz::largest_argument)))
	{
		std::memset(ram, 0, ram_bytes);
		add_user_memory(reinterpret_cast<u64>(ram), ram_bytes);
		set_guest([this](Vmcs &vmcs, u64 *gprs) { return exits(vmcs, gprs); });
		on_sleep([] { set_signal_pending(true); });
	}
	~Fuzz() override
	{
		for (int &fd : vcpu_fds)
			close(fd);
		for (int &fd : vm_fds)
			close(fd);
		remove_user_memory(reinterpret_cast<u64>(ram));
		std::free(ram);
		std::free(arena);
	}

	void play(unsigned long calls)
	{
		for (unsigned long i = 0; i < calls && !HasFailure(); i++) {
			if (random.one_in(200))
				close(vcpu_fds[random.below(vcpus)]);
			if (random.one_in(1000))
				close(vm_fds[random.below(vms)]);
			if (random.one_in(8))
				scribble();
			call(fuzz::any_ioctl(random));
			for (const std::string &line : take_violations())
				ADD_FAILURE() << "violation: " << line << ", call " << i;
		}
	}

	fuzz::Random random;

private:
	static void close(int &fd)
	{
		if (fd >= 0)
			close_fd(std::exchange(fd, -1));
	}
	int vm(unsigned which)
	{
		int &fd = vm_fds[which];

		if (fd < 0) {
			fd = create_vm();
			set_memory(fd, 0, 0, ram_bytes, reinterpret_cast<u64>(ram));
		}
		return fd;
	}
	int vcpu(unsigned which)
	{
		int &fd = vcpu_fds[which];

		/* The fuzzer may have made one of that id. */
		for (unsigned id = which; fd < 0; id += vcpus)
			fd = create_vcpu(vm(which % vms), id);
		return fd;
	}
	/* Code for the emulation, and what user space may write to the pages that it shares. */
	void scribble()
	{
		auto mode = static_cast<fuzz::Mode>(random.below(fuzz::modes));
		u64 page = random.below(ram_bytes / page_size) * page_size;
		int fd = vcpu(random.below(vcpus));
		auto *words = reinterpret_cast<u64 *>(&shared(fd));

		fuzz::fill_with_instructions(
			random, mode, {reinterpret_cast<std::byte *>(ram) + page, page_size});
		for (unsigned i = 0; i < 4; i++)
			words[random.below(32)] = random.number();
	}

	void call(const fuzz::Ioctl &ioctl)
	{
		const fuzz::Places places{reinterpret_cast<u64>(ram), ram_bytes,
					  [](fuzz::Random &r) { return int(r.below(8)); }};
		auto file = random.one_in(40) ? static_cast<fuzz::File>(random.below(fuzz::files))
					      : ioctl.file;
		unsigned which = random.below(vcpus);
		const char *format = ioctl.argument;
		u64 argument = 0;

		if (format[0] == '=')
			argument = fuzz::number_of_kind(format[1], random, places);
		if (ioctl.request == KVMPP_SET_DEDICATED_CPU)
			argument = ~u64{0};
		entries = 0;
		if (format[0] == '=' || (!format[0] && !_IOC_SIZE(ioctl.request))) {
			done(ioctl, which, enter(file, which, ioctl.request, argument));
			return;
		}
		std::size_t size = fuzz::fill_argument(ioctl, random, places, arena);
		argument = reinterpret_cast<u64>(arena);
		/* What there is of it; nothing must be touched behind that. */
		std::size_t there = random.one_in(16)  ? random.below(static_cast<unsigned>(size))
				    : random.one_in(2) ? fuzz::largest_argument
						       : size;
		if (there)
			add_user_memory(argument, there);
		if (ioctl.from && !random.one_in(4))
			enter(file, which, ioctl.from, argument);
		if (random.one_in(2))
			fuzz::mutate(random, {arena, size});
		fuzz::tame(ioctl, SIGUSR1, arena);
		done(ioctl, which, enter(file, which, ioctl.request, argument));
		if (there)
			remove_user_memory(argument);
	}

	long enter(fuzz::File file, unsigned which, unsigned long request, u64 argument)
	{
		auto command = static_cast<unsigned>(request);

		if (file == fuzz::File::device) {
			long result = kvmpp_device_ioctl(command, argument);
			return_to_user("an ioctl");
			return result;
		}
		int fd = file == fuzz::File::vm ? vm(which % vms) : vcpu(which);
		bool other = random.one_in(50);
		switch_process(other);
		long result = file == fuzz::File::vm ? vm_ioctl(fd, command, argument)
						     : vcpu_ioctl(fd, command, argument);
		set_signal_pending(false);
		switch_process(0);
		bool for_all =
			command == KVMPP_SET_DEDICATED_CPU || command == KVMPP_GET_DEDICATED_CPU;
		EXPECT_TRUE(!other || for_all || result == -EIO)
			<< "in another process: " << result;
		return result;
	}
	void done(const fuzz::Ioctl &ioctl, unsigned which, long result)
	{
		if (result < 0)
			return;
		auto fd = static_cast<int>(result);
		if (ioctl.request == KVM_CREATE_VM) {
			close(vm_fds[which % vms]);
			vm_fds[which % vms] = fd;
		} else if (ioctl.request == KVM_CREATE_VCPU) {
			close(vcpu_fds[which]);
			vcpu_fds[which] = fd;
		}
	}

	/* "Information for VM Exits", as the processor fills it in. */
	bool exits(Vmcs &vmcs, u64 *gprs)
	{
		auto set = [&](auto field, u64 value) { vmcs.fields[field.encoding] = value; };
		auto reason = static_cast<ExitReason>(random.below(70));

		if (++entries > 12)
			reason = ExitReason::triple_fault;
		for (unsigned i = 0; i < 16; i++)
			if (random.one_in(2))
				gprs[i] = random.number();
		if (reason == ExitReason::rdmsr || reason == ExitReason::wrmsr)
			gprs[rcx] = static_cast<u32>(fuzz::number_of_kind('m', random, {}));
		set(field::guest_rip, random.below(ram_bytes));
		set(field::exit_reason, static_cast<u64>(reason));
		set(field::exit_qualification, qualification(reason));
		set(field::vm_exit_instruction_length, 1 + random.below(15));
		set(field::vm_exit_interruption_info, event(random));
		set(field::vm_exit_interruption_error_code, random.next() & 0xffff);
		set(field::idt_vectoring_info, random.one_in(4) ? event(random) : 0);
		set(field::idt_vectoring_error_code, random.next() & 0xffff);
		set(field::guest_physical_address,
		    random.one_in(8) ? random.next() >> 25 : random.below(2 * ram_bytes));
		set(field::guest_linear_address, random.number());
		return false;
	}
	u64 qualification(ExitReason reason)
	{
		constexpr u64 port_sizes[] = {0, 1, 3}, registers[] = {0, 3, 4, 8};
		u64 any = random.next();

		switch (reason) {
		case ExitReason::io_instruction:
			return (any & 0xffff'0078) | port_sizes[random.below(3)];
		case ExitReason::control_register_access: {
			/* CLTS and LMSW are about CR0. */
			u64 type = random.below(4) << 4;
			u64 cr = type >= 0x20 ? 0 : registers[random.below(4)];

			return (any & 0xffff'0f00) | type | cr;
		}
		case ExitReason::mov_dr:
			return any & 0xf17;
		default:
			return any & 0xffff;
		}
	}
	static u64 event(fuzz::Random &random)
	{
		constexpr u64 valid = u64{1} << 31, has_error = 1 << 11, nmi = 2, hardware = 3;
		constexpr u64 errors = 0x27d00; /* of the vectors that have one */
		u64 vector = random.below(20);

		if (vector == 2)
			return valid | nmi << 8 | vector;
		return valid | hardware << 8 | vector | (errors >> vector & 1 ? has_error : 0);
	}

	u8 *ram;
	std::byte *arena;
	int vm_fds[vms] = {-1, -1}, vcpu_fds[vcpus] = {-1, -1, -1, -1};
	unsigned entries = 0;
};

} // namespace

TEST_F(Fuzz, any_call_and_any_exit)
{
	play(from_environment("FUZZ_CALLS", 20'000));
}
