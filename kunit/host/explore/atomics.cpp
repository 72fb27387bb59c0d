// SPDX-License-Identifier: GPL-2.0
/*
 * Every atomic operation of the module, as the compiler hands it over when it instruments for
 * "thread": the module's sources, std::atomic, std::atomic_ref and fences stay as they are. x86's
 * memory: loads are in order, a store waits in its process's buffer until the explorer lets it out,
 * what is locked waits until the buffer is empty. Who learns what of whom, see races.hpp, goes by the
 * orders that the code names, not by what x86 adds to them.
 */
#include "crash.hpp"
#include "machine.hpp"
#include "memory.hpp"
#include "races.hpp"
#include "vmx.hpp"

#include <cstring>

using namespace kvmpp;
using namespace kvmpp::explore;

namespace
{

enum Order { relaxed, consume, acquire, release, acq_rel, seq_cst };

/* What a relaxed store publishes and a relaxed load learns by a fence. */
struct Fences {
	Clock released, to_acquire;
};
Fences fences[max_processes];

constexpr bool acquires(int order)
{
	return order != relaxed && order != release;
}
constexpr bool releases(int order)
{
	return order >= release;
}

template <class T> T load(const volatile T *where, int order, const char *what = "loads")
{
	auto *address = const_cast<T *>(where);

	if (!exploring())
		return *address;
	check_alive(address);
	/* A step even where its own buffer has the answer: by the time it comes to it, that may be out. */
	step(Op{.what = what, .argument = reinterpret_cast<u64>(address)}.read(object_at(address)));
	if (const Store *own = buffered_store(address)) {
		T value;
		std::memcpy(&value, &own->value, sizeof(value));
		note_load(address);
		return value;
	}
	const Clock &learnt = published_by(object_at(address));
	if (acquires(order))
		seen[running].join(learnt);
	else
		fences[running].to_acquire.join(learnt);
	atomic_access(address);
	note_load(address);
	return *address;
}

template <class T> void store(volatile T *where, T value, int order)
{
	auto *address = const_cast<T *>(where);

	if (!exploring()) {
		if (crashing())
			crash_accesses(address, sizeof(value), true);
		*address = value;
		return;
	}
	check_alive(address);
	if (order == seq_cst) {
		step(Op{.what = "stores", .argument = reinterpret_cast<u64>(address), .fence = true}
			     .write(object_at(address)));
		atomic_access(address);
		*address = value;
		note_write(address);
		published_by(object_at(address)) = release_now();
		return;
	}
	/* An NMI waits until the CPU's stores are in memory: bare code has a step where one begins. */
	if (self().bare != nobody)
		step(Op{.what = "stores"}.read(object_of(Fixed::interrupts, self().bare)));
	atomic_access(address);
	u64 bits = 0;
	std::memcpy(&bits, &value, sizeof(value));
	buffer_store(address, sizeof(value), bits,
		     order == release ? release_now() : fences[running].released);
}

template <class T, class Change> T change(volatile T *where, int order, Change new_value)
{
	auto *address = const_cast<T *>(where);

	if (crashing())
		crash_accesses(address, sizeof(T), true);
	if (exploring()) {
		check_alive(address);
		step(Op{.what = "changes",
			.argument = reinterpret_cast<u64>(address),
			.fence = true}
			     .write(object_at(address)));
		Clock &clock = published_by(object_at(address));
		if (acquires(order))
			seen[running].join(clock);
		atomic_access(address);
		if (releases(order))
			clock.join(release_now());
	}
	T old = *address;
	*address = new_value(old);
	note_write(address);
	return old;
}

} // namespace

namespace kvmpp::explore
{

u64 load_entry(const u64 *address)
{
	/* A page walk: what an entry points to is read through it. */
	return load(address, acquire, "page walk loads");
}

bool set_in_entry(u64 *address, u64 was, u64 bits)
{
	return change(address, acq_rel, [=](u64 now) { return now == was ? now | bits : now; }) ==
	       was;
}

void reset_fences()
{
	for (Fences &f : fences)
		f = {};
}

} // namespace kvmpp::explore

extern "C" {
#define ATOMIC(bits, type)                                                                         \
	type __tsan_atomic##bits##_load(const volatile type *address, int order)                   \
	{                                                                                          \
		return load(address, order);                                                       \
	}                                                                                          \
	void __tsan_atomic##bits##_store(volatile type *address, type value, int order)            \
	{                                                                                          \
		store(address, value, order);                                                      \
	}                                                                                          \
	type __tsan_atomic##bits##_exchange(volatile type *address, type value, int order)         \
	{                                                                                          \
		return change(address, order, [=](type) { return value; });                        \
	}                                                                                          \
	type __tsan_atomic##bits##_fetch_add(volatile type *address, type value, int order)        \
	{                                                                                          \
		return change(address, order,                                                      \
			      [=](type old) { return static_cast<type>(old + value); });           \
	}                                                                                          \
	type __tsan_atomic##bits##_fetch_sub(volatile type *address, type value, int order)        \
	{                                                                                          \
		return change(address, order,                                                      \
			      [=](type old) { return static_cast<type>(old - value); });           \
	}                                                                                          \
	type __tsan_atomic##bits##_fetch_or(volatile type *address, type value, int order)         \
	{                                                                                          \
		return change(address, order,                                                      \
			      [=](type old) { return static_cast<type>(old | value); });           \
	}                                                                                          \
	type __tsan_atomic##bits##_fetch_and(volatile type *address, type value, int order)        \
	{                                                                                          \
		return change(address, order,                                                      \
			      [=](type old) { return static_cast<type>(old & value); });           \
	}                                                                                          \
	int __tsan_atomic##bits##_compare_exchange_strong(volatile type *address, type *expected,  \
							  type value, int order, int)              \
	{                                                                                          \
		type wanted = *expected;                                                           \
		*expected = change(address, order,                                                 \
				   [=](type old) { return old == wanted ? value : old; });         \
		return *expected == wanted;                                                        \
	}                                                                                          \
	int __tsan_atomic##bits##_compare_exchange_weak(volatile type *address, type *expected,    \
							type value, int order, int on_failure)     \
	{                                                                                          \
		return __tsan_atomic##bits##_compare_exchange_strong(address, expected, value,     \
								     order, on_failure);           \
	}
ATOMIC(8, u8)
ATOMIC(16, u16)
ATOMIC(32, u32)
ATOMIC(64, u64)
#undef ATOMIC

void __tsan_atomic_thread_fence(int order)
{
	if (!exploring())
		return;
	if (order == seq_cst)
		step({.what = "full barrier", .fence = true});
	if (acquires(order))
		seen[running].join(fences[running].to_acquire);
	if (releases(order))
		fences[running].released = release_now();
}

/* Orders what an NMI of the same CPU sees: the compiler calls this between the stores as they come. */
void __tsan_atomic_signal_fence(int)
{
}
}
