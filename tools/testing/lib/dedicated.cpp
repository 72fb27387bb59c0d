// SPDX-License-Identifier: GPL-2.0
#include "dedicated.hpp"

#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <uapi/kvmpp.h>

#include <cstdlib>
#include <sstream>
#include <sys/syscall.h>
#include <unistd.h>

namespace dedicated
{

using expect::equal;

unsigned last_cpu;

void begin(unsigned wanted_cpus)
{
	if (!Device::is_kvmpp())
		ktap::skip("not on %s", Device::path());
	const auto cpus = host::online_cpus();
	if (cpus.size() < wanted_cpus)
		ktap::skip("fewer than %u CPUs", wanted_cpus);
	last_cpu = cpus.back();
}

bool no_ipi_broadcast()
{
	return host::read_file("/proc/cmdline").find("no_ipi_broadcast=1") != std::string::npos;
}

long set_cpu(const Vcpu &vcpu, int cpu)
{
	return vcpu.fd().call(KVMPP_SET_DEDICATED_CPU, static_cast<unsigned long>(cpu));
}

int get_cpu(const Vcpu &vcpu)
{
	int cpu = -2;
	equal("KVMPP_GET_DEDICATED_CPU", vcpu.fd().call(KVMPP_GET_DEDICATED_CPU, &cpu), 0);
	return cpu;
}

void dedicate(const Vcpu &vcpu, unsigned cpu)
{
	const long result = set_cpu(vcpu, static_cast<int>(cpu));
	if (result)
		expect::fail("KVMPP_SET_DEDICATED_CPU %u: %s", cpu,
			     std::strerror(static_cast<int>(-result)));
}

void release(const Vcpu &vcpu)
{
	equal("release", set_cpu(vcpu, -1), 0);
}

void place(const Machine &machine)
{
	machine.vcpu.offer_host_cpuid(machine.device, false);
	if (!std::getenv("DEDICATED"))
		return;
	begin();
	dedicate(machine.vcpu, last_cpu);
	expect::that("its APIC is not the guest's", line_of(last_cpu)["passthrough"] == "no");
}

bool is_online(unsigned cpu)
{
	for (const unsigned other : host::online_cpus())
		if (other == cpu)
			return true;
	return false;
}

uint64_t exits_on(unsigned cpu)
{
	uint64_t sum = 0;
	for (const auto &[reason, count] : exits_by_reason(cpu))
		sum += count;
	return sum;
}

std::map<std::string, uint64_t> exits_by_reason(unsigned cpu)
{
	std::istringstream text(host::read_file("/sys/kernel/debug/kvmpp/exits"));
	std::map<std::string, uint64_t> counts;
	std::string word, reason;
	unsigned number;
	uint64_t count;
	while (text >> word >> number >> reason >> count)
		if (number == cpu)
			counts[reason] += count;
	return counts;
}

std::map<std::string, std::string> line_of(unsigned cpu)
{
	std::istringstream text(host::read_file("/sys/kernel/debug/kvmpp/dedicated"));
	std::string line;
	while (std::getline(text, line)) {
		std::istringstream words(line);
		std::map<std::string, std::string> values;
		std::string name, value;
		while (words >> name >> value)
			values[name] = value;
		if (values["cpu"] == std::to_string(cpu))
			return values;
	}
	return {};
}

uint64_t number_of(unsigned cpu, const char *name)
{
	return std::stoull("0" + line_of(cpu)[name]);
}

bool passes_interrupts(unsigned cpu)
{
	return line_of(cpu)["passthrough"] == "yes";
}

ApicMachine::ApicMachine(uint64_t entry) : Machine(guest::apic::image())
{
	prepare_long();
	for (unsigned vector = 0x20; vector < 0x100; vector++)
		set_gate64(vector, guest::apic::ipi);
	set_gate64(tick_vector, guest::apic::tick);
	enter(vcpu, entry);
}

void ApicMachine::enter(const Vcpu &vcpu, uint64_t entry, uint64_t stack)
{
	vcpu.enter_long(entry);
	kvm_sregs s = vcpu.sregs();
	s.idt.base = GUEST_IDT;
	s.idt.limit = 256 * 16 - 1;
	vcpu.set_sregs(s);
	kvm_regs r = vcpu.regs();
	r.rsp = stack;
	vcpu.set_regs(r);
}

void ApicMachine::set_registers(const Vcpu &vcpu, uint64_t rbx, uint64_t rsi)
{
	kvm_regs r = vcpu.regs();
	r.rbx = rbx;
	r.rsi = rsi;
	vcpu.set_regs(r);
}

Runner::Runner(Vcpu &vcpu, const uint64_t *watched) : vcpu_(vcpu), watched_(watched)
{
	struct sigaction action = {};
	action.sa_handler = [](int) {};
	sigaction(SIGUSR1, &action, nullptr);
	thread_ = std::thread([this] { loop(); });
	wait_for("the thread starts", [this] { return started_.load(); });
}

Runner::~Runner()
{
	leave_ = true;
	while (thread_.joinable() && !ended_) {
		kick();
		usleep(1'000);
	}
	if (thread_.joinable())
		thread_.join();
}

void Runner::loop()
{
	tid_ = pthread_self();
	number_ = static_cast<int>(syscall(SYS_gettid));
	started_ = true;
	for (;;) {
		result_ = vcpu_.try_run();
		if (result_ != -EINTR || leave_)
			break;
		if (watched_)
			seen_ = *watched_;
		interrupted_++;
	}
	reason_ = vcpu_.state().exit_reason;
	ended_ = true;
}

bool Runner::is_leaving() const
{
	const std::string stat =
		host::read_file("/proc/self/task/" + std::to_string(number_) + "/stat");
	// Sleeps and takes no signal: "PID (NAME) D".
	return stat.find(") D ") != std::string::npos;
}

void Runner::join()
{
	if (const uint32_t reason = join_any(); reason != KVM_EXIT_IO)
		expect::fail("KVM_RUN ended with %s", exit_name(reason));
}

uint32_t Runner::join_any()
{
	thread_.join();
	equal("KVM_RUN", result_, 0);
	return reason_;
}

} // namespace dedicated
