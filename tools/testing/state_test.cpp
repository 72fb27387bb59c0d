// SPDX-License-Identifier: GPL-2.0
//
// What a VMM has in its processor before KVM_RUN it has after it, whatever the guest does with its
// own.

#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <atomic>
#include <cerrno>
#include <cpuid.h>
#include <csignal>
#include <cstddef>
#include <ctime>
#include <sched.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;

// An XSAVE area in the standard format, as far as AVX.
struct alignas(64) XsaveArea {
	uint16_t fcw = 0x37f, fsw = 0;
	uint8_t ftw = 0, reserved0 = 0;
	uint16_t fop = 0;
	uint64_t fip = 0, fdp = 0;
	uint32_t mxcsr = 0x1f80, mxcsr_mask = 0;
	uint8_t x87[8][16] = {};
	uint8_t xmm[16][16] = {};
	uint8_t reserved1[96] = {};
	uint64_t xstate_bv = 0, xcomp_bv = 0;
	uint8_t reserved2[48] = {};
	uint8_t ymm_high[16][16] = {};
	uint8_t more[2048] = {};
};
static_assert(offsetof(XsaveArea, xstate_bv) == 512 && offsetof(XsaveArea, ymm_high) == 576);

constexpr uint64_t x87_sse = 3;
constexpr uint64_t avx = 4;

bool host_has_xsave()
{
	unsigned a, b, c, d;
	return __get_cpuid(1, &a, &b, &c, &d) && (c >> 27 & 1);
}

bool host_has_avx()
{
	unsigned a, b, c, d;
	return host_has_xsave() && __get_cpuid(1, &a, &b, &c, &d) && (c >> 28 & 1);
}

// KVM_RUN with nothing of the compiler's or the library's between it and the registers.
long run_between(Vcpu &vcpu, const XsaveArea &before, XsaveArea &after, uint64_t mask)
{
	constexpr uint32_t mxcsr_at_rest = 0x1f80;
	long result;
	asm volatile("mov %%ebx, %%eax\n\t"
		     "xor %%edx, %%edx\n\t"
		     "xrstor64 %[before]\n\t"
		     "mov %[ioctl], %%eax\n\t"
		     "mov %[request], %%esi\n\t"
		     "syscall\n\t"
		     "mov %%rax, %%r8\n\t"
		     "mov %%ebx, %%eax\n\t"
		     "xor %%edx, %%edx\n\t"
		     "xsave64 %[after]\n\t"
		     "mov %%r8, %%rax\n\t"
		     // The compiler expects these at rest.
		     "fninit\n\t"
		     "ldmxcsr %[mxcsr]"
		     : "=&a"(result), [after] "+m"(after)
		     : "D"(vcpu.fd().get()), "b"(mask), [before] "m"(before),
		       [ioctl] "i"(SYS_ioctl), [request] "i"(KVM_RUN), [mxcsr] "m"(mxcsr_at_rest)
		     : "rcx", "rdx", "rsi", "r8", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3",
		       "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
		       "xmm13", "xmm14", "xmm15");
	return result;
}

XsaveArea pattern(uint64_t mask)
{
	XsaveArea area;
	area.fcw = 0x27f;
	area.ftw = 0xff;
	area.mxcsr = 0x3f80;
	for (unsigned i = 0; i < 8; i++)
		for (unsigned j = 0; j < 10; j++)
			area.x87[i][j] = static_cast<uint8_t>(i * 10 + j + 1);
	for (unsigned i = 0; i < 16; i++)
		for (unsigned j = 0; j < 16; j++) {
			area.xmm[i][j] = static_cast<uint8_t>(i * 16 + j + 3);
			area.ymm_high[i][j] = static_cast<uint8_t>(i * 16 + j + 5);
		}
	area.xstate_bv = mask;
	return area;
}

void check_kept(const XsaveArea &before, const XsaveArea &after)
{
	equal("FCW", after.fcw, before.fcw);
	equal("FTW", after.ftw, before.ftw);
	equal("MXCSR", after.mxcsr, before.mxcsr);
	for (unsigned i = 0; i < 8; i++)
		that("an x87 register", !std::memcmp(after.x87[i], before.x87[i], 10));
	that("XMM registers", !std::memcmp(after.xmm, before.xmm, sizeof(after.xmm)));
}

