// SPDX-License-Identifier: GPL-2.0
#include "model/dedicated.hpp"

#include "model/cpus.hpp"
#include "model/locks.hpp"
#include "model/memory.hpp"
#include "model/thread.hpp"
#include "model/violation.hpp"
#include "model/vmx.hpp"

#include "arch/x86/x2apic.hpp"

#include <linux_glue/dedicated.h>
#include <linux_glue/entries.h>
#include <linux_glue/guest.h>
#include <linux_glue/x86.h>

#include <asm/errno.h>

#include <map>
#include <utility>

/* What it maps: start and end of ranges. */
struct glue_private_map {
	std::map<kvmpp::u64, kvmpp::u64> ranges;
};

struct glue_bell {
	unsigned rung = 0;
};

namespace kvmpp::host
{

void start_cpu(int cpu, void (*entry)(void *), void *argument);
void stop_cpu(int cpu);
void pass_millisecond();

namespace
{

bool may_dedicate = true, has_x2apic = true, low_page_missing, kept, registered;
bool absent[cpu_count], sibling_online[cpu_count];
int remove_error, add_error, registration_error;
u64 tsc_khz;
std::function<void()> millisecond_hook, microsecond_hook;
int maps;
/* Of a CPU that is being started. */
bool starting;

void sleep_a_millisecond()
{
	pass_millisecond();
	run_dedicated_cpus();
	if (millisecond_hook)
		millisecond_hook();
}

} // namespace

void reset_dedicated_linux()
{
	may_dedicate = has_x2apic = true;
	low_page_missing = kept = registered = starting = false;
	for (int cpu = 0; cpu < cpu_count; cpu++)
		absent[cpu] = sibling_online[cpu] = false;
	remove_error = add_error = registration_error = 0;
	tsc_khz = 1000;
	millisecond_hook = microsecond_hook = nullptr;
}

void set_may_dedicate(bool may)
{
	may_dedicate = may;
}

void set_present(int cpu, bool present)
{
	absent[cpu] = !present;
}

void set_sibling_online(int cpu, bool online)
{
	sibling_online[cpu] = online;
}

void set_x2apic(bool has)
{
	has_x2apic = has;
}

void set_tsc_khz(u64 khz)
{
	tsc_khz = khz;
}

void fail_remove(int error)
{
	remove_error = error;
}

void fail_add(int error)
{
	add_error = error;
}

void fail_dedicated_registration(int error)
{
	registration_error = error;
}

void fail_low_page()
{
	low_page_missing = true;
}

void on_millisecond(std::function<void()> function)
{
	millisecond_hook = std::move(function);
}

void on_microsecond(std::function<void()> function)
{
	microsecond_hook = std::move(function);
}

bool module_is_kept()
{
	return kept;
}

int live_maps()
{
	return maps;
}

} // namespace kvmpp::host

using namespace kvmpp::host;
using kvmpp::u64;

int glue_may_dedicate(void)
{
	return may_dedicate;
}

int glue_cpu_present(int cpu)
{
	return cpu >= 0 && cpu < cpu_count && !absent[cpu];
}

int glue_online_cpus(void)
{
	return online_cpus();
}

int glue_present_cpus(void)
{
	int count = 0;

	for (bool is : absent)
		count += !is;
	return count;
}

int glue_cpu_sibling_online(int cpu)
{
	return sibling_online[cpu];
}

int glue_cpus_share_core(int one, int other)
{
	return one == other;
}

int glue_cpu_may_be_mistaken(int)
{
	return 0;
}

int glue_cpu_remove(int cpu)
{
	if (int error = std::exchange(remove_error, 0)) {
		might_sleep("remove_cpu()");
		return error;
	}
	return remove_cpu(cpu);
}

int glue_cpu_add(int cpu)
{
	if (is_started(cpu))
		violation("add_cpu() of CPU %d, which runs code of the module's", cpu);
	if (int error = std::exchange(add_error, 0)) {
		might_sleep("add_cpu()");
		return error;
	}
	return add_cpu(cpu);
}

void glue_cpu_registers_read(glue_cpu_registers *r)
{
	if (!irqs_off())
		violation("a CPU's registers read with interrupts on");
	*r = {.cr4 = 0x3726e0,
	      .efer = 0xd01,
	      .pat = 0x0407050600070106,
	      .spec_ctrl = 1,
	      .xcr0 = 7,
	      .gs_base = 0x4000u + static_cast<unsigned>(this_cpu()),
	      .apic_base = here().msrs[kvmpp::msr::apic_base],
	      .apic_id = apic_id_of(this_cpu()),
	      .has_x2apic = has_x2apic,
	      .x2apic_locked = false,
	      .has_spec_ctrl = true,
	      .has_ibpb = false,
	      .has_split_lock_detect = false};
}

