/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An intrusive, circular, doubly linked list. An element holds a ListLink<Tag> as a base class; a
 * link that is in no list points to itself, so that unlinking twice is harmless.
 *
 * An NMI on the CPU that changes a list may walk it: forwards, it finds every element that was in it
 * before the change or is in it after. Hence the order of the stores.
 */
#pragma once

#include <atomic>

namespace kvmpp
{

template <class Tag> class ListLink
{
public:
	constexpr ListLink() = default;
	ListLink(const ListLink &) = delete;
	ListLink &operator=(const ListLink &) = delete;

	bool is_linked() const { return next_ != nullptr && next_ != this; }

	void unlink()
	{
		if (!is_linked())
			return;
		prev_->next_ = next_;
		std::atomic_signal_fence(std::memory_order_seq_cst);
		next_->prev_ = prev_;
		next_ = prev_ = this;
	}

private:
	template <class T, class U> friend class List;
	/* Null only before the first use: a constant initialiser cannot name `this`. */
	ListLink *next_ = nullptr;
	ListLink *prev_ = nullptr;
};

template <class T, class Tag> class List
{
public:
	constexpr List() = default;
	List(const List &) = delete;
	List &operator=(const List &) = delete;

	bool empty() const { return !head_.is_linked(); }

	void push_front(T &element)
	{
		ListLink<Tag> &link = element;
		if (head_.next_ == nullptr)
			head_.next_ = head_.prev_ = &head_;
		link.next_ = head_.next_;
		link.prev_ = &head_;
		head_.next_->prev_ = &link;
		std::atomic_signal_fence(std::memory_order_seq_cst);
		head_.next_ = &link;
	}

	/* The first element, or null. */
	T *front() { return empty() ? nullptr : static_cast<T *>(head_.next_); }

	/* Calls visit(T &) for each element; visit may unlink the element it is given. */
	template <class Visit> void for_each(Visit visit)
	{
		if (head_.next_ == nullptr)
			return;
		for (ListLink<Tag> *link = head_.next_; link != &head_;) {
			ListLink<Tag> *next = link->next_;
			visit(*static_cast<T *>(link));
			link = next;
		}
	}

private:
	ListLink<Tag> head_;
};

} // namespace kvmpp
