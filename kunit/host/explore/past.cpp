// SPDX-License-Identifier: GPL-2.0
#include "past.hpp"

namespace kvmpp::explore
{

namespace
{

u64 mix(u64 a, u64 b)
{
	a = (a ^ b) * 0x9e3779b97f4a7c15;
	return a ^ a >> 29;
}

} // namespace

void Past::begin()
{
	run_++;
	taken_ = 0;
	for (Clock &c : clocks_)
		c = {};
}

History &Past::history(u16 object)
{
	History &h = histories_[object];

	if (h.run != run_) {
		h.run = run_;
		h.writer = nobody;
		h.written = 0;
		h.readers = 0;
		h.write_clock = h.read_clock = {};
	}
	return h;
}

Clock Past::before(int p) const
{
	Clock clock = clocks_[p];

	if (p >= max_processes)
		clock.join(step(processes[p - max_processes].buffer[0].step).clock);
	else if (processes[p].sent)
		clock.join(step(processes[p].sent).clock);
	return clock;
}

Clock Past::after(const Accesses &accesses, Clock clock)
{
	for (const Access &a : accesses) {
		const History &h = history(a.object);
		if (a.kind == Kind::read || a.kind == Kind::write || a.kind == Kind::join)
			clock.join(h.write_clock);
		if (a.kind == Kind::write)
			clock.join(h.read_clock);
	}
	return clock;
}

void Past::add(const Step &step, const Clock &before)
{
	if (taken_ == steps_.size())
		steps_.emplace_back();
	Step &s = steps_[taken_++] = step;
	Clock clock = after(s.accesses, before);

	clock.last[s.party] = s.number;
	clocks_[s.party] = s.clock = clock;
	for (const Access &a : s.accesses) {
		History &h = history(a.object);
		switch (a.kind) {
		case Kind::read:
			h.readers |= party(s.party);
			h.read[s.party] = s.number;
			[[fallthrough]];
		case Kind::publish_read:
			h.read_clock.join(clock);
			break;
		case Kind::write:
			h.readers = 0;
			h.writer = s.party;
			h.written = s.number;
			[[fallthrough]];
		case Kind::publish:
			h.write_clock.join(clock);
			break;
		case Kind::join:
			break;
		}
	}
}

u64 Past::class_of_schedule() const
{
	/* Which of its process's steps each is, and a process by what made it: numbers may differ. */
	std::vector<u64> nth(taken_ + 1u);
	u64 count[max_parties] = {}, name[max_parties] = {}, sum = 0;

	for (unsigned i = 0; i < taken_; i++) {
		const Step &s = steps_[i];
		int p = s.party % max_processes;
		if (!name[p]) {
			u16 sent = processes[p].sent;
			name[p] = sent ? mix(mix(name[steps_[sent - 1u].party], nth[sent]),
					     static_cast<u64>(processes[p].target))
				       : mix(1, static_cast<u64>(p));
			name[buffer_of(p)] = mix(name[p], 1);
		}
		nth[s.number] = ++count[s.party];
		u64 step = mix(mix(name[s.party], nth[s.number]), s.cpu_choice), before = 0;
		for (int q = 0; q < max_parties; q++)
			if (s.clock.last[q])
				before += mix(name[q], nth[s.clock.last[q]]);
		sum += mix(step, before);
	}
	return sum;
}

} // namespace kvmpp::explore
