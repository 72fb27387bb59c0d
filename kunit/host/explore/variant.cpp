// SPDX-License-Identifier: GPL-2.0
#include "variant.hpp"

#include "memory.hpp"
#include "races.hpp"

#include <dlfcn.h>
#include <link.h>

#include <cstdio>

namespace kvmpp::explore
{

const ScenarioList *variant;

namespace
{

struct Variables {
	std::string path;
	char *start = nullptr;
	unsigned long bytes = 0;
};

int find_variables(dl_phdr_info *info, size_t, void *data)
{
	auto &v = *static_cast<Variables *>(data);

	if (v.path != info->dlpi_name)
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) &p = info->dlpi_phdr[i];
		if (p.p_type == PT_LOAD && (p.p_flags & PF_W)) {
			v.start = reinterpret_cast<char *>(info->dlpi_addr + p.p_vaddr);
			v.bytes = p.p_memsz;
		}
	}
	return 1;
}

bool load(const std::string &path)
{
	void *object = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);

	if (object)
		variant = static_cast<const ScenarioList *>(dlsym(object, "kvmpp_scenarios"));
	if (!object || !variant)
		std::fprintf(stderr, "explore: %s\n", dlerror());
	return variant != nullptr;
}

} // namespace

const Scenario *load_scenario(const std::string &name, const std::string &scenario)
{
	Variables variables;

	variables.path = VARIANTS + name + ".so";
	map_arena();
	if (!load(variables.path))
		return nullptr;
	dl_iterate_phdr(find_variables, &variables);
	watch_data(variables.start, variables.bytes);
	keep(variables.start, variables.bytes);
	for (const Scenarios *area : variant->areas)
		for (const Scenario &s : *area)
			if (scenario == s.name)
				return &s;
	std::fprintf(stderr, "explore: no scenario \"%s\"\n", scenario.c_str());
	return nullptr;
}

std::vector<Scenario> list_scenarios()
{
	if (!load(VARIANTS "right.so"))
		return {};
	std::vector<Scenario> all;
	for (const Scenarios *area : variant->areas)
		all.insert(all.end(), area->begin(), area->end());
	return all;
}

} // namespace kvmpp::explore
