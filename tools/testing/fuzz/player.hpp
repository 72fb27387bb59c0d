// SPDX-License-Identifier: GPL-2.0
//
// One thread of the fuzzer. What it does next depends on its random numbers alone, not on what came of
// anything: the same seed does the same again.
#pragma once

#include "abi.hpp"
#include "tally.hpp"
#include "world.hpp"

#include <ctime>

namespace fuzz
{

struct Rules {
	// Its place in the crowd, below World::players.
	unsigned number;
	// It has the world for itself, so that a call that failed must have changed nothing.
	bool alone;
	// CPUs are taken from Linux.
	bool dedicates;
	// Says what it calls.
	bool traces;
};

class Player
{
public:
	Player(World &world, Tally &tally, Random random, Rules rules);
	Player(const Player &) = delete;
	Player &operator=(const Player &) = delete;
	~Player();

	void play(unsigned acts);
	// Of its random numbers so far.
	uint64_t digest() const { return digest_; }

	// In the order of the tally.
	static std::vector<const char *> names();

private:
	enum Act : unsigned {
		close_file,
		duplicate,
		make_eventfd,
		signal_eventfd,
		change_memory,
		scribble,
		settle,
		map_file,
		read_or_write,
		unknown_ioctl,
		fork_off,
		acts,
	};
	static const char *const act_names[acts];

	struct Target {
		File kind;
		unsigned place;
		int fd;
		bool foreign;
	};

	void act();
	long do_act(Act act);
	void do_ioctl();
	// A file of the kind, mostly with something there.
	Target target(File kind);
	void make(File kind, unsigned place);
	unsigned long argument(const Ioctl &ioctl, int fd);
	unsigned long place_argument(const Ioctl &ioctl, size_t size);
	long call(int fd, unsigned long request, unsigned long argument);
	long run(const Target &target, unsigned long argument);
	void keep_result(const Ioctl &ioctl, long result);
	long change_mapping();
	long settle_vcpu(int vcpu);
	long map_somewhere();
	long use_as_a_file();
	long fork_a_player();
	void decided(uint64_t what) { digest_ = (digest_ ^ what) * 0x100'0000'01b3; }

	World &world_;
	Tally &tally_;
	Random random_;
	const Rules rules_;
	bool in_child_ = false;
	std::byte *arena_;
	timer_t watchdog_;
	uint64_t digest_ = 0xcbf2'9ce4'8422'2325;
};

} // namespace fuzz
