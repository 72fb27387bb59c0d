// SPDX-License-Identifier: GPL-2.0
//
// What nobody writes a guest or a VMM for: random processor state with random privileged
// instructions, and a VM that many threads pull at. Nothing is asked of the guest; the host must
// live through it, with its own registers, and with VMX off afterwards.
//
// STRESS_SEED=N chooses another course than the one that is always the same; STRESS_ROUNDS=N another
// length. The random guests are the same each time; where signals come, and what threads do when, is
// not.

#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>
#include <sched.h>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;

unsigned long from_environment(const char *name, unsigned long otherwise)
{
	const char *text = std::getenv(name);
	return text && *text ? std::strtoul(text, nullptr, 0) : otherwise;
}

unsigned long seed()
{
	return from_environment("STRESS_SEED", 1);
}

// Each some milliseconds of the emulated machine's time.
unsigned long rounds()
{
	return from_environment("STRESS_ROUNDS", 600);
}

class Random
{
public:
	explicit Random(unsigned long stream) : engine_(seed() * 1'000'003 + stream) {}

	uint64_t any() { return engine_(); }
	uint64_t below(uint64_t limit) { return engine_() % limit; }
	bool one_in(unsigned n) { return below(n) == 0; }

	// The kinds of numbers that registers are sensitive to.
	uint64_t number()
	{
		switch (below(7)) {
		case 0:
			return any();
		case 1:
			// Canonical.
			return static_cast<uint64_t>(static_cast<int64_t>(any()) >> 17);
		case 2:
			return any() & 0xffffffff;
		case 3:
			return bit(static_cast<unsigned>(below(64)));
		case 4:
			return 0;
		case 5:
			return any() & 0xfff;
		default:
			return ~0ul << below(64);
		}
	}

	template <size_t n> const auto &choose(const auto(&list)[n]) { return list[below(n)]; }

private:
	std::mt19937_64 engine_;
};

// The host after a case: its registers on each CPU, and no VMX left on.
void check_host()
{
	for (const unsigned cpu : host::online_cpus()) {
		host::pin({cpu});
		host::expect_registers(cpu);
	}
	if (Device::is_kvmpp())
		host::expect_vmx(false);
}

// ---- Random guests

constexpr uint32_t msrs[] = {
	0x10,       0x1b,       0x3a,       0x3b,       0x48,       0x49,       0x79,
	0x8b,       0xc1,       0xe1,       0x10b,      0x122,      0x174,      0x175,
	0x176,      0x179,      0x186,      0x1a0,      0x1c4,      0x1d9,      0x277,
	0x2ff,      0x38f,      0x480,      0x48c,      0x600,      0x6e0,      0x800,
	0x80b,      0x830,      0xd90,      0xda0,      0xc0000080, 0xc0000081, 0xc0000082,
	0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0xc0000104,
};

enum class Mode { real, protected_32, long_64, compatibility };
constexpr Mode modes[] = {Mode::real, Mode::protected_32, Mode::long_64, Mode::compatibility};

// Behind the image, which has the exception handlers, and within real mode's reach.
constexpr uint64_t code_at = 0x5000;
constexpr size_t code_limit = 0x1000;

// Random instructions, written to a guest's memory.
class Code
{
public:
	Code(Random &random, Mode mode, uint8_t *at) : random_(random), mode_(mode), next_(at) {}

	void write()
	{
		for (unsigned i = 0; i < 12; i++)
			instruction();
		bytes({0xf4});
	}

private:
	void bytes(std::initializer_list<uint8_t> list)
	{
		for (const uint8_t byte : list)
			*next_++ = byte;
	}

	uint8_t any() { return static_cast<uint8_t>(random_.any()); }

	// MOV of 32 bits, whatever the mode.
	void load(uint8_t opcode, uint64_t value)
	{
		if (mode_ == Mode::real)
			bytes({0x66});
		bytes({opcode});
		const auto low = static_cast<uint32_t>(value);
		std::memcpy(next_, &low, sizeof(low));
		next_ += sizeof(low);
	}
	void load_eax(uint64_t value) { load(0xb8, value); }
	void load_ecx(uint64_t value) { load(0xb9, value); }
	void load_edx(uint64_t value) { load(0xba, value); }

