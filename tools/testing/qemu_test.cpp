// SPDX-License-Identifier: GPL-2.0
//
// QEMU, unmodified, boots Linux: qemu-system-x86_64 and the guest in /guest are put in by
// scripts/testhost --qemu. What the guest does is in scripts/testhost.d/guest-init.
//
// IRQCHIP is what kernel-irqchip= is to be: where interrupt controllers are. From 8.0 on QEMU has no local APIC in
// user space, so that with "off" its one vCPU has none: then Linux has no clock on microvm, whose ACPI says that there
// is neither PIC nor PIT.

#include "bochs.hpp"
#include "expect.hpp"
#include "gdb_client.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "measured.hpp"
#include "unix_socket.hpp"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace
{

using expect::equal;
using expect::that;

constexpr unsigned timeout_s = 400;
constexpr const char *program = "qemu-system-x86_64";

// What a program has written by its end.
struct Ended {
	int status = 0;
	std::string output;
	std::string errors;
};

class Program
{
public:
	explicit Program(const std::vector<std::string> &words)
	{
		int ends[2];
		equal("pipe", pipe2(ends, O_CLOEXEC), 0);
		errors_ = memfd_create("errors", MFD_CLOEXEC);
		that("memfd_create", errors_ >= 0);
		pid_ = fork();
		if (pid_ == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			std::vector<char *> arguments;
			for (const std::string &word : words)
				arguments.push_back(const_cast<char *>(word.c_str()));
			arguments.push_back(nullptr);
			dup2(open("/dev/null", O_RDONLY), 0);
			dup2(ends[1], 1);
			dup2(errors_, 2);
			execvp(arguments[0], arguments.data());
			_exit(127);
		}
		close(ends[1]);
		output_ = ends[0];
	}
	Program(const Program &) = delete;
	Program &operator=(const Program &) = delete;
	~Program()
	{
		close(output_);
		close(errors_);
	}

	pid_t pid() const { return pid_; }

	// False when it ends without having written the text.
	bool writes(const std::string &text)
	{
		while (ended_.output.find(text) == ended_.output.npos)
			if (!read_more())
				return false;
		return true;
	}

	const Ended &end()
	{
		char part[4096];
		ssize_t length;
		while (read_more()) {
		}
		equal("waitpid", waitpid(pid_, &ended_.status, 0), pid_);
		for (off_t at = 0; (length = pread(errors_, part, sizeof(part), at)) > 0;
		     at += length)
			ended_.errors.append(part, static_cast<size_t>(length));
		return ended_;
	}

private:
	bool read_more()
	{
		char part[4096];
		const ssize_t length = read(output_, part, sizeof(part));
		if (length > 0)
			ended_.output.append(part, static_cast<size_t>(length));
		return length > 0;
	}

	pid_t pid_ = -1;
	int output_ = -1, errors_ = -1;
	Ended ended_;
};

Ended run(const std::vector<std::string> &words)
{
	return Program(words).end();
}

std::string device()
{
	const char *given = getenv("KVM_DEVICE");
	return given ? given : "/dev/kvmpp";
}

bool has_userspace_apic()
{
	const Ended version = run({program, "--version"});
	const size_t at = version.output.find("version ");
	if (version.status != 0 || at == version.output.npos)
		ktap::skip("no %s here: scripts/testhost --qemu", program);
	return std::stoi(version.output.substr(at + 8)) < 8;
}

// Empty: as QEMU has it, which is "on" for pc, and "split" for microvm.
std::string irqchip()
{
	const char *given = getenv("IRQCHIP");
	return given ? given : "";
}

// "-accel" of a QEMU that may be too old to know device=: then /dev/kvm is made to be it.
std::string accelerator(bool old)
{
	const std::string kvm = irqchip().empty() ? "kvm" : "kvm,kernel-irqchip=" + irqchip();
	if (!old)
		return kvm + ",device=" + device();
	if (device() != "/dev/kvm") {
		unlink("/dev/kvm");
		equal("symlink", symlink(device().c_str(), "/dev/kvm"), 0);
	}
	return kvm;
}

void must_have(const std::string &text, const std::string &part)
{
	if (text.find(part) != text.npos)
		return;
	const size_t shown = 3'000;
	for (size_t at = text.size() > shown ? text.size() - shown : 0; at < text.size();) {
		const size_t end = std::min(text.find('\n', at), text.size());
		expect::note("%.*s", static_cast<int>(end - at), text.c_str() + at);
		at = end + 1;
	}
	expect::fail("\"%s\" is not in the console's output", part.c_str());
}

// Of what QEMU says, lines that are about its own options and the machine.
std::string complaints(const std::string &errors)
{
	std::istringstream lines(errors);
	std::string line, left;
	while (std::getline(lines, line)) {
		const auto has = [&](const char *part) { return line.find(part) != line.npos; };
		if (!has("Userspace local APIC is deprecated") &&
		    !has("Do not use kernel-irqchip except") &&
		    !has("exceeds the recommended cpus supported by KVM"))
			left += line + "\n";
	}
	return left;
}

enum class Machine { microvm, pc };

std::vector<std::string> qemu(Machine machine, const std::string &cpu, unsigned cpus,
			      const std::string &disk, const std::string &tasks)
{
	const bool pc = machine == Machine::pc;
	const bool old = has_userspace_apic();
	const bool no_apic = !old && irqchip() == "off";
	if (no_apic && cpus > 1)
		ktap::skip("this QEMU has no local APIC in user space");
	if (no_apic && !pc)
		ktap::skip("Linux has no clock on microvm without a local APIC");
	return {program, "-accel", accelerator(old), "-M",
		pc ? "pc" : "microvm,rtc=on,pit=on,pic=on", "-cpu", no_apic ? cpu + ",-apic" : cpu,
		"-smp", std::to_string(cpus), "-m", "512", "-nodefaults", "-no-user-config",
		"-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", "/guest/vmlinuz",
		"-initrd", "/guest/initrd", "-drive", "if=none,id=disk,format=raw,file=" + disk,
		"-device", pc ? "virtio-blk-pci,drive=disk" : "virtio-blk-device,drive=disk",
		// An emulated second is short of instructions: nothing of the guest's start is spent on
		// measuring what is known.
		"-append",
		"console=ttyS0 quiet mitigations=off cryptomgr.notests nokaslr no_timer_check "
		"tsc=reliable tsc_early_khz=50000 lpj=100000 panic=-1 task=" +
			tasks};
}

// Each case has a disk of its own to write to.
std::string new_disk()
{
	const std::string disk = "/tmp/disk." + std::to_string(getpid());
	equal("cp", run({"cp", "/guest/disk", disk}).status, 0);
	return disk;
}

void is_well(const Ended &ended, unsigned cpus)
{
	if (const std::string left = complaints(ended.errors); !left.empty())
		expect::fail("QEMU itself says: %s", left.c_str());
	must_have(ended.output, "guest: " + std::to_string(cpus) + " CPUs");
	must_have(ended.output, "guest: ok");
	equal("QEMU's status", ended.status, 0);
}

// Task "disk".
void used_its_disk(const Ended &ended, const std::string &disk)
{
	const std::string sum = host::read_file("/guest/disk.sha256");
	must_have(ended.output, "guest: disk " + sum.substr(0, sum.find('\n')));
	const Ended written =
		run({"sh", "-c",
		     "dd bs=1k count=512 if=" + disk +
			     " of=/tmp/one 2>/dev/null; "
			     "dd bs=1k skip=512 if=" +
			     disk + " of=/tmp/two 2>/dev/null; cmp /tmp/one /tmp/two"});
	equal("the guest has written to its disk", written.status, 0);
}

void boots(Machine machine, const std::string &cpu, unsigned cpus)
{
	const std::string disk = new_disk();
	timespec start, end;
	clock_gettime(CLOCK_MONOTONIC, &start);
	const Ended ended = run(qemu(machine, cpu, cpus, disk, "cpuinfo,timer,disk"));
	clock_gettime(CLOCK_MONOTONIC, &end);
	expect::note("%ld s", static_cast<long>(end.tv_sec - start.tv_sec));

	is_well(ended, cpus);
	used_its_disk(ended, disk);
}

// kvmpp (tools/kvmpp), which is to be beside this program.
void command(std::vector<std::string> words)
{
	words.insert(words.begin(),
		     std::filesystem::read_symlink("/proc/self/exe").parent_path() / "kvmpp");
	const Ended ended = run(words);
	if (ended.status != 0)
		expect::fail("%s %s: %s", words[0].c_str(), words[1].c_str(), ended.errors.c_str());
}

bool is_online(unsigned cpu)
{
	const auto cpus = host::online_cpus();
	return std::find(cpus.begin(), cpus.end(), cpu) != cpus.end();
}

// From outside, as it runs: to a CPU of its own and back, and there again until it powers off.
void moves_to_a_cpu_of_its_own()
{
	if (device() != "/dev/kvmpp")
		ktap::skip("not on %s", device().c_str());
	const auto cpus = host::online_cpus();
	if (cpus.size() < 2)
		ktap::skip("fewer than 2 CPUs");
	const unsigned cpu = cpus.back();
	Program running(qemu(Machine::microvm, "host", 1, new_disk(), "steady"));
	const std::string pid = std::to_string(running.pid()), number = std::to_string(cpu);
	unsigned tick = 0;
	const auto goes_on = [&] {
		tick += 5;
		if (!running.writes("guest: tick " + std::to_string(tick) + "\r"))
			is_well(running.end(), 1);
	};

	goes_on();
	for (unsigned round = 0; round < 3; round++) {
		command({"dedicate", pid, "0", number});
		that("Linux has left it", !is_online(cpu));
		goes_on();
		command({"release", pid, "0"});
		that("Linux has it again", is_online(cpu));
		goes_on();
	}
	command({"dedicate", pid, "0", number});
	is_well(running.end(), 1);
	that("Linux has it again once QEMU has ended", is_online(cpu));
}

// A name in /tmp that nobody has yet.
std::string new_name(const char *what)
{
	return "/tmp/" + std::string(what) + "." + std::to_string(getpid());
}

// With the VGA that a PC of QEMU's has by itself: SeaBIOS writes to the screen, and QEMU's monitor tells what is
// on it. For that QEMU asks which pages of the VGA's memory were written to.
void has_a_screen()
{
	const std::string monitor = new_name("monitor"), screen = new_name("screen");
	const std::string disk = new_disk();
	std::vector<std::string> words = qemu(Machine::pc, "host", 1, disk, "timer,disk");
	words.insert(words.end(),
		     {"-vga", "std", "-monitor", "unix:" + monitor + ",server=on,wait=off"});
	Program running(words);
	if (!running.writes("guest: 1 CPUs"))
		is_well(running.end(), 1);
	const UnixSocket commands(monitor);
	commands.put("screendump " + screen + "\n");
	const Ended &ended = running.end();
	is_well(ended, 1);
	used_its_disk(ended, disk);

	const std::string picture = host::read_file(screen);
	constexpr size_t header = 16;
	must_have(picture.substr(0, header), "P6\n");
	that("something is on it",
	     std::any_of(picture.begin() + header, picture.end(), [](char c) { return c; }));
}

// Where the gate of a vector leads, in the guest that stands still.
uint64_t gate(const GdbClient &gdb, unsigned vector)
{
	const std::string registers = gdb.monitor("info registers");
	const size_t at = registers.find("IDT=");
	that("IDT", at != registers.npos);
	const uint64_t idt = std::stoull(registers.substr(at + 4), nullptr, 16);
	const auto entry = gdb.memory(idt + 16 * vector, 16);
	uint64_t address = 0;
	for (const size_t byte : {11, 10, 9, 8, 7, 6, 1, 0})
		address = address << 8 | entry[byte];
	return address;
}

// As gdb does it: breakpoints of both kinds at what Linux always comes by, steps, and the guest goes on.
void debugged()
{
	constexpr unsigned page_fault = 14, timer = 0xec;
	const std::string path = new_name("gdb");
	std::vector<std::string> words = qemu(Machine::microvm, "host", 1, new_disk(), "timer");
	words.insert(words.end(), {"-gdb", "unix:" + path + ",server=on,wait=off"});
	Program running(words);
	if (!running.writes("guest: 1 CPUs"))
		is_well(running.end(), 1);

	using enum GdbClient::Breakpoint;
	const GdbClient gdb(path);
	for (const auto &[kind, vector] : {std::pair{software, page_fault}, {hardware, timer}}) {
		const uint64_t address = gate(gdb, vector);
		gdb.set(kind, address);
		for (unsigned round = 0; round < 2; round++) {
			gdb.go_on();
			equal("RIP at the breakpoint", gdb.rip(), address);
		}
		gdb.clear(kind, address);

		// To where Linux calls from there, which is soon.
		uint64_t at = address;
		for (bool called = false; !called;) {
			const auto code = gdb.memory(at, 5);
			int32_t distance;
			std::memcpy(&distance, &code[1], sizeof(distance));
			called = code[0] == 0xe8;
			gdb.step();
			const uint64_t next = gdb.rip();
			if (called)
				equal("RIP after the call", next,
				      at + 5 + static_cast<uint64_t>(int64_t{distance}));
			else
				that("RIP is an instruction further", next > at && next <= at + 15);
			at = next;
		}
	}
	gdb.detach();
	is_well(running.end(), 1);
}

// What it takes from QEMU's start until the guest's init speaks, its own work and Linux's among it. For scripts/bench.
void instructions_to_init()
{
	measured::need_one_cpu();
	const std::vector<std::string> words =
		qemu(Machine::microvm, "host", 1, new_disk(), "disk");
	const uint32_t exits = bochs::vm_exits(0);
	const uint64_t before = bochs::instructions(0);
	Program running(words);
	if (!running.writes("guest: 1 CPUs"))
		is_well(running.end(), 1);
	const uint64_t took = bochs::instructions(0) - before;
	measured::say("qemu.instructions", static_cast<double>(took));
	measured::say("qemu.exits", bochs::vm_exits(0) - exits);
	is_well(running.end(), 1);
}

constexpr ktap::Case cases[] = {
	{"microvm_qemu64", [] { boots(Machine::microvm, "qemu64", 1); }, timeout_s},
	{"microvm_host", [] { boots(Machine::microvm, "host", 1); }, timeout_s},
	{"microvm_qemu64_two_cpus", [] { boots(Machine::microvm, "qemu64", 2); }, timeout_s},
	{"microvm_host_two_cpus", [] { boots(Machine::microvm, "host", 2); }, timeout_s},
	{"pc_qemu64", [] { boots(Machine::pc, "qemu64", 1); }, timeout_s},
	{"pc_host", [] { boots(Machine::pc, "host", 1); }, timeout_s},
	{"pc_qemu64_two_cpus", [] { boots(Machine::pc, "qemu64", 2); }, timeout_s},
	{"pc_host_two_cpus", [] { boots(Machine::pc, "host", 2); }, timeout_s},
	{"has_a_screen", has_a_screen, timeout_s},
	{"debugged", debugged, timeout_s},
	{"moves_to_a_cpu_of_its_own", moves_to_a_cpu_of_its_own, timeout_s},
	{"instructions_to_init", instructions_to_init, timeout_s},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
