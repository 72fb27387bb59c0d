// SPDX-License-Identifier: GPL-2.0
//
// A guest that keeps accounts of all its state, in a thread of its own: see guest/accounts.S.
#pragma once

#include "guests.hpp"

#include <atomic>
#include <thread>

class SteadyGuest
{
public:
	// Each round of the guest goes over so many 64-bit words, which are in memory of the caller's if it gives
	// some: whole pages, for as long as the guest is there.
	explicit SteadyGuest(uint32_t words = 1024, void *memory = nullptr);
	SteadyGuest(const SteadyGuest &) = delete;
	SteadyGuest &operator=(const SteadyGuest &) = delete;
	~SteadyGuest() { finish(); }

	int tid() const { return tid_; }
	// From now on it sleeps so long after each exit to its VMM, of which there is one in 64 rounds.
	void rest(unsigned milliseconds) { rest_us_ = 1'000 * milliseconds; }
	uint64_t rounds() const;
	const Vcpu &vcpu() const { return machine_.vcpu; }
	// Waits for more rounds than there were; fails after so many seconds.
	void check_progress(uint64_t more = 2, unsigned seconds = 30) const;
	// Stops the guest and compares its sums with what they must be. Once.
	void finish();

private:
	void loop();
	void check_sums() const;

	const uint32_t words_;
	LongMachine machine_;
	uint64_t *const memory_;
	std::atomic<int> tid_ = 0;
	std::atomic<unsigned> rest_us_ = 0;
	std::thread thread_;
};
