// SPDX-License-Identifier: GPL-2.0
//
// Random instructions: those that a hypervisor has to do with, with operands that it has to look at.
#pragma once

#include "random.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace fuzz
{

enum class Mode : uint8_t { real, protected_, long_ };
constexpr unsigned modes = 3;

// No longer than this.
constexpr size_t longest_instruction = 64;

// An instruction of the mode, after such as load registers for it; how many bytes. One that halts is not
// among them unless it is wanted.
size_t random_instruction(Random &random, Mode mode, bool halts, std::byte *to);
void fill_with_instructions(Random &random, Mode mode, std::span<std::byte> to);

} // namespace fuzz
