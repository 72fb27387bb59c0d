// SPDX-License-Identifier: GPL-2.0
//
// A sequence of numbers that a seed repeats, with those among them that ABIs stumble over.
#pragma once

#include <cstdint>

namespace fuzz
{

class Random
{
public:
	Random(uint64_t seed, uint64_t stream) : state_(seed * 0x9e37'79b9'7f4a'7c15 + stream) {}

	// SplitMix64.
	uint64_t next()
	{
		uint64_t z = state_ += 0x9e37'79b9'7f4a'7c15;
		z = (z ^ z >> 30) * 0xbf58'476d'1ce4'e5b9;
		z = (z ^ z >> 27) * 0x94d0'49bb'1331'11eb;
		return z ^ z >> 31;
	}
	unsigned below(unsigned limit) { return static_cast<unsigned>(next() % limit); }
	bool one_in(unsigned n) { return below(n) == 0; }

	// Small, of one bit, next to a power of two, negative, or any.
	uint64_t number()
	{
		const uint64_t any = next(), bit = uint64_t{1} << (any >> 8) % 64;
		switch (any % 8) {
		case 0:
			return 0;
		case 1:
			return any >> 32 & 0xff;
		case 2:
			return bit;
		case 3:
			return bit - 1;
		case 4:
			return -bit;
		case 5:
			return any >> 32 & 0xffff'f000;
		case 6:
			return any >> 32;
		default:
			return next();
		}
	}

private:
	uint64_t state_;
};

} // namespace fuzz
