// SPDX-License-Identifier: GPL-2.0
/* debugfs: what VMX does on each CPU, and how often what happened since the module came in. */
#include "arch/x86/vmx_cpu.hpp"
#include "directed_yield.hpp"

#include <linux_glue/debugfs.h>
#include <linux_glue/entries.h>

using namespace kvmpp;

void kvmpp_show_cpus(struct glue_text *text)
{
	for (int cpu = 0; cpu < glue_nr_cpus(); cpu++) {
		const VmxCpu &c = VmxCpu::of({cpu});

		if (glue_cpu_online(cpu))
			glue_text_print(text, "cpu %d vmx %s loaded %u\n", cpu,
					c.is_on() ? "on" : "off", c.loaded());
	}
}

void kvmpp_show_stats(struct glue_text *text)
{
	constexpr unsigned reasons = static_cast<unsigned>(ExitReason::count);
	u64 enables = 0, disables = 0, clears[clear_causes] = {}, exits[reasons] = {}, total = 0;
	DirectedYield::Stats yields = DirectedYield::stats();

	for (int cpu = 0; cpu < glue_nr_cpus(); cpu++) {
		const VmxCpu &c = VmxCpu::of({cpu});

		enables += c.enables();
		disables += c.disables();
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
	line("vmclears_move", clears[static_cast<unsigned>(ClearCause::move)]);
	line("vmclears_free", clears[static_cast<unsigned>(ClearCause::free)]);
	line("vmclears_off", clears[static_cast<unsigned>(ClearCause::off)]);
	line("yields_tried", yields.tried);
	line("yields_done", yields.done);
	line("exits_total", total);
	for (unsigned i = 0; i < reasons; i++) {
		const char *name = exit_reason_name(static_cast<ExitReason>(i));

		if (!exits[i])
			continue;
		if (name)
			glue_text_print(text, "exit_%s %llu\n", name,
					static_cast<unsigned long long>(exits[i]));
		else
			glue_text_print(text, "exit_reason_%u %llu\n", i,
					static_cast<unsigned long long>(exits[i]));
	}
}