void simd_with_guest(uint64_t entry, uint64_t mask)
{
	LongMachine machine(entry);
	const XsaveArea before = pattern(mask);
	for (unsigned round = 0; round < 20; round++) {
		XsaveArea after;
		equal("KVM_RUN", run_between(machine.vcpu, before, after, mask), 0);
		equal("exit reason", machine.vcpu.state().exit_reason, KVM_EXIT_HLT);
		check_kept(before, after);
		if (mask & avx)
			that("upper halves of YMM registers",
			     !std::memcmp(after.ymm_high, before.ymm_high, sizeof(after.ymm_high)));
		if (round % 4 == 3)
			sched_yield();
		kvm_regs regs = machine.vcpu.regs();
		regs.rip = entry;
		machine.vcpu.set_regs(regs);
	}
	equal("exceptions in the guest", machine.fault().count, 0u);
}

void x87_and_sse()
{
	if (!host_has_xsave())
		ktap::skip("no XSAVE in the host");
	simd_with_guest(lm::clobber, x87_sse);
}

bool guest_has_avx()
{
	LongMachine machine(lm::identify);
	call(machine, lm::identify, 1);
	constexpr uint64_t xsave_avx = 1 << 26 | 1 << 28;
	return (machine.vcpu.regs().rcx & xsave_avx) == xsave_avx;
}

void avx_registers()
{
	if (!host_has_avx())
		ktap::skip("no AVX in the host");
	simd_with_guest(guest_has_avx() ? lm::clobber_avx : lm::clobber, x87_sse | avx);
}

// A VMM that does not use AVX must not find a guest's data there.
void no_leak_from_guest()
{
	if (!host_has_avx())
		ktap::skip("no AVX in the host");
	if (!guest_has_avx())
		ktap::skip("the guest has no AVX");
	LongMachine machine(lm::clobber_avx);
	XsaveArea before = pattern(x87_sse | avx);
	before.xstate_bv = x87_sse;
	XsaveArea after;
	equal("KVM_RUN", run_between(machine.vcpu, before, after, x87_sse | avx), 0);
	const XsaveArea zero;
	that("upper halves of YMM registers are at rest",
	     !(after.xstate_bv & avx) ||
		     !std::memcmp(after.ymm_high, zero.ymm_high, sizeof(zero.ymm_high)));
}

// Nor does the guest find the VMM's.
void no_leak_to_guest()
{
	if (!host_has_xsave())
		ktap::skip("no XSAVE in the host");
	// The state the vCPU was born with.
	LongMachine machine(lm::simd_save);
	const XsaveArea before = pattern(x87_sse);
	XsaveArea after;
	equal("KVM_RUN", run_between(machine.vcpu, before, after, x87_sse), 0);
	equal("exit reason", machine.vcpu.state().exit_reason, KVM_EXIT_HLT);
	equal("the guest's MXCSR", machine.at<uint32_t>(GUEST_SCRATCH + 512 + 24), 0x1f80u);
	const uint8_t zero[256] = {};
	that("the guest's XMM registers are zero",
	     !std::memcmp(&machine.at<uint8_t>(GUEST_SCRATCH + 512 + 160), zero, sizeof(zero)));
}

// ---- Segments and MSRs

