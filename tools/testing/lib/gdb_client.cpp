// SPDX-License-Identifier: GPL-2.0
#include "gdb_client.hpp"

#include "expect.hpp"

#include <cstdarg>
#include <cstdio>
#include <numeric>

namespace
{

[[gnu::format(printf, 1, 2)]] std::string text(const char *format, ...)
{
	char room[64];
	va_list arguments;
	va_start(arguments, format);
	std::vsnprintf(room, sizeof(room), format, arguments);
	va_end(arguments);
	return room;
}

std::vector<uint8_t> from_hex(const std::string &digits)
{
	std::vector<uint8_t> bytes;
	for (size_t i = 0; i + 1 < digits.size(); i += 2)
		bytes.push_back(static_cast<uint8_t>(std::stoul(digits.substr(i, 2), nullptr, 16)));
	return bytes;
}

} // namespace

GdbClient::GdbClient(const std::string &path) : socket_(path)
{
	// Old QEMUs say first that the guest has stopped.
	send("qAttached");
	while (receive() != "1") {
	}
}

void GdbClient::send(const std::string &packet) const
{
	const unsigned sum = std::accumulate(packet.begin(), packet.end(), 0u);
	socket_.put("$" + packet + text("#%02x", sum % 256));
}

std::string GdbClient::receive() const
{
	std::string packet;
	while (socket_.get() != '$') {
	}
	for (char c; (c = socket_.get()) != '#';)
		packet += c;
	// Its sum; the socket loses nothing.
	socket_.get();
	socket_.get();
	socket_.put("+");
	return packet;
}

std::string GdbClient::ask(const std::string &packet) const
{
	send(packet);
	return receive();
}

void GdbClient::expect(const std::string &packet, const std::string &answer) const
{
	const std::string came = ask(packet);
	if (!came.starts_with(answer))
		expect::fail("gdbstub: \"%s\" for \"%s\", not \"%s\"", came.c_str(), packet.c_str(),
			     answer.c_str());
}

uint64_t GdbClient::rip() const
{
	// Of x86-64 it is behind sixteen others.
	constexpr size_t digits = 2 * sizeof(uint64_t);
	const std::string all = ask("g");
	expect::that("registers", all.size() >= 17 * digits);
	return __builtin_bswap64(std::stoull(all.substr(16 * digits, digits), nullptr, 16));
}

std::vector<uint8_t> GdbClient::memory(uint64_t address, size_t size) const
{
	const auto bytes =
		from_hex(ask(text("m%llx,%zx", static_cast<unsigned long long>(address), size)));
	expect::equal("bytes read", bytes.size(), size);
	return bytes;
}

std::string GdbClient::monitor(const std::string &command) const
{
	std::string packet = "qRcmd,", said;
	for (const char c : command)
		packet += text("%02x", c);
	for (std::string came = ask(packet); came != "OK"; came = receive()) {
		expect::that("output of the monitor", came.starts_with("O"));
		for (const uint8_t byte : from_hex(came.substr(1)))
			said += static_cast<char>(byte);
	}
	return said;
}

void GdbClient::set(Breakpoint kind, uint64_t address) const
{
	expect(text("Z%d,%llx,1", static_cast<int>(kind), static_cast<unsigned long long>(address)),
	       "OK");
}

void GdbClient::clear(Breakpoint kind, uint64_t address) const
{
	expect(text("z%d,%llx,1", static_cast<int>(kind), static_cast<unsigned long long>(address)),
	       "OK");
}

void GdbClient::go_on() const
{
	expect("c", "T05");
}

void GdbClient::step() const
{
	expect("s", "T05");
}

void GdbClient::detach() const
{
	expect("D", "OK");
}
