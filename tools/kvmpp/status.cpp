// SPDX-License-Identifier: GPL-2.0
#include "status.hpp"

#include "table.hpp"
#include "watch.hpp"

#include <algorithm>
#include <cstdio>
#include <thread>

namespace
{

using Align = Table::Align;

struct Rate {
	std::string reason;
	double per_second;
};

// Most frequent first. The counters begin anew when the module is inserted again.
std::vector<Rate> rates_of(const Cpu *before, const Cpu &now, double seconds)
{
	std::vector<Rate> rates;
	for (const auto &[reason, count] : now.exits) {
		uint64_t earlier = 0;
		if (before)
			if (const auto found = before->exits.find(reason);
			    found != before->exits.end())
				earlier = found->second;
		if (count < earlier)
			earlier = 0;
		if (count > earlier)
			rates.push_back({reason, static_cast<double>(count - earlier) / seconds});
	}
	std::ranges::stable_sort(rates, std::greater(), &Rate::per_second);
	return rates;
}

std::string rounded(double value)
{
	char text[32];
	std::snprintf(text, sizeof(text), "%.0f", value);
	return value > 0 && value < 0.5 ? "<1" : text;
}

std::string most_of(const std::vector<Rate> &rates)
{
	constexpr size_t most_shown = 4;
	std::string text;
	for (size_t i = 0; i < std::min(rates.size(), most_shown); i++)
		text += (i ? ", " : "") + rates[i].reason + " " + rounded(rates[i].per_second);
	if (rates.size() > most_shown)
		text += ", " + std::to_string(rates.size() - most_shown) + " more";
	return text;
}

double total_of(const std::vector<Rate> &rates)
{
	double sum = 0;
	for (const Rate &rate : rates)
		sum += rate.per_second;
	return sum;
}

std::string vmx_of(const Cpu &cpu)
{
	if (cpu.vmx)
		return *cpu.vmx ? "on" : "off";
	// A CPU that Linux does not have cannot be asked; but a guest runs in VMX operation.
	return cpu.dedicated && cpu.dedicated->state == "running" ? "on" : "-";
}

std::string plural(size_t count, const std::string &one, const std::string &many)
{
	return std::to_string(count) + " " + (count == 1 ? one : many);
}

std::string headline(const Snapshot &now, const std::string &rate)
{
	const auto count = [&](auto is_so) {
		return std::to_string(std::ranges::count_if(
			now.cpus, [&](const auto &entry) { return is_so(entry.second); }));
	};
	return plural(now.cpus.size(), "CPU", "CPUs") + ": " +
	       count([](const Cpu &cpu) { return cpu.online; }) + " online, " +
	       count([](const Cpu &cpu) { return vmx_of(cpu) == "on"; }) + " in VMX operation, " +
	       count([](const Cpu &cpu) { return cpu.dedicated.has_value(); }) + " dedicated; " +
	       rate;
}

// What a dedicated CPU should never see, and whoever looks should know.
std::vector<std::string> warnings(const Snapshot &now)
{
	std::vector<std::string> lines;
	for (const auto &[number, cpu] : now.cpus) {
		if (!cpu.dedicated)
			continue;
		const std::string which = "CPU " + std::to_string(number) + ": ";
		if (cpu.dedicated->state == "dead")
			lines.push_back(which + "it has died; the kernel's log says of what");
		if (cpu.dedicated->unknown_nmis)
			lines.push_back(which + plural(cpu.dedicated->unknown_nmis, "NMI", "NMIs") +
					" that nobody knows");
		if (cpu.dedicated->strays)
			lines.push_back(which +
					plural(cpu.dedicated->strays, "interrupt", "interrupts") +
					" of the host's");
	}
	return lines;
}

} // namespace

std::vector<std::string> status_lines(const Snapshot *before, const Snapshot &now)
{
	const bool any_dedicated = std::ranges::any_of(
		now.cpus, [](const auto &entry) { return entry.second.dedicated.has_value(); });
	const double seconds =
		before ? std::chrono::duration<double>(now.when - before->when).count() : 0;

	Table table;
	table.column("CPU", Align::right);
	table.column("LINUX");
	table.column("VMX");
	table.column("VMCSS", Align::right);
	if (any_dedicated) {
		table.column("DEDICATED TO");
		table.column("STATE");
		table.column("INTERRUPTS");
		table.column("KICKS", Align::right);
	}
	table.column("EXITS/S", Align::right);
	table.column("OF THESE");

	double total = 0;
	for (const auto &[number, cpu] : now.cpus) {
		std::vector<std::string> cells{std::to_string(number),
					       cpu.online ? "online" : "offline", vmx_of(cpu),
					       cpu.vmcss ? std::to_string(*cpu.vmcss) : "-"};
		if (const auto &owner = cpu.dedicated)
			cells.insert(cells.end(), {owner_of(*owner), owner->state,
						   owner->passthrough ? "passed through" : "exit",
						   std::to_string(owner->kicks)});
		else if (any_dedicated)
			cells.insert(cells.end(), {"-", "-", "-", "-"});
		if (before) {
			const auto earlier = before->cpus.find(number);
			const auto rates =
				rates_of(earlier == before->cpus.end() ? nullptr : &earlier->second,
					 cpu, seconds);
			total += total_of(rates);
			cells.insert(cells.end(), {rounded(total_of(rates)), most_of(rates)});
		} else {
			cells.insert(cells.end(), {"-", ""});
		}
		table.row(cells);
	}

	char rate[64] = "exits are being counted";
	if (before)
		std::snprintf(rate, sizeof(rate), "%s exits a second, over %.1f s",
			      rounded(total).c_str(), seconds);
	std::vector<std::string> lines{headline(now, rate), ""};
	std::ranges::move(table.lines(), std::back_inserter(lines));
	const auto notes = warnings(now);
	if (!notes.empty())
		lines.push_back("");
	lines.insert(lines.end(), notes.begin(), notes.end());
	return lines;
}

int status(const std::string &root, std::optional<double> interval)
{
	if (!interval) {
		const Snapshot before = take_snapshot(root);
		std::this_thread::sleep_for(std::chrono::seconds(1));
		for (const std::string &line : status_lines(&before, take_snapshot(root)))
			std::printf("%s\n", line.c_str());
		return 0;
	}
	std::optional<Snapshot> before;
	watch(*interval, [&] {
		Snapshot now = take_snapshot(root);
		auto lines = status_lines(before ? &*before : nullptr, now);
		before = std::move(now);
		return lines;
	});
	return 0;
}
