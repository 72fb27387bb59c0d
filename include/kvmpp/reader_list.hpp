/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An intrusive, singly linked list that readers walk inside RCU or SRCU while it changes, by one at a time. An
 * element holds a ReaderLink as a base class; one that is taken out stays in memory, its link as it is, until
 * those are out who may be at it.
 */
#pragma once

#include <atomic>

namespace kvmpp
{

template <class T> class ReaderList;

template <class T> class ReaderLink
{
private:
	friend class ReaderList<T>;
	std::atomic<T *> next_{nullptr};
};

template <class T> class ReaderList
{
public:
	constexpr ReaderList() = default;
	ReaderList(const ReaderList &) = delete;
	ReaderList &operator=(const ReaderList &) = delete;

	bool empty() const { return first_.load(std::memory_order_relaxed) == nullptr; }

	void push_front(T &element)
	{
		next_of(element).store(first_.load(std::memory_order_relaxed),
				       std::memory_order_relaxed);
		first_.store(&element, std::memory_order_release);
	}

	/* It must be in the list. */
	void remove(T &element)
	{
		std::atomic<T *> *link = &first_;

		while (link->load(std::memory_order_relaxed) != &element)
			link = &next_of(*link->load(std::memory_order_relaxed));
		link->store(next_of(element).load(std::memory_order_relaxed),
			    std::memory_order_release);
	}

	/* By readers: calls visit(T &) for each element. */
	template <class Visit> void for_each(Visit visit) const
	{
		for (T *element = first_.load(std::memory_order_acquire); element;
		     element = next_of(*element).load(std::memory_order_acquire))
			visit(*element);
	}

private:
	static std::atomic<T *> &next_of(ReaderLink<T> &link) { return link.next_; }

	std::atomic<T *> first_{nullptr};
};

} // namespace kvmpp
