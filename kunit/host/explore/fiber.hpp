/* SPDX-License-Identifier: GPL-2.0 */
/* A stack of its own for each process of the model, and the switch between them: one OS thread. */
#pragma once

namespace kvmpp::explore
{

class Fiber
{
public:
	/* Runs function() when it is first resumed; it must not return. */
	void start(char *stack, unsigned long bytes, void (*function)());
	/* Goes on in the fiber until it suspends. */
	void resume();
	/* From inside: back to who resumed it. */
	void suspend();

private:
	void *stack_pointer_ = nullptr;
	void *resumer_ = nullptr;
};

} // namespace kvmpp::explore
