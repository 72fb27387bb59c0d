// SPDX-License-Identifier: GPL-2.0
#include "fiber.hpp"

/* What the ABI has a function keep, on the old stack and from the new one. */
asm(R"(
	.text
	.type explore_switch, @function
explore_switch:
	pushq %rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, (%rdi)
	movq %rsi, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	ret
	.size explore_switch, . - explore_switch
)");

extern "C" void explore_switch(void **save, void *to);

namespace kvmpp::explore
{

void Fiber::start(char *stack, unsigned long bytes, void (*function)())
{
	auto top = reinterpret_cast<void **>(stack + bytes);

	*--top =
		nullptr; /* the return address that `function` has not, for the stack's alignment */
	*--top = reinterpret_cast<void *>(function);
	for (int saved = 0; saved < 6; saved++)
		*--top = nullptr;
	stack_pointer_ = top;
}

void Fiber::resume()
{
	explore_switch(&resumer_, stack_pointer_);
}

void Fiber::suspend()
{
	explore_switch(&stack_pointer_, resumer_);
}

} // namespace kvmpp::explore