// A guest with other values in every MSR the host depends on.
struct MsrMachine : LongMachine {
	MsrMachine() : LongMachine(lm::msr_write)
	{
		const Msrs msrs(*this);
		msrs.write(msr_star, 0x0033'0010'0000'0000);
		msrs.write(msr_lstar, 0xffff'ffff'dead'0000);
		msrs.write(msr_cstar, 0xffff'ffff'beef'0000);
		msrs.write(msr_fmask, 0);
		msrs.write(msr_fs_base, 0x111111000);
		msrs.write(msr_gs_base, 0x222222000);
		msrs.write(msr_kernel_gs_base, 0x333333000);
		msrs.write(msr_sysenter_cs, 0x10);
		msrs.write(msr_sysenter_esp, 0x444444000);
		msrs.write(msr_sysenter_eip, 0x555555000);
		// Without NX.
		msrs.write(msr_efer, 0x500);
		equal("exceptions in the guest", fault().count, 0u);
	}
};

unsigned long get_base(int which)
{
	unsigned long base = 0;
	that("arch_prctl", !syscall(SYS_arch_prctl, which, &base));
	return base;
}

void segment_bases()
{
	const unsigned long fs = get_base(ARCH_GET_FS);
	Memory memory(0x1000);
	memory.at<uint64_t>(0x10) = 0x1234;
	that("arch_prctl", !syscall(SYS_arch_prctl, ARCH_SET_GS, memory.data()));
	MsrMachine machine;
	for (unsigned round = 0; round < 20; round++) {
		call(machine, lm::msr_read, 0, 0, msr_kernel_gs_base);
		equal("the guest's KERNEL_GS_BASE", machine.vcpu.regs().rax, 0x33333000u);
		uint64_t value;
		asm volatile("mov %%gs:0x10, %0" : "=r"(value));
		equal("read through GS", value, 0x1234u);
		equal("FS base", get_base(ARCH_GET_FS), fs);
		equal("GS base", get_base(ARCH_GET_GS),
		      reinterpret_cast<unsigned long>(memory.data()));
		if (round % 4 == 3)
			usleep(1000);
	}
}

// SYSCALL and the flags it masks are the host's again; so is what the kernel finds through
// KERNEL_GS_BASE, or this process would not get far.
void system_calls()
{
	MsrMachine machine;
	const pid_t self = getpid();
	for (unsigned round = 0; round < 200; round++) {
		call(machine, lm::msr_read, 0, 0, msr_lstar);
		equal("getpid", static_cast<pid_t>(syscall(SYS_getpid)), self);
		// With DF and AC set on the way in: FMASK has to clear them for the kernel.
		long result = SYS_getppid;
		asm volatile("std\n\tsyscall\n\tcld" : "+a"(result) : : "rcx", "r11", "memory");
		equal("getppid with DF set", result, getppid());
	}
}

void tsc_aux()
{
	unsigned a, b, c, d;
	if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !(d >> 27 & 1))
		ktap::skip("no RDTSCP in the host");
	LongMachine machine(lm::identify);
	call(machine, lm::identify, 0x80000001);
	const bool guest_has_it = machine.vcpu.regs().rdx >> 27 & 1;
	for (const unsigned cpu : host::online_cpus()) {
		host::pin({cpu});
		if (guest_has_it) {
			kvm_regs regs = machine.vcpu.regs();
			regs.rdx = 0;
			machine.vcpu.set_regs(regs);
			call(machine, lm::msr_write, 0xabc123, 0, msr_tsc_aux);
		}
		call(machine, lm::peek, 0, GUEST_SCRATCH);
		unsigned aux;
		asm volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
		equal("TSC_AUX's CPU number", aux & 0xfff, cpu);
	}
}

// The guest's MSRs leave the processor before anybody else gets it: a thread that preempts the
// vCPU's never sees one. On one CPU, with preempt=full on the kernel's command line, it may come at
// any point of the way out of KVM_RUN.
void msrs_unseen_by_other_threads()
{
	unsigned a, b, c, d;
	if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !(d >> 27 & 1))
		ktap::skip("no RDTSCP in the host");
	LongMachine machine(lm::identify);
	call(machine, lm::identify, 0x80000001);
	if (!(machine.vcpu.regs().rdx >> 27 & 1))
		ktap::skip("the guest has no RDTSCP");
	constexpr unsigned guests_value = 0x5a5a5a5a;
	const Msrs msrs(machine);
	msrs.write(msr_tsc_aux, guests_value);
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = lm::peek;
	regs.rbx = GUEST_SCRATCH;
	machine.vcpu.set_regs(regs);

	const unsigned cpu = host::online_cpus().front();
	host::pin({cpu});
	std::atomic<bool> stop = false;
	// Inherits the CPU, and comes before the other thread whenever it wakes up.
	std::thread watcher([&] {
		const sched_param priority{.sched_priority = 10};
		that("sched_setscheduler", !sched_setscheduler(0, SCHED_FIFO, &priority));
		constexpr time_t seconds = 4;
		timespec start, now;
		clock_gettime(CLOCK_MONOTONIC, &start);
		for (unsigned look = 0; look < 1500; look++) {
			const timespec delay{0, 20'000 + look * 7919 % 30'000};
			nanosleep(&delay, nullptr);
			unsigned aux;
			asm volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
			if ((aux & 0xfff) != cpu)
				expect::fail("another thread's TSC_AUX is %#x at its look %u, on "
					     "CPU %u",
					     aux, look, cpu);
			clock_gettime(CLOCK_MONOTONIC, &now);
			if (now.tv_sec - start.tv_sec >= seconds)
				break;
		}
		stop = true;
	});
	unsigned runs = 0;
	for (; !stop; runs++)
		machine.vcpu.run_until(KVM_EXIT_HLT);
	watcher.join();
	that("the guest has run meanwhile", runs > 10);
	equal("the guest's TSC_AUX", msrs.read(msr_tsc_aux), guests_value);
}

// The guest has no NX bit in its EFER; the host's memory is still not executable.
void no_execute()
{
	Memory memory(0x1000);
	memory.at<uint8_t>(0) = 0xc3;
	const pid_t child = fork();
	if (child == 0) {
		MsrMachine own;
		call(own, lm::peek, 0, GUEST_SCRATCH);
		reinterpret_cast<void (*)()>(memory.data())();
		_exit(0);
	}
	int status = 0;
	that("waitpid", waitpid(child, &status, 0) == child);
	that("a jump into data is a fault", WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

struct [[gnu::packed]] TableRegister {
	uint16_t limit;
	uint64_t base;
};

void descriptor_tables()
{
	// A process with ports of its own gets its TSS, and with it the GDT, reloaded all the time.
	iopl(0);
	LongMachine machine(lm::peek);
	const auto sgdt = [] {
		TableRegister value;
		asm volatile("sgdt %0" : "=m"(value));
		return value;
	};
	for (const unsigned cpu : host::online_cpus()) {
		host::pin({cpu});
		const TableRegister before = sgdt();
		// Where UMIP is on the kernel answers, with constants.
		if (before.base == 0xfffffffffffe0000 && before.limit == 0)
			ktap::skip("SGDT is emulated (UMIP)");
		call(machine, lm::peek, 0, GUEST_SCRATCH);
		const TableRegister after = sgdt();
		equal("GDT base", after.base, before.base);
		equal("GDT limit", after.limit, before.limit);
		// What a VM exit leaves; an earlier guest's may have been there before.
		that("the GDT's limit is Linux's own", after.limit != 0xffff);
	}
}

// The TSS's limit decides over the I/O permission bitmap; a VM exit sets it to the minimum.
void io_permissions()
{
	LongMachine machine(lm::peek);
	// Whoever started this may have had every port.
	if (iopl(0) || ioperm(0x80, 1, 1))
		ktap::skip("ioperm: %s", std::strerror(errno));
	for (unsigned round = 0; round < 10; round++) {
		call(machine, lm::peek, 0, GUEST_SCRATCH);
		inb(0x80);
		if (round % 3 == 2)
			usleep(1000);
	}
	const pid_t child = fork();
	if (child == 0) {
		that("ioperm", !ioperm(0x80, 1, 0));
		LongMachine own(lm::peek);
		call(own, lm::peek, 0, GUEST_SCRATCH);
		inb(0x80);
		_exit(0);
	}
	int status = 0;
	that("waitpid", waitpid(child, &status, 0) == child);
	that("no port without permission", WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

void local_descriptor_table()
{
	void *low = mmap(nullptr, 0x1000, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	that("mmap", low != MAP_FAILED);
	std::memset(low, 0, 0x1000);
	static_cast<uint64_t *>(low)[2] = 0x4321;
	user_desc entry{};
	entry.entry_number = 3;
	entry.base_addr = static_cast<unsigned>(reinterpret_cast<uintptr_t>(low));
	entry.limit = 0xfff;
	entry.seg_32bit = 1;
	entry.useable = 1;
	if (syscall(SYS_modify_ldt, 1, &entry, sizeof(entry)))
		ktap::skip("modify_ldt: %s", std::strerror(errno));
	constexpr uint16_t selector = 3 << 3 | 7;
	MsrMachine machine;
	asm volatile("mov %0, %%gs\n\tmov %0, %%ds\n\tmov %0, %%es" : : "r"(uint32_t{selector}));
	for (unsigned round = 0; round < 10; round++) {
		call(machine, lm::peek, 0, GUEST_SCRATCH);
		uint16_t ds, es, gs;
		asm volatile("mov %%ds, %0\n\tmov %%es, %1\n\tmov %%gs, %2"
			     : "=r"(ds), "=r"(es), "=r"(gs));
		equal("DS", ds, selector);
		equal("ES", es, selector);
		equal("GS", gs, selector);
		uint64_t value;
		asm volatile("mov %%gs:0x10, %0" : "=r"(value));
		equal("read through GS", value, 0x4321u);
		// The table itself is still loaded: the selector can be loaded again.
		asm volatile("mov %0, %%gs\n\tmov %%gs:0x10, %1" : "+r"(gs), "=r"(value));
		equal("read through GS, loaded again", value, 0x4321u);
		if (round % 3 == 2)
			usleep(1000);
	}
	asm volatile("mov %0, %%ds\n\tmov %0, %%es\n\tmov %0, %%gs" : : "r"(0));
}

// ---- Debug registers

volatile uint64_t watched;

void poke_debug(pid_t child, unsigned number, unsigned long value)
{
	that("PTRACE_POKEUSER",
	     !ptrace(PTRACE_POKEUSER, child, offsetof(user, u_debugreg) + number * 8, value));
}

// A debugger's watchpoint on the VMM hits after a guest that used the same registers, and not in
// the guest.
void debug_registers()
{
	const pid_t child = fork();
	if (child == 0) {
		that("PTRACE_TRACEME", !ptrace(PTRACE_TRACEME, 0, nullptr, nullptr));
		raise(SIGSTOP);
		for (unsigned round = 0; round < 3; round++) {
			LongMachine machine(lm::break_write);
			machine.vcpu.run_until(KVM_EXIT_HLT);
			equal("the guest's own breakpoints", machine.fault().count, 1u);
			watched = round;
		}
		// And a guest that leaves its breakpoints armed.
		LongMachine machine(lm::debug_write);
		kvm_regs regs = machine.vcpu.regs();
		regs.r8 = reinterpret_cast<uint64_t>(&watched) + 8;
		regs.r13 = 0x000d0403;
		regs.r12 = 0xffff0ff0;
		machine.vcpu.set_regs(regs);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		watched = 3;
		_exit(0);
	}
	int status;
	that("the child stops", waitpid(child, &status, 0) == child && WIFSTOPPED(status));
	poke_debug(child, 0, reinterpret_cast<unsigned long>(&watched));
	poke_debug(child, 7, 0x000d0101);
	unsigned hits = 0;
	ptrace(PTRACE_CONT, child, nullptr, nullptr);
	for (;;) {
		that("waitpid", waitpid(child, &status, 0) == child);
		if (WIFEXITED(status))
			break;
		that("the child is stopped by SIGTRAP",
		     WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
		const long dr6 =
			ptrace(PTRACE_PEEKUSER, child, offsetof(user, u_debugreg) + 6 * 8, 0);
		equal("DR6", dr6 & 0xf, 1);
		hits++;
		ptrace(PTRACE_CONT, child, nullptr, nullptr);
	}
	equal("the child's status", status, 0);
	equal("hits", hits, 4u);
}

constexpr ktap::Case cases[] = {
	{"x87_and_sse", x87_and_sse},
	{"avx_registers", avx_registers},
	{"no_leak_from_guest", no_leak_from_guest},
	{"no_leak_to_guest", no_leak_to_guest},
	{"segment_bases", segment_bases},
	{"system_calls", system_calls},
	{"tsc_aux", tsc_aux},
	{"msrs_unseen_by_other_threads", msrs_unseen_by_other_threads},
	{"no_execute", no_execute},
	{"descriptor_tables", descriptor_tables},
	{"io_permissions", io_permissions},
	{"local_descriptor_table", local_descriptor_table},
	{"debug_registers", debug_registers},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
