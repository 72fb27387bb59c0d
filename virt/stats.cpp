// SPDX-License-Identifier: GPL-2.0
/* debugfs: what VMX does on each CPU, and how often what happened since the module came in. */
#include "arch/x86/vmx_cpu.hpp"
#include "directed_yield.hpp"
#include "include/kvmpp/owned.hpp"

#include <linux_glue/crash.h>
#include <linux_glue/debugfs.h>
#include <linux_glue/entries.h>

using namespace kvmpp;

namespace
{

/* What a CPU says of itself; it alone may look at its list. */
struct CpuState {
	static constexpr unsigned most_shown = 64;

	bool on = false;
	unsigned loaded = 0;
	unsigned shown = 0;
	struct {
		VmcsOwner owner;
		bool launched;
	} vmcss[most_shown];

	static void look(void *argument)
	{
		auto &state = *static_cast<CpuState *>(argument);
		IrqOff irq;
		VmxCpu &here = VmxCpu::here(irq);

		state.on = here.is_on();
		state.loaded = here.loaded();
		here.for_each_loaded(irq, [&](LoadedVmcs &vmcs) NO_THREAD_SAFETY_ANALYSIS {
			if (state.shown < most_shown)
				state.vmcss[state.shown++] = {vmcs.owner(), vmcs.launched(irq)};
		});
	}
};

constexpr unsigned reasons = static_cast<unsigned>(ExitReason::count);

/* A count of exits by its reason's name, or by the number where it has none. */
void print_exits(glue_text *text, const char *prefix, unsigned reason, u64 count)
{
	const char *name = exit_reason_name(static_cast<ExitReason>(reason));

	if (name)
		glue_text_print(text, "%s%s %llu\n", prefix, name,
				static_cast<unsigned long long>(count));
	else
		glue_text_print(text, "%sreason_%u %llu\n", prefix, reason,
				static_cast<unsigned long long>(count));
}

} // namespace

void kvmpp_show_cpus(struct glue_text *text)
{
	for (int cpu = 0; cpu < glue_nr_cpus(); cpu++) {
		auto state = Owned<CpuState>::create();

		if (!state) {
			glue_text_print(text, "no memory\n");
			return;
		}
		if (glue_call_on_cpu(cpu, CpuState::look, state.get()) != 0)
			continue;
		glue_text_print(text, "cpu %d vmx %s loaded %u\n", cpu, state->on ? "on" : "off",
				state->loaded);
		for (unsigned i = 0; i < state->shown; i++) {
			const auto &[owner, launched] = state->vmcss[i];

			glue_text_print(text, "  vm %u process %u vcpu %u%s\n", owner.vm,
					owner.process, owner.vcpu, launched ? " launched" : "");
		}
		if (state->shown < state->loaded)
			glue_text_print(text, "  and %u more\n", state->loaded - state->shown);
	}
}

void kvmpp_show_stats(struct glue_text *text)
{
	u64 enables = 0, disables = 0, l1d_flushes = 0, clears[clear_causes] = {},
	    exits[reasons] = {}, total = 0;
	DirectedYield::Stats yields = DirectedYield::stats();

	for (int cpu = 0; cpu < glue_nr_cpus(); cpu++) {
		const VmxCpu &c = VmxCpu::of({cpu});

		enables += c.enables();
		disables += c.disables();
		l1d_flushes += c.l1d_flushes();
		for (unsigned i = 0; i < clear_causes; i++)
			clears[i] += c.clears(static_cast<ClearCause>(i));
		for (unsigned i = 0; i < reasons; i++) {
			exits[i] += c.exits(static_cast<ExitReason>(i));
			total += c.exits(static_cast<ExitReason>(i));
		}
	}
	auto line = [&](const char *name, u64 value) {
		glue_text_print(text, "%s %llu\n", name, static_cast<unsigned long long>(value));
	};
	line("vmx_enables", enables);
	line("vmx_disables", disables);
	for (unsigned i = 0; i < clear_causes; i++)
		glue_text_print(text, "vmclears_%s %llu\n",
				clear_cause_name(static_cast<ClearCause>(i)),
				static_cast<unsigned long long>(clears[i]));
	line("l1d_flushes", l1d_flushes);
	line("yields_tried", yields.tried);
	line("yields_done", yields.done);
	line("crash_hook", glue_crash_hook_held());
	line("exits_total", total);
	for (unsigned i = 0; i < reasons; i++)
		if (exits[i])
			print_exits(text, "exit_", i, exits[i]);
}

/* Of every CPU that may come: one that Linux does not have now may have had exits, or have them. */
void kvmpp_show_exits(struct glue_text *text)
{
	for (int cpu = 0; cpu < glue_nr_cpus(); cpu++)
		for (unsigned i = 0; i < reasons; i++)
			if (u64 count = VmxCpu::of({cpu}).exits(static_cast<ExitReason>(i))) {
				glue_text_print(text, "cpu %d ", cpu);
				print_exits(text, "", i, count);
			}
}