	void instruction()
	{
		uint8_t *resume_offset = nullptr;
		if (mode_ == Mode::long_64) {
			// LEA R15: the handlers go on there.
			bytes({0x4c, 0x8d, 0x3d, 0, 0, 0, 0});
			resume_offset = next_ - 4;
		}
		random_instruction();
		if (resume_offset) {
			const auto offset = static_cast<uint32_t>(next_ - (resume_offset + 4));
			std::memcpy(resume_offset, &offset, sizeof(offset));
		}
	}

	void random_instruction()
	{
		const uint64_t value = random_.number();
		switch (random_.below(12)) {
		case 0:
		case 1:
		case 2:
			load_ecx(random_.choose(msrs));
			load_eax(value);
			load_edx(value >> 32);
			bytes({0x0f, static_cast<uint8_t>(random_.one_in(2) ? 0x30 : 0x32)});
			break;
		case 3: // XSETBV
			load_ecx(0);
			load_edx(0);
			load_eax(1 | random_.below(8));
			bytes({0x0f, 0x01, 0xd1});
			break;
		case 4:
		case 5: // MOV to CR0
			load_eax(random_.one_in(2) ? value : 0x80000033 ^ bit(any() % 32));
			bytes({0x0f, 0x22, 0xc0});
			break;
		case 6: // MOV to CR4
			load_eax(random_.one_in(2) ? 0x406a0 : value);
			bytes({0x0f, 0x22, 0xe0});
			break;
		case 7:
		case 8: // MOV to or from DR
			load_eax(value);
			bytes({0x0f, static_cast<uint8_t>(random_.one_in(2) ? 0x23 : 0x21),
			       static_cast<uint8_t>(0xc0 | (any() & 0x38))});
			break;
		case 9: // the page of system instructions, and much else
			bytes({0x0f, any(), any()});
			break;
		case 10: // MOV to a segment register
			bytes({0x8e, any()});
			break;
		default:
			for (uint64_t i = random_.below(8) + 1; i > 0; i--)
				bytes({any()});
		}
	}

	Random &random_;
	const Mode mode_;
	uint8_t *next_;
};

// A machine that random guests are put in, one after the other.
class RandomMachine
{
public:
	RandomMachine() : machine_(lm::identify)
	{
		that("the image ends before the code",
		     guest::longmode::image().size() <= code_at - GUEST_IMAGE);
		static_assert(code_at + code_limit <= GUEST_RESULTS);
		const Vcpu &vcpu = machine_.vcpu;
		long_ = vcpu.sregs();
		vcpu.enter_protected(0);
		protected_ = vcpu.sregs();
		// As it was born.
		const Vcpu other(machine_.vm, 1);
		other.enter_real(0);
		real_ = other.sregs();
	}

