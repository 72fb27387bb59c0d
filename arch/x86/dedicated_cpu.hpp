/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A CPU that Linux does not have, and that runs one vCPU: its record, by which Linux and it speak to each
 * other, and what it does. What runs there is bare: it calls nothing of Linux, sleeps on nothing, takes no
 * lock, and sees no memory but the record, the vCPU and the module (virt/linux/private_map.c). Each side
 * reaches the other by NMI.
 */
#pragma once

#include "capabilities.hpp"
#include "exit.hpp"
#include "handlers.hpp"
#include "include/kvmpp/kick.hpp"
#include "vcpu_state.hpp"
#include "vmcs_pool.hpp"
#include "vmcs_setup.hpp"
#include "x2apic.hpp"

#include <linux_glue/dedicated.h>

#include <atomic>

namespace kvmpp
{

/* What became of a vCPU's run on its CPU. */
enum class Answer : u32 {
	none,        /* it runs */
	exited,      /* DedicatedRun::exit is for Linux to handle */
	interrupted, /* somebody asked it to come out */
	vmfail,      /* as Entry::vmfail */
	failed,      /* the VMCS cannot be used */
	died,        /* the module's own code on that CPU raised an exception */
};

/*
 * A vCPU as its CPU has it. The vCPU's thread writes it before it posts it, and does not touch it, nor
 * what it points to, until there is an answer.
 */
struct DedicatedRun {
	VcpuState *state = nullptr;
	const VcpuIdentity *identity = nullptr;
	KickTarget *kick = nullptr;
	ApicMap *apics = nullptr;
	VcpuVmcs *vmcs = nullptr;
	const VmxConfig *config = nullptr;
	VmcsControls controls;
	/* With the guest's own MSRs, and with those of x2APIC as well. */
	HostPhys msr_bitmap, x2apic_bitmap;
	/* The guest's FPU state as XSAVE has it, whenever the guest is not running. A page. */
	void *fpu_image = nullptr;
	/* Linux sends no interrupts there that are not the guest's; and the guest's CPUID has an x2APIC. */
	bool apic_is_free = false;
	std::atomic<bool> apic_wanted{false};
	/* Both were so when the CPU got the vCPU: interrupts and the APIC are the guest's. */
	bool passthrough = false;
	/* The thread has changed the FPU state, or an MSR that stays in the CPU: to be loaded again. */
	bool reload = false;

	/* Its state is in the CPU. By the CPU. */
	bool attached = false;
	bool x2apic_bitmap_in_use = false;
	/* Left by the CPU when it has let go of the vCPU; the thread puts it into the state. */
	struct {
		bool valid = false;
		u32 activity = 0;
		LocalApic::Registers apic;
	} left;

	Exit exit;
	/* What handle_bare() has said of it. */
	Next next = Next::needs_linux;
	std::atomic<Answer> answer{Answer::none};
};

/*
 * NMIs say nothing of where they come from, and one that comes while another waits is lost in it. So
 * whoever sends one to a CPU counts it first, and one that comes there is of those if more were sent than
 * have come.
 */
class NmiAccount
{
public:
	void note(u64 tsc)
	{
		last_sent_.store(tsc, std::memory_order_relaxed);
		sent_.fetch_add(1, std::memory_order_seq_cst);
	}
	/* On the CPU that they are sent to. */
	bool claim()
	{
		u64 come = come_.load(std::memory_order_relaxed);

		if (come >= sent_.load(std::memory_order_seq_cst))
			return false;
		come_.store(come + 1, std::memory_order_relaxed);
		return true;
	}
	/* What was sent has come, or never will: not to be taken for somebody else's later. */
	void settle()
	{
		come_.store(sent_.load(std::memory_order_seq_cst), std::memory_order_relaxed);
	}
	u64 last_sent() const { return last_sent_.load(std::memory_order_relaxed); }
	u64 sent() const { return sent_.load(std::memory_order_relaxed); }
	u64 come() const { return come_.load(std::memory_order_relaxed); }

private:
	std::atomic<u64> sent_{0}, come_{0}, last_sent_{0};
};

class alignas(64) DedicatedCpu
{
public:
	enum class State : u32 {
		off,    /* it is Linux's */
		starts, /* it was started */
		up,     /* it looks at its bell */
		parked, /* out of VMX operation, and of everything else; it waits for INIT */
		died,   /* the same, after an exception */
	};
	/* What it is told to do. */
	enum Bell : u32 {
		run = 1 << 0,    /* the vCPU at `posted` */
		stop = 1 << 1,   /* let go of the vCPU and park */
		listen = 1 << 2, /* take interrupts until `quiet` */
		quiet = 1 << 3,
	};

