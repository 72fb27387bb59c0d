// SPDX-License-Identifier: GPL-2.0
//
// How the command ends when it cannot do what it is asked: one line, and a status.
#pragma once

#include <stdexcept>

// Status 1.
struct Failure : std::runtime_error {
	using std::runtime_error::runtime_error;
};

// Status 2: the command line is wrong.
struct Usage : std::runtime_error {
	using std::runtime_error::runtime_error;
};