glue_private_map *glue_private_map_create(void)
{
	might_sleep("allocation");
	if (!may_allocate())
		return nullptr;
	count_allocation(1);
	maps++;
	return new glue_private_map;
}

int glue_private_map_add(glue_private_map *map, const void *address, glue_size bytes)
{
	might_sleep("allocation");
	if (!may_allocate())
		return -ENOMEM;
	map->ranges[reinterpret_cast<u64>(address)] = reinterpret_cast<u64>(address) + bytes;
	return 0;
}

int glue_private_map_add_cpu(glue_private_map *, int)
{
	might_sleep("allocation");
	return may_allocate() ? 0 : -ENOMEM;
}

glue_u64 glue_private_map_root(const glue_private_map *map)
{
	return reinterpret_cast<u64>(map) & 0xfffff000;
}

void glue_private_map_destroy(glue_private_map *map)
{
	might_sleep("freeing of page tables");
	count_allocation(-1);
	maps--;
	delete map;
}

int glue_cpu_start_begin(int cpu, const glue_cpu_start *start)
{
	might_sleep("starting a CPU");
	if (is_online(cpu))
		violation("CPU %d started while Linux runs on it", cpu);
	if (starting)
		violation("two CPUs are started at a time");
	if (std::exchange(low_page_missing, false))
		return -ENOMEM;
	note_taken(cpus_read_lock);
	starting = true;
	start_cpu(cpu, start->entry, start->argument);
	return 0;
}

void glue_cpu_start_end(void)
{
	starting = false;
	note_released(cpus_read_lock);
}

void glue_cpu_stop(int cpu)
{
	might_sleep("waiting after an INIT");
	if (is_online(cpu))
		violation("INIT to CPU %d while Linux runs on it", cpu);
	stop_cpu(cpu);
}

void glue_cpu_nmi(int cpu)
{
	send_nmi(cpu);
}

glue_u64 glue_tsc_khz(void)
{
	return tsc_khz;
}

void glue_msleep(unsigned int milliseconds)
{
	might_sleep("msleep()");
	for (unsigned i = 0; i < milliseconds; i++)
		sleep_a_millisecond();
}

void glue_udelay(unsigned int microseconds)
{
	run_dedicated_cpus();
	for (unsigned i = 0; microsecond_hook && i < microseconds; i++)
		microsecond_hook();
}

void glue_cpu_relax(void)
{
	run_dedicated_cpus();
}

glue_bell *glue_bell_create(void)
{
	might_sleep("allocation");
	if (!may_allocate())
		return nullptr;
	count_allocation(1);
	return new glue_bell;
}

void glue_bell_destroy(glue_bell *bell)
{
	might_sleep("freeing a bell");
	count_allocation(-1);
	delete bell;
}

void glue_bell_ring(glue_bell *bell)
{
	bell->rung++;
}

/* As wait_event(): who is not woken does not look. */
int glue_bell_wait(glue_bell *bell, int (*done)(void *), void *argument, int interruptible,
		   unsigned int ms)
{
	constexpr unsigned for_ever = 2000;

	might_sleep("waiting for a dedicated CPU");
	for (unsigned waited = 0;;) {
		unsigned before = bell->rung;

		if (done(argument))
			return 0;
		while (bell->rung == before) {
			if (interruptible && glue_signal_pending())
				return -EINTR;
			if (run_dedicated_cpus())
				continue;
			if (ms && waited == ms)
				return done(argument) ? 0 : -ETIMEDOUT;
			if (!ms && waited == for_ever) {
				violation("waits for a dedicated CPU for ever");
				set_signal_pending(true);
				return -EINTR;
			}
			sleep_a_millisecond();
			waited++;
		}
	}
}

void glue_module_keep(void)
{
	kept = true;
}

void glue_synchronize_rcu(void)
{
	might_sleep("synchronize_rcu()");
}

int glue_dedicated_init(void)
{
	might_sleep("registering a notifier");
	if (registration_error)
		return registration_error;
	registered = true;
	return 0;
}

void glue_dedicated_exit(void)
{
	if (!std::exchange(registered, false))
		violation("notifiers removed that were not registered");
}
