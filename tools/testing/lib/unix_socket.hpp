// SPDX-License-Identifier: GPL-2.0
//
// A socket of QEMU's: its monitor's, or its gdbstub's.
#pragma once

#include "vm.hpp"

#include <string>

class UnixSocket
{
public:
	// Waits for who is to make it.
	explicit UnixSocket(const std::string &path);

	void put(const std::string &text) const;
	char get() const;

private:
	Fd fd_;
};
