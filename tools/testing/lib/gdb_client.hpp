// SPDX-License-Identifier: GPL-2.0
//
// gdb's side of its remote serial protocol, as QEMU's gdbstub has it.
#pragma once

#include "unix_socket.hpp"

#include <cstdint>
#include <string>
#include <vector>

class GdbClient
{
public:
	// Once it is connected the guest stands still.
	explicit GdbClient(const std::string &path);

	uint64_t rip() const;
	std::vector<uint8_t> memory(uint64_t address, size_t size) const;
	// What a command of QEMU's monitor says.
	std::string monitor(const std::string &command) const;

	enum class Breakpoint { software, hardware };
	void set(Breakpoint kind, uint64_t address) const;
	void clear(Breakpoint kind, uint64_t address) const;

	// Return when the guest has stopped again, which must be by a trap.
	void go_on() const;
	void step() const;
	// The guest goes on without a debugger.
	void detach() const;

private:
	void send(const std::string &packet) const;
	std::string receive() const;
	std::string ask(const std::string &packet) const;
	void expect(const std::string &packet, const std::string &answer) const;

	UnixSocket socket_;
};
