// SPDX-License-Identifier: GPL-2.0
#include "steady.hpp"

#include "accounts.hpp"
#include "expect.hpp"
#include "window.hpp"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <sys/syscall.h>
#include <unistd.h>

namespace
{

// Odd, so that no multiple of a small number vanishes.
constexpr uint64_t per_round = 0x9e37'79b9'7f4a'7c15;
constexpr uint64_t per_word = 0xc2b2'ae3d'27d4'eb4f;
constexpr uint64_t per_round_sse = 0x1656'67b1'9e37'79f9;

// What guest/accounts.S leaves at GS.
struct Accounts {
	uint64_t rounds, stop, sum, sse_sum, wrong, index, found, wanted;
};

template <typename T> T load(T &value)
{
	return std::atomic_ref(value).load(std::memory_order_relaxed);
}

} // namespace

SteadyGuest::SteadyGuest(uint32_t words, void *memory)
	: words_(words), machine_(0),
	  memory_(memory ? static_cast<uint64_t *>(memory) : &machine_.at<uint64_t>(GUEST_SCRATCH))
{
	const auto image = guest::accounts::image();
	std::memcpy(machine_.memory.data() + GUEST_IMAGE, image.data(), image.size());
	for (uint64_t i = 0; i < words; i++)
		memory_[i] = i * per_word;
	if (memory)
		machine_.vm.set_memory(1, window_machine::window, words * sizeof(uint64_t), memory);

	kvm_sregs sregs = machine_.vcpu.sregs();
	sregs.fs.base = memory ? window_machine::window : uint64_t{GUEST_SCRATCH};
	sregs.gs.base = GUEST_RESULTS;
	machine_.vcpu.set_sregs(sregs);
	kvm_regs regs = machine_.vcpu.regs();
	regs.rip = guest::accounts::start;
	regs.rdi = words;
	regs.r11 = per_round_sse;
	regs.r12 = per_round;
	regs.r13 = per_word;
	machine_.vcpu.set_regs(regs);

	thread_ = std::thread([this] { loop(); });
	while (tid_ == 0)
		usleep(1'000);
}

uint64_t SteadyGuest::rounds() const
{
	return load(machine_.at<Accounts>(GUEST_RESULTS).rounds);
}

void SteadyGuest::check_progress(uint64_t more, unsigned seconds) const
{
	const uint64_t before = rounds();
	for (unsigned i = 0; i < seconds * 100; i++) {
		if (rounds() >= before + more)
			return;
		usleep(10'000);
	}
	expect::fail("the guest of thread %d does not get beyond round %llu", tid(),
		     (unsigned long long)rounds());
}

void SteadyGuest::finish()
{
	if (!thread_.joinable())
		return;
	std::atomic_ref(machine_.at<Accounts>(GUEST_RESULTS).stop).store(1);
	thread_.join();
	check_sums();
}

void SteadyGuest::loop()
{
	tid_ = static_cast<int>(syscall(SYS_gettid));
	for (;;) {
		const long result = machine_.vcpu.try_run();
		if (result == -EINTR)
			continue;
		expect::equal("KVM_RUN", result, 0);
		if (machine_.vcpu.state().exit_reason == KVM_EXIT_HLT)
			return;
		expect::equal("exit_reason", machine_.vcpu.state().exit_reason, KVM_EXIT_IO);
		if (const unsigned us = rest_us_)
			usleep(us);
	}
}

void SteadyGuest::check_sums() const
{
	const auto &accounts = machine_.at<Accounts>(GUEST_RESULTS);
	const uint64_t n = words_, r = accounts.rounds;
	if (accounts.wrong)
		expect::fail(
			"word %llu of the guest's memory is %#llx, expected %#llx in round %llu",
			(unsigned long long)accounts.index, (unsigned long long)accounts.found,
			(unsigned long long)accounts.wanted, (unsigned long long)r);
	expect::equal("the guest stops when told to", accounts.stop, 1u);
	expect::equal("the guest's sum", accounts.sum,
		      per_round * n * (r * (r + 1) / 2) + per_word * r * (n * (n - 1) / 2));
	expect::equal("the guest's sum in XMM0", accounts.sse_sum, per_round_sse * r);
	for (uint64_t i = 0; i < n; i++)
		expect::equal("a word of the guest's memory", memory_[i],
			      r * per_round + i * per_word);
}
