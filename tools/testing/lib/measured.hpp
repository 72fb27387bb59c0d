// SPDX-License-Identifier: GPL-2.0
//
// What is measured, and said in lines "# measured NAME VALUE..." of which scripts/bench makes tables. Times are in
// instructions, counted by the emulator's test device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace measured
{

// The case is skipped where that is not so.
void need_device();
void need_cpus(unsigned least);
void need_one_cpu();

// A number from the environment.
unsigned wanted(const char *variable, unsigned otherwise);

class Samples
{
public:
	void add(uint64_t value) { values_.push_back(value); }
	size_t count() const { return values_.size(); }
	uint64_t median() const;
	uint64_t least() const;

	// Says the median, the least, the most, and of how many.
	void say(const char *name) const;

private:
	std::vector<uint64_t> values_;
};

// One number.
void say(const char *name, double value);

// Executed by all CPUs that there are, whether they are online or not.
uint64_t instructions_of_all(unsigned cpus);

// Goes by without sleep.
void spin_microseconds(uint64_t count);

// What one round more takes, of batches that begin and end alike: SAMPLES of those with MANY less the median of those with
// FEW. The host's tick comes each 200,000 instructions or so: where a batch is far shorter, the median is without it.
template <typename Batch>
Samples of_a_round(unsigned samples, unsigned few, unsigned many, Batch batch)
{
	Samples short_ones, rounds;
	// The first ones bring in what they use.
	batch(few);
	batch(many);
	for (unsigned i = 0; i < samples; i++)
		short_ones.add(batch(few));
	const uint64_t both = short_ones.median();
	for (unsigned i = 0; i < samples; i++)
		rounds.add((batch(many) - both) / (many - few));
	return rounds;
}

} // namespace measured
