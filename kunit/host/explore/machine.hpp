/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The machine as the scheduler sees it: processes (threads, and handlers of IPIs), the CPUs that they
 * hold, and store buffers. A process runs until its next visible step, step(), where the explorer
 * decides who goes on.
 *
 * A thread that may be pre-empted is on no CPU in particular: it cannot tell, for Linux may move it
 * at any time. It comes to be on one, of the explorer's choice, when it switches interrupts off, or
 * asks where it is with pre-emption off. That is all there is to migration and pre-emption, and every
 * way of it is covered.
 *
 * What only gives something back (a lock, interrupts on) ends the step before it and is none of its
 * own: nobody waits for the permission to give, and whatever comes between could as well come after.
 */
#pragma once

#include "access.hpp"
#include "fiber.hpp"

namespace kvmpp::explore
{

inline constexpr int max_cpus = 3, max_actors = 4, max_buffered = 16;
inline constexpr int nobody = -1;
/* A CPU that nobody has asked about. */
inline constexpr int somewhere = -2;

/* Of memory and others, that steps touch. */
inline constexpr unsigned max_objects = 8192;

/* Ids of objects that are no memory. */
enum class Fixed : u16 {
	none,
	standstill,
	run_queue,
	interrupts = run_queue + max_cpus,
	online = interrupts + max_cpus,
	buffer = online + max_cpus,
	done = buffer + max_processes,
	count = done + max_processes
};
constexpr u16 object_of(Fixed base, int index)
{
	return static_cast<u16>(static_cast<int>(base) + index);
}
/* Of what is at @address. */
u16 object_at(const volatile void *address);

/* What a process is about to do. */
struct Op {
	enum class Takes : u8 { nothing, preemption, interrupts };

	const char *what; /* printf format for `argument` */
	u64 argument = 0;
	Takes takes = Takes::nothing;
	bool fence = false; /* waits until its own store buffer is empty */
	/* Null: always. */
	bool (*ready)(u64) = nullptr;
	u64 ready_argument = 0;
	Accesses accesses{};

	Op &&read(u16 object) &&
	{
		accesses.add(object, Kind::read);
		return static_cast<Op &&>(*this);
	}
	Op &&write(u16 object) &&
	{
		accesses.add(object, Kind::write);
		return static_cast<Op &&>(*this);
	}
	Op &&join(u16 object) &&
	{
		accesses.add(object, Kind::join);
		return static_cast<Op &&>(*this);
	}
	Op &&when(bool (*f)(u64), u64 a) &&
	{
		ready = f;
		ready_argument = a;
		return static_cast<Op &&>(*this);
	}
};

/* A store on its way to memory. */
struct Store {
	void *address;
	u64 value;
	u8 bytes;
	Kind kind; /* write, or publish where it gives a lock back */
	u16 object;
	u16 step;        /* that put it here */
	Clock published; /* what who reads it acquires */
};

/*
 * What it looked at last: a loop that waits goes on when any of it has been written since, be it to what it
 * was; a condition that could become false again would be one that the search looks for in vain.
 */
struct Polled {
	struct {
		u16 object;
		u32 writes;
	} loads[2];
	const u64 *lock_takes;
	u64 takes;
};

struct Process {
	enum class State : u8 { unused, ready, finished };

	Fiber fiber;
	State state = State::unused;
	bool handler = false;
	bool irq_off = false;
	int preempt_depth = 0;
	bool steady = false; /* it has gone a step with pre-emption off: no CPU goes offline */
	int cpu = nobody; /* which it holds: it is known, and pre-emption or interrupts are off */
	int last_cpu = nobody; /* where its buffered stores are */
	int pinned = nobody;   /* the only CPU it may run on */
	bool ticked = false;   /* it has waited for a CPU to go offline */
	int bare = nobody;     /* it is code of a CPU that Linux does not have: that CPU */
	bool daemon = false;   /* it need not end */
	bool nmi = false;      /* it is Linux's handler of one */
	bool at_once = false;  /* all it does is one step, which says beforehand what it touches */
	Polled polled{};
	Op next{};
	const char *name = "";
	/* An IPI's. */
	void (*function)(void *) = nullptr;
	void *argument = nullptr;
	int target = nobody;
	int interrupted = nobody;
	u16 sent = 0; /* the sender's step */
	Store buffer[max_buffered];
	int buffered = 0;
	unsigned stores = 0; /* that ever went there */
};

struct Cpu {
	bool online = true;
	bool open = true;     /* to threads that are not pinned to it */
	bool bare = false;    /* it runs code of the module's, without Linux */
	int thread = nobody;  /* that holds it */
	int irq_off = nobody; /* who has interrupts off: that thread, or a handler */
};

struct Step {
	u8 party;
	u8 cpu_choice;
	s8 cpu;
	u16 number;
	const char *what;
	u64 argument;
	Accesses accesses;
	Clock clock;
};

extern Process processes[max_processes];
extern Cpu cpus[max_cpus];
extern int cpu_count;
extern int process_count;
/* The process whose code runs; nobody: the scenario's setup or end, where all is done at once. */
extern int running;
/* The step under way. */
extern Step current_step;
extern const char *failure; /* null: none so far */

inline Process &self()
{
	return processes[running];
}
inline bool exploring()
{
	return running != nobody;
}
/* What is in a lock that the running process holds; not 0. */
inline u64 holder()
{
	return static_cast<u64>(running + 2);
}
int this_cpu();
bool irqs_off();

/* Waits for the explorer. Does nothing outside of exploration. */
void step(Op &&op);
/* What was wrong; the schedule ends here. */
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Leaves the fiber that runs, for good. */
[[noreturn]] void abandon();

/* The step under way gives @object back: publish or publish_read. */
void give_back(u16 object, Kind kind);
void buffer_store(void *address, unsigned bytes, u64 value, const Clock &published,
		  Kind kind = Kind::write);
/* Its own store to @address that is not yet in memory. */
const Store *buffered_store(const void *address);
void drain_one(int process);

int send_ipi(int cpu, void (*function)(void *), void *argument);
void wait_for_ipi(int handler);
void run_at_once(int cpu, void (*function)(void *), void *argument);

void preempt_disable();
void preempt_enable();
/* True when they were off before. */
bool irq_save();
void irq_restore(bool was_off);
void might_sleep(const char *what);
/* A step after which its own stores are in memory. */
void full_barrier(const char *what);
/* A loop that waits: a step that can go when something has changed that the process looked at last. */
void wait_for_change(const char *what);
void note_load(const void *address);
void note_write(const void *address);
/* Outside of exploration: which CPU this is from now on, and was before. */
int set_cpu_at_once(int cpu);

/* For the explorer. */
void reset_machine(int cpus);
int add_thread(const char *name, void (*function)(), int pinned);
/* Made by the step under way, whose past is its own; who calls gives it what it waits for. */
int add_process(const char *name);
/* The CPUs that @process could go on by; bit 0 where it takes none. */
u8 choices(int process);
u8 imaginable_choices(int process);
bool can_go(int process, int cpu);
/* All that its next step touches, gone on by @cpu. */
Accesses accesses_of(int process, int cpu);
void go(int process, int cpu);
/* All CPUs are as a machine at rest has them. */
void check_at_rest();

} // namespace kvmpp::explore