	/* Before it is started; by who takes it. */
	CpuId cpu;
	glue_cpu_registers registers;
	glue_host_state host_state;
	HostPhys vmxon_region;
	u64 cr3 = 0;
	/* Where its exits are counted. */
	u64 *exits = nullptr;
	/* Where the NMI goes to that wakes who waits for it, and where it is noted. */
	u32 linux_apic_id = 0;
	NmiAccount *calls = nullptr;

	std::atomic<State> state{State::off};
	std::atomic<u32> bell{0};
	DedicatedRun *posted = nullptr;
	/* Somebody is to be woken: set here, taken by Linux's NMI. */
	std::atomic<u32> wants_linux{0};
	/* The kernel has crashed, or reboots at once. */
	std::atomic<u32> crash{0};
	/* See write_x2apic(). */
	std::atomic<u32> sending{0};
	/* It takes interrupts, and counts them. */
	std::atomic<u32> listening{0};

	/* NMIs that were sent to it, and that came. */
	NmiAccount nmis;
	std::atomic<u64> nmis_unknown{0};
	std::atomic<u64> strays{0};
	std::atomic<u32> last_stray{0};
	/* Exits that it saw to by itself. */
	std::atomic<u64> stayed{0};
	/* Of an exception that it died of. */
	bool dying = false;
	struct {
		u64 vector, error_code, rip, address;
	} fault = {};

	/* An NMI has come. On the CPU itself. */
	void note_nmi()
	{
		if (!nmis.claim() && !crash.load(std::memory_order_relaxed))
			nmis_unknown.store(nmis_unknown.load(std::memory_order_relaxed) + 1,
					   std::memory_order_relaxed);
	}
};

/*
 * Runs the posted vCPU until something is to be done that takes Linux. On the CPU itself, in VMX operation,
 * interrupts off. The answer is not in DedicatedRun yet.
 */
Answer run_dedicated(DedicatedCpu &cpu, DedicatedRun &run);
/* Lets go of the vCPU: its state goes to memory, no VMCS is left. On the CPU itself. */
void detach_dedicated(DedicatedCpu &cpu, DedicatedRun &run);

} // namespace kvmpp

/*
 * arch/x86/dedicated/traps.S; the host tests have a model of each. As kvmpp_vmx_enter(), but the look at
 * what is asked of the vCPU is part of it: 2 where something was, or came before the guest was entered, and
 * the guest did not run.
 */
extern "C" int kvmpp_dedicated_enter(kvmpp_gprs *gprs, int launched,
				     const std::atomic<kvmpp::u32> *asked);
extern "C" const char kvmpp_dedicated_exit[];
/* Ends the blocking of NMIs that an exit by one has left; one that was held comes before it returns. */
extern "C" void kvmpp_unblock_nmis(void);
/* Takes the interrupts that are pending, by handlers that count them, and no more. */
extern "C" void kvmpp_take_interrupts(void);
/* XSAVE and XRSTOR of the features in @mask, FXSAVE and FXRSTOR where it is 0. */
extern "C" void kvmpp_fpu_save(void *image, kvmpp::u64 mask);
extern "C" void kvmpp_fpu_load(const void *image, kvmpp::u64 mask);