	// A guest that depends on the number only. Returns whether its state can be set.
	bool prepare(unsigned long number)
	{
		random_ = Random(1'000 + number);
		const Mode mode = random_.choose(modes);
		const auto image = guest::longmode::image();
		std::memcpy(&machine_.at<std::byte>(GUEST_IMAGE), image.data(), image.size());
		machine_.prepare_long();
		Code(random_, mode, &machine_.at<uint8_t>(code_at)).write();

		kvm_sregs sregs = mode == Mode::real           ? real_
				  : mode == Mode::protected_32 ? protected_
							       : long_;
		if (mode == Mode::compatibility)
			sregs.cs = protected_.cs;
		if (mode != Mode::real && random_.one_in(4)) {
			sregs.cs.selector |= 3;
			sregs.ss.selector |= 3;
			sregs.cs.dpl = sregs.ss.dpl = 3;
		}
		if (random_.one_in(4))
			for (uint64_t i = random_.below(3) + 1; i > 0; i--)
				reinterpret_cast<uint8_t *>(&sregs)[random_.below(sizeof(sregs))] ^=
					1u << random_.below(8);
		if (machine_.vcpu.try_set_sregs(sregs))
			return false;

		kvm_regs regs{};
		for (auto *reg :
		     {&regs.rax, &regs.rbx, &regs.rcx, &regs.rdx, &regs.rsi, &regs.rdi, &regs.rbp,
		      &regs.r8, &regs.r9, &regs.r10, &regs.r11, &regs.r12, &regs.r13, &regs.r14})
			*reg = random_.number();
		regs.rip = random_.one_in(16) ? random_.number() : code_at;
		regs.rsp = GUEST_STACK;
		regs.rflags = 2 | (random_.one_in(4) ? random_.any() & 0x3f7fd7 : 0);
		return machine_.vcpu.fd().call(KVM_SET_REGS, &regs) == 0;
	}

	// A few times KVM_RUN, as long as there is something to go on with.
	void run(std::map<std::string, unsigned> &ends)
	{
		kvm_run &state = machine_.vcpu.state();
		for (unsigned i = 0; i < 6; i++) {
			// A VMM may write there what it likes.
			auto *words = reinterpret_cast<uint64_t *>(&state);
			for (size_t j = 0; j < sizeof(state) / 8 && i % 2; j++)
				words[j] = random_.any() & random_.any();
			state.cr8 = random_.below(16);
			state.kvm_valid_regs = state.kvm_dirty_regs = 0;
			state.immediate_exit = random_.one_in(8);
			const long result = machine_.vcpu.try_run();
			if (result) {
				ends[strerrorname_np(static_cast<int>(-result))]++;
				continue;
			}
			ends[exit_name(state.exit_reason)]++;
			if (state.exit_reason == KVM_EXIT_SHUTDOWN ||
			    state.exit_reason == KVM_EXIT_FAIL_ENTRY ||
			    state.exit_reason == KVM_EXIT_INTERNAL_ERROR)
				break;
		}
	}

private:
	LongMachine machine_;
	Random random_{0};
	kvm_sregs real_, protected_, long_;
};

// Interrupts KVM_RUN, which a handler for a signal is there for.
void interrupt(int)
{
}

void handle(int signal)
{
	struct sigaction action {
	};
	action.sa_handler = interrupt;
	that("sigaction", !sigaction(signal, &action, nullptr));
}

void interrupt_every(suseconds_t microseconds)
{
	const itimerval timer{{0, microseconds}, {0, microseconds}};
	that("setitimer", !setitimer(ITIMER_REAL, &timer, nullptr));
}

void random_guests()
{
	expect::note("STRESS_SEED=%lu STRESS_ROUNDS=%lu", seed(), rounds());
	handle(SIGALRM);
	const auto cpus = host::online_cpus();
	std::optional<RandomMachine> machine;
	std::map<std::string, unsigned> ends;
	unsigned long refused = 0;
	for (unsigned long round = 0; round < rounds(); round++) {
		const unsigned cpu = cpus[round / 16 % cpus.size()];
		host::pin({cpu});
		host::expect_registers(cpu);
		if (round % 256 == 0)
			machine.emplace();
		if (!machine->prepare(round)) {
			refused++;
			continue;
		}
		// Guests may well loop.
		interrupt_every(4'000);
		machine->run(ends);
		interrupt_every(0);
		host::expect_registers(cpu);
	}
	machine.reset();
	std::string text;
	for (const auto &[name, count] : ends)
		text += " " + name + ":" + std::to_string(count);
	expect::note("%lu states refused; ends:%s", refused, text.c_str());
	that("most states can be set", refused < rounds() / 2);
	that("some guests reach their HLT", ends["KVM_EXIT_HLT"] > 0);
	check_host();
}

// ---- Threads

constexpr uint64_t page_size = 0x1000;
constexpr uint64_t mib = 1 << 20;

// One VM, and threads that run its vCPUs, set their registers, make and remove slots, take the
// memory away and give it back. Results are not looked at: every call may come at a bad moment.
class Race
{
public:
	Race() : machine_(lm::walk), pool_(pool_size)
	{
		sregs_ = machine_.vcpu.sregs();
		for (unsigned i = 0; i < vcpu_count; i++)
			vcpus_[i] = create(first_id + i);
		for (unsigned i = 0; i < runner_count; i++)
			threads_.emplace_back([this, i] { run(i); });
		threads_.emplace_back([this] { set_registers(); });
		threads_.emplace_back([this] { set_slots(); });
		threads_.emplace_back([this] { change_memory(); });
	}

	~Race()
	{
		stop_ = true;
		// A signal that comes before KVM_RUN is lost.
		while (running_ > 0) {
			for (unsigned i = 0; i < runner_count; i++)
				pthread_kill(threads_[i].native_handle(), SIGUSR1);
			usleep(2'000);
		}
		for (std::thread &thread : threads_)
			thread.join();
		for (const auto &vcpu : vcpus_)
			close(vcpu);
	}

	// One step of the thread which signals the others and takes vCPUs from under them.
	void step()
	{
		usleep(3'000);
		pthread_kill(threads_[random_.below(runner_count)].native_handle(), SIGUSR1);
		if (random_.one_in(8))
			replace(static_cast<unsigned>(random_.below(vcpu_count)));
	}

	unsigned long runs() const { return runs_; }
	unsigned long walks() const { return walks_; }
	unsigned long created() const { return created_; }

private:
	static constexpr unsigned vcpu_count = 8;
	static constexpr unsigned first_id = 1;
	static constexpr unsigned runner_count = 3;
	static constexpr uint64_t pool_size = 4 * mib;
	static constexpr uint64_t slot_size = pool_size / 4;
	static constexpr uint64_t pool_at = mib;

	// Returns -1 if there is (still) such a vCPU.
	int create(unsigned id)
	{
		const int fd = static_cast<int>(machine_.vm.fd().call(KVM_CREATE_VCPU, id));
		if (fd < 0)
			return -1;
		ioctl(fd, KVM_SET_SREGS, &sregs_);
		set(fd, pool_at);
		created_++;
		return fd;
	}

	static void set(int fd, uint64_t from)
	{
		kvm_regs regs{};
		regs.rip = lm::walk;
		regs.rbx = from;
		regs.rcx = pool_at + pool_size;
		regs.rsp = GUEST_STACK;
		regs.rflags = 2;
		ioctl(fd, KVM_SET_REGS, &regs);
	}

	int any_vcpu(Random &random) { return vcpus_[random.below(vcpu_count)]; }

	void run(unsigned number)
	{
		Random random(100 + number);
		running_++;
		while (!stop_) {
			walks_ += ioctl(any_vcpu(random), KVM_RUN, 0) == 0;
			runs_++;
			if (random.one_in(64))
				usleep(100);
		}
		running_--;
	}

	void set_registers()
	{
		Random random(200);
		while (!stop_) {
			const int fd = any_vcpu(random);
			kvm_regs regs;
			kvm_sregs sregs;
			ioctl(fd, KVM_GET_REGS, &regs);
			const bool known = ioctl(fd, KVM_GET_SREGS, &sregs) == 0;
			set(fd, pool_at + random.below(pool_size));
			if (known && random.one_in(16))
				ioctl(fd, KVM_SET_SREGS, &sregs);
			if (random.one_in(8))
				usleep(300);
		}
	}

	void set_slots()
	{
		Random random(300);
		while (!stop_) {
			const uint64_t number = random.below(4), offset = number * slot_size;
			const uint64_t elsewhere = random.one_in(3) ? pool_size : 0;
			machine_.vm.try_set_memory(
				static_cast<uint32_t>(1 + number), pool_at + elsewhere + offset,
				random.one_in(3) ? 0 : slot_size, pool_.data() + offset);
			usleep(static_cast<unsigned>(random.below(2'000)));
		}
	}

	void change_memory()
	{
		Random random(400);
		while (!stop_) {
			const uint64_t offset = random.below(pool_size / page_size) * page_size;
			const uint64_t size =
				std::min((1 + random.below(64)) * page_size, pool_size - offset);
			change(random, pool_.data() + offset, size);
			usleep(static_cast<unsigned>(random.below(500)));
		}
	}

	static void map(void *at, uint64_t size, int flags)
	{
		that("the pool can be mapped",
		     mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1,
			  0) == at);
	}

	void change(Random &random, void *at, uint64_t size)
	{
		switch (random.below(7)) {
		case 0:
			madvise(at, size, MADV_DONTNEED);
			break;
		case 1:
			madvise(at, size, MADV_PAGEOUT);
			break;
		case 2:
			mprotect(at, size, PROT_READ);
			mprotect(at, size, PROT_READ | PROT_WRITE);
			break;
		case 3:
			map(at, size, MAP_FIXED);
			break;
		case 4:
			munmap(at, size);
			map(at, size, MAP_FIXED_NOREPLACE);
			break;
		case 5:
			if (random.one_in(16))
				copy();
			break;
		default:
			std::memset(at, static_cast<int>(random.any()), page_size);
			break;
		}
	}

	// A child shares every page until one side writes; it may not run the guest.
	void copy()
	{
		const pid_t child = fork();
		if (child == 0) {
			const bool ran = ioctl(vcpus_[0], KVM_RUN, 0) == 0;
			std::memset(pool_.data(), 1, 16 * page_size);
			_exit(ran);
		}
		that("fork", child > 0);
		ktap::child_ok(child);
	}

	// Another vCPU under the same number, if the closed one is gone; its threads may be in it.
	void replace(unsigned number)
	{
		const int old = vcpus_[number], kept = dup(old);
		close(old);
		int fd = create(first_id + number);
		if (fd < 0 && random_.one_in(2) && Device::is_kvmpp()) {
			// KVM keeps a vCPU's number as long as the VM lives.
			close(kept);
			for (unsigned i = 0; fd < 0 && i < 100 && !stop_; i++) {
				pthread_kill(threads_[i % runner_count].native_handle(), SIGUSR1);
				usleep(1'000);
				fd = create(first_id + number);
			}
			vcpus_[number] = fd;
			return;
		}
		vcpus_[number] = fd < 0 ? kept : fd;
		if (fd >= 0)
			close(kept);
	}

	LongMachine machine_;
	Memory pool_;
	Random random_{500};
	kvm_sregs sregs_;
	std::atomic<int> vcpus_[vcpu_count];
	std::atomic<bool> stop_ = false;
	std::atomic<unsigned> running_ = 0;
	std::atomic<unsigned long> runs_ = 0, walks_ = 0, created_ = 0;
	std::vector<std::thread> threads_;
};

// Takes the last CPU off or puts it on, every so often.
void switch_cpu(unsigned long step, const std::vector<unsigned> &cpus)
{
	if (cpus.size() > 1 && step % 50 == 49)
		host::set_online(cpus.back(), step / 50 % 2 == 1);
}

void all_online()
{
	for (unsigned cpu = 1; cpu < 64; cpu++)
		host::set_online(cpu, true);
}

void threads_on_one_vm()
{
	expect::note("STRESS_SEED=%lu STRESS_ROUNDS=%lu", seed(), rounds());
	all_online();
	const auto cpus = host::online_cpus();
	check_host();
	handle(SIGUSR1);
	{
		Race race;
		for (unsigned long step = 0; step < rounds(); step++) {
			race.step();
			switch_cpu(step, cpus);
		}
		all_online();
		expect::note("%lu times KVM_RUN, %lu of them with an exit, %lu vCPUs", race.runs(),
			     race.walks(), race.created());
		that("guests do get to run", race.walks() > 0);
	}
	check_host();
}

// The process goes while its threads are in KVM_RUN: by exit(), and by a signal that none catches.
void exit_while_running()
{
	check_host();
	handle(SIGUSR1);
	for (unsigned round = 0; round < 4; round++) {
		const bool killed = round % 2 == 1;
		const pid_t child = fork();
		if (child == 0) {
			Race race;
			for (unsigned long step = 0; killed || step < rounds() / 20; step++)
				race.step();
			_exit(0);
		}
		that("fork", child > 0);
		if (killed) {
			usleep(static_cast<unsigned>(rounds() / 20 * 4'000));
			kill(child, SIGKILL);
			int status = 0;
			that("waitpid", waitpid(child, &status, 0) == child);
			that("the child was killed, not done", WIFSIGNALED(status));
		} else {
			ktap::child_ok(child);
		}
		check_host();
	}
}

} // namespace

int main(int argc, char **argv)
{
	const auto timeout_s = static_cast<unsigned>(60 + rounds() / 20);
	const ktap::Case cases[] = {
		{"random_guests", random_guests, timeout_s},
		{"threads_on_one_vm", threads_on_one_vm, timeout_s},
		{"exit_while_running", exit_while_running, timeout_s},
	};
	return ktap::run(cases, argc, argv);
}
