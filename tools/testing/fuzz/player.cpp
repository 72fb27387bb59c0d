// SPDX-License-Identifier: GPL-2.0
#include "player.hpp"

#include "expect.hpp"
#include "soup.hpp"
#include "vm.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <iterator>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <uapi/kvmpp.h>
#include <unistd.h>

namespace fuzz
{
namespace
{

constexpr size_t page_size = 0x1000;
constexpr int read_write = PROT_READ | PROT_WRITE;
// Ends a KVM_RUN; no set of signals that a vCPU gets blocks it.
constexpr int watchdog_signal = SIGUSR1;
constexpr long run_at_most_ns = 2'000'000;

long to_result(long result)
{
	return result < 0 ? -errno : result;
}

timer_t make_watchdog()
{
	timer_t timer;
	sigevent event{};
	event.sigev_notify = SIGEV_THREAD_ID;
	event.sigev_signo = watchdog_signal;
	event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
	struct sigaction action {
	};
	action.sa_handler = [](int) {};
	sigaction(watchdog_signal, &action, nullptr);
	expect::that("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
	return timer;
}

void set_watchdog(timer_t timer, long ns)
{
	const itimerspec time{.it_interval = {0, ns}, .it_value = {0, ns}};
	timer_settime(timer, 0, &time, nullptr);
}

bool is_by_value(const Ioctl &ioctl)
{
	return ioctl.argument[0] == '=' || (!ioctl.argument[0] && !_IOC_SIZE(ioctl.request));
}

} // namespace

const char *const Player::act_names[acts] = {
	"close",
	"dup",
	"eventfd",
	"write to an eventfd",
	"mmap, mprotect, madvise",
	"writes to kvm_run",
	"code and registers",
	"mmap of a file",
	"read, write, poll",
	"any ioctl",
	"fork",
};

std::vector<const char *> Player::names()
{
	std::vector<const char *> names;
	for (const Ioctl &ioctl : ioctls())
		names.push_back(ioctl.name);
	names.insert(names.end(), std::begin(act_names), std::end(act_names));
	return names;
}

Player::Player(World &world, Tally &tally, Random random, Rules rules)
	: world_(world), tally_(tally), random_(random), rules_(rules),
	  arena_(world.arena(rules.number)), watchdog_(make_watchdog())
{
}

Player::~Player()
{
	timer_delete(watchdog_);
}

void Player::play(unsigned count)
{
	ThreadCoverage coverage(tally_.coverage());
	for (unsigned i = 0; i < count; i++) {
		act();
		coverage.collect();
	}
}

void Player::act()
{
	constexpr struct {
		Act act;
		unsigned share;
	} shares[] = {
		{close_file, 8},     {duplicate, 6},      {make_eventfd, 8}, {signal_eventfd, 20},
		{change_memory, 30}, {scribble, 60},      {settle, 60},      {map_file, 10},
		{read_or_write, 10}, {unknown_ioctl, 20}, {fork_off, 1},
	};
	decided(random_.next());
	unsigned at = random_.below(1000);
	for (const auto &[act, share] : shares) {
		if (at < share) {
			const long result = do_act(act);
			tally_.count(static_cast<unsigned>(ioctls().size()) + act, result);
			return;
		}
		at -= share;
	}
	do_ioctl();
}

long Player::do_act(Act act)
{
	const auto kind = static_cast<File>(random_.below(files));
	const unsigned place = random_.below(World::places), other = random_.below(World::places);

	switch (act) {
	case close_file:
		world_.put(kind, place, -1);
		return 0;
	case duplicate: {
		const bool foreign = world_.is_foreign(kind, other);
		const int fd = fcntl(world_.file(kind, other), F_DUPFD_CLOEXEC, 0);
		if (fd >= 0)
			world_.put(kind, place, fd, foreign);
		return to_result(fd);
	}
	case make_eventfd:
		world_.put_eventfd(place, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
		return 0;
	case signal_eventfd:
		return to_result(eventfd_write(world_.eventfd(place), 1));
	case change_memory:
		return change_mapping();
	case scribble: {
		kvm_run &run = world_.run(place);
		auto *const words = reinterpret_cast<volatile uint64_t *>(&run);
		for (unsigned i = 0; i < 8; i++)
			words[random_.below(random_.one_in(2) ? 16 : page_size / 8)] =
				random_.number();
		// With these set, KVM_RUN does nothing any more.
		if (!random_.one_in(8))
			run.kvm_valid_regs = run.kvm_dirty_regs = run.immediate_exit = 0;
		return 0;
	}
	case settle:
		return settle_vcpu(target(File::vcpu).fd);
	case map_file:
		return map_somewhere();
	case read_or_write:
		return use_as_a_file();
	case unknown_ioctl: {
		const Target at = target(kind);
		const unsigned long request =
			_IOC(random_.below(4), random_.one_in(4) ? random_.below(256) : KVMIO,
			     random_.below(256), random_.below(0x400));
		// Those that are known have their own turn.
		const auto known = std::ranges::any_of(
			ioctls(), [&](const Ioctl &one) { return one.request == request; });
		const uint64_t value = random_.number();
		return known ? 0 : call(at.fd, request, value);
	}
	case fork_off:
		return in_child_ ? 0 : fork_a_player();
	case acts:
		break;
	}
	return 0;
}

Player::Target Player::target(File kind)
{
	const unsigned place = random_.below(World::places);
	if (!random_.one_in(16) && world_.file(kind, place) < 0)
		make(kind, place);
	return {kind, place, world_.file(kind, place), world_.is_foreign(kind, place)};
}

// Without random numbers of the player's, since it depends on what is there.
void Player::make(File kind, unsigned place)
{
	const auto above = [&](File file, unsigned at) {
		if (world_.file(file, at) < 0)
			make(file, at);
		return world_.file(file, at);
	};
	switch (kind) {
	case File::device:
		world_.put(kind, place, open(Device::path(), O_RDWR | O_CLOEXEC));
		return;
	case File::vm: {
		const int vm = ioctl(above(File::device, 0), KVM_CREATE_VM, 0ul);
		const kvm_userspace_memory_region memory{
			.slot = 0,
			.flags = place % 2 ? uint32_t{KVM_MEM_LOG_DIRTY_PAGES} : 0,
			.guest_phys_addr = 0,
			.memory_size = World::memory_size,
			.userspace_addr = reinterpret_cast<uint64_t>(world_.memory()),
		};
		ioctl(vm, KVM_SET_USER_MEMORY_REGION, &memory);
		// What comes before vCPUs would be rare by chance alone.
		const kvm_pit_config pit{};
		if (place % 2) {
			ioctl(vm, KVM_CREATE_IRQCHIP);
			ioctl(vm, KVM_CREATE_PIT2, &pit);
		}
		world_.put(kind, place, vm);
		return;
	}
	case File::vcpu:
		// Of each VM the first is the one that runs from the start.
		world_.put(kind, place,
			   ioctl(above(File::vm, place / 2), KVM_CREATE_VCPU, place % 2));
		return;
	}
}

void Player::do_ioctl()
{
	const Ioctl &ioctl = any_ioctl(random_);
	const File kind = random_.one_in(40) ? static_cast<File>(random_.below(files)) : ioctl.file;
	const Target at = target(kind);
	unsigned long value = argument(ioctl, at.fd);
	if (ioctl.request == KVMPP_SET_DEDICATED_CPU && !rules_.dedicates)
		value = ~0ul;
	if (rules_.traces)
		expect::note("%s(%d.%u, %#lx)", ioctl.name, static_cast<int>(kind), at.place,
			     value);

	const bool watched = random_.one_in(16) && rules_.alone && kind == File::vcpu &&
			     ioctl.request != KVM_RUN && Device::is_kvmpp();
	Snapshot before, after;
	const bool has_state = watched && before.take(at.fd);
	// In most states that a vCPU has been given no guest can be entered.
	if (ioctl.request == KVM_RUN && random_.one_in(2))
		settle_vcpu(at.fd);
	const long result =
		ioctl.request == KVM_RUN ? run(at, value) : call(at.fd, ioctl.request, value);
	if (rules_.traces)
		expect::note("= %ld", result);
	tally_.count(static_cast<unsigned>(&ioctl - ioctls().data()), result);
	if (has_state && result < 0) {
		expect::that("its state can still be read", after.take(at.fd));
		if (const char *what = before.difference(after))
			expect::fail("%s failed with %s, and has changed %s", ioctl.name,
				     strerrorname_np(static_cast<int>(-result)), what);
	}
	const bool for_all = kind == File::device || ioctl.request == KVMPP_SET_DEDICATED_CPU ||
			     ioctl.request == KVMPP_GET_DEDICATED_CPU;
	if (at.foreign && !for_all && result != -EIO)
		expect::fail("%s in another process is %ld, not EIO", ioctl.name, result);
	if (result >= 0)
		keep_result(ioctl, result);
}

void Player::keep_result(const Ioctl &ioctl, long result)
{
	switch (ioctl.request) {
	case KVM_CREATE_VM:
	case KVM_CREATE_VCPU: {
		// Where it goes is not to depend on whether there is one.
		const File kind = ioctl.request == KVM_CREATE_VM ? File::vm : File::vcpu;
		world_.put(kind, static_cast<unsigned>(result) % World::places,
			   static_cast<int>(result));
		return;
	}
	case KVM_GET_STATS_FD:
		close(static_cast<int>(result));
		return;
	}
}

unsigned long Player::argument(const Ioctl &ioctl, int fd)
{
	World &world = world_;
	static thread_local const World *current;
	current = &world;
	const Places places{
		reinterpret_cast<uint64_t>(world_.memory()), World::memory_size,
		[](Random &random) { return current->eventfd(random.below(World::places)); }};

	if (is_by_value(ioctl)) {
		const uint64_t other = random_.number();
		const bool none = !ioctl.argument[0];
		const uint64_t value =
			none ? 0 : number_of_kind(ioctl.argument[1], random_, places);
		return none && random_.one_in(16) ? other : value;
	}
	const size_t size = fill_argument(ioctl, random_, places, arena_);
	const bool from_itself = ioctl.from && !random_.one_in(4);
	const bool changed = random_.one_in(2);
	if (from_itself)
		::ioctl(fd, ioctl.from, arena_);
	if (changed)
		mutate(random_, {arena_, size});
	tame(ioctl, watchdog_signal, arena_);
	return place_argument(ioctl, size);
}

// Where the kernel finds it, or does not, or others change it meanwhile.
unsigned long Player::place_argument(const Ioctl &ioctl, size_t size)
{
	std::byte *const end = arena_ + largest_argument;
	const unsigned where = random_.below(32);
	const unsigned long offset = random_.below(World::memory_size - largest_argument);
	const auto move_to = [&](std::byte *to) {
		std::memmove(to, arena_, std::min<size_t>(size, static_cast<size_t>(end - to)));
		return reinterpret_cast<unsigned long>(to);
	};
	switch (where) {
	case 0:
		return 0;
	case 1:
		return 0xffff'8880'0000'0000;
	case 2:
		return reinterpret_cast<unsigned long>(end);
	case 3:
		return move_to(end - size / 2);
	case 4:
		return move_to(end - size);
	case 5:
		return move_to(arena_ + 1);
	case 6:
		// Where nobody else unblocks the watchdog.
		if (ioctl.request == KVM_SET_SIGNAL_MASK)
			break;
		std::memcpy(world_.alias() + offset, arena_, size);
		return reinterpret_cast<unsigned long>(world_.memory()) + offset;
	}
	return reinterpret_cast<unsigned long>(arena_);
}

long Player::call(int fd, unsigned long request, unsigned long argument)
{
	const bool as_32 = random_.one_in(8);
	return as_32 ? call_as_32_bits(fd, request, argument)
		     : to_result(ioctl(fd, request, argument));
}

long Player::run(const Target &target, unsigned long argument)
{
	set_watchdog(watchdog_, run_at_most_ns);
	const long result = call(target.fd, KVM_RUN, argument);
	set_watchdog(watchdog_, 0);
	if (result == 0)
		tally_.count_exit(world_.run(target.place).exit_reason);
	return result;
}

// Of a part of the guests' memory.
long Player::change_mapping()
{
	const size_t offset = random_.below(World::memory_size / page_size) * page_size;
	const size_t most = random_.one_in(16) ? World::memory_size : 8 * page_size;
	const size_t size = std::min(most, World::memory_size - offset);
	std::byte *const at = world_.memory() + offset;
	const auto map = [&](int flags, int fd, size_t from) {
		return mmap(at, size, read_write, flags | MAP_FIXED, fd,
			    static_cast<off_t>(from)) == MAP_FAILED
			       ? -1
			       : 0;
	};
	switch (random_.below(10)) {
	case 0:
		return to_result(munmap(at, size));
	case 1:
		return to_result(mprotect(at, size, PROT_READ));
	case 2:
		return to_result(mprotect(at, size, PROT_NONE));
	case 3:
		return to_result(mprotect(at, size, read_write | PROT_EXEC));
	case 4:
		return to_result(map(MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	case 5:
		return to_result(madvise(at, size, MADV_DONTNEED));
	case 6:
		return to_result(madvise(at, size, MADV_REMOVE));
	case 7:
		return to_result(map(MAP_PRIVATE, world_.memory_fd(), offset));
	default:
		return to_result(map(MAP_SHARED, world_.memory_fd(), offset));
	}
}

// Code that does something, and a vCPU that is about to execute it, in real or flat protected mode.
long Player::settle_vcpu(int vcpu)
{
	const Mode mode = random_.one_in(2) ? Mode::real : Mode::protected_;
	const uint64_t code = random_.below(15) * page_size;
	const bool interruptible = random_.one_in(2);
	fill_with_instructions(random_, mode, {world_.alias() + code, page_size});

	kvm_sregs sregs;
	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return -errno;
	const kvm_segment segment{
		.base = 0,
		.limit = mode == Mode::real ? 0xffff : ~0u,
		.selector = 0,
		.type = 3,
		.present = 1,
		.dpl = 0,
		.db = mode != Mode::real,
		.s = 1,
		.l = 0,
		.g = mode != Mode::real,
		.avl = 0,
		.unusable = 0,
		.padding = 0,
	};
	sregs.cs = sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment;
	sregs.cs.type = 11;
	sregs.tr = segment;
	sregs.tr.type = 11;
	sregs.tr.s = sregs.tr.g = sregs.tr.db = 0;
	sregs.tr.limit = 0x67;
	sregs.ldt = {};
	sregs.ldt.unusable = 1;
	sregs.gdt.base = sregs.idt.base = 0;
	sregs.gdt.limit = sregs.idt.limit = 0xffff;
	sregs.cr0 = mode == Mode::real ? 0x10 : 0x11;
	sregs.cr3 = sregs.cr4 = sregs.efer = 0;
	kvm_regs regs{};
	regs.rip = code;
	regs.rsp = 0xfff0;
	regs.rflags = interruptible ? 0x202 : 2;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs))
		return -errno;
	return 0;
}

long Player::map_somewhere()
{
	const Target at = target(static_cast<File>(random_.below(files)));
	const size_t size = (1 + random_.below(8)) * page_size;
	const off_t offset = random_.one_in(4) ? static_cast<off_t>(random_.next() & 0x7fff'f000)
					       : random_.below(4) * static_cast<off_t>(page_size);
	const int protection = random_.below(8);
	const int flags = random_.one_in(4) ? MAP_PRIVATE : MAP_SHARED;
	void *const mapping = mmap(nullptr, size, protection, flags, at.fd, offset);
	if (mapping == MAP_FAILED)
		return -errno;
	// The kernel touches it, for it may be nobody's.
	const long result = to_result(write(world_.memory_fd(), mapping, size));
	lseek(world_.memory_fd(), 0, SEEK_SET);
	munmap(mapping, size);
	return result;
}

long Player::use_as_a_file()
{
	const Target at = target(static_cast<File>(random_.below(files)));
	pollfd poll_at{at.fd, POLLIN | POLLOUT, 0};
	switch (random_.below(5)) {
	case 0:
		return to_result(read(at.fd, arena_, 16));
	case 1:
		return to_result(write(at.fd, arena_, 16));
	case 2:
		return to_result(lseek(at.fd, 8, SEEK_SET));
	case 3:
		return to_result(ftruncate(at.fd, 0));
	default:
		return to_result(poll(&poll_at, 1, 0));
	}
}

// Another process, with the files of this one: it may do nothing with them, and its own are its own.
long Player::fork_a_player()
{
	const Random random(random_.next(), 0);
	const pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		// Of others' files it may have other ones than they say, who open and close them meanwhile.
		if (rules_.alone)
			world_.forked();
		Player child(world_, tally_, random,
			     {.number = rules_.number,
			      .alone = false,
			      .dedicates = rules_.dedicates,
			      .traces = rules_.traces});
		child.in_child_ = true;
		child.play(60);
		_exit(0);
	}
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status)
		expect::fail("another process: wait status %#x", static_cast<unsigned>(status));
	return 0;
}

} // namespace fuzz
