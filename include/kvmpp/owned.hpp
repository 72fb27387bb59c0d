/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sole ownership of an object on the heap or of a page, without operator new and delete; and of an
 * object that others may still look at under RCU.
 */
#pragma once

#include "include/kvmpp/contexts.hpp"
#include "include/kvmpp/types.hpp"

#include <linux_glue/alloc.h>
#include <linux_glue/lock.h>

#include <new>
#include <type_traits>
#include <utility>

namespace kvmpp
{

template <class T> class Owned
{
public:
	constexpr Owned() = default;
	Owned(Owned &&other) : object_(other.release()) {}
	~Owned()
	{
		if (object_) {
			object_->~T();
			glue_free(object_);
		}
	}
	Owned &operator=(Owned &&other)
	{
		Owned old(std::move(*this));
		object_ = other.release();
		return *this;
	}

	/* Empty when there is no memory. May sleep. */
	template <class... Args> static Owned create(Args &&...args) MAY_SLEEP
	{
		Owned owned;
		if (void *memory = glue_zalloc(sizeof(T)))
			owned.object_ = new (memory) T(std::forward<Args>(args)...);
		return owned;
	}
	/* Takes back what release() gave away. */
	static Owned adopt(T *object)
	{
		Owned owned;
		owned.object_ = object;
		return owned;
	}

	T *release() { return std::exchange(object_, nullptr); }
	T *get() const { return object_; }
	T *operator->() const { return object_; }
	T &operator*() const { return *object_; }
	explicit operator bool() const { return object_ != nullptr; }

private:
	T *object_ = nullptr;
};

/* The same of an array of plain data, zeroed. */
template <class T> class OwnedArray
{
public:
	constexpr OwnedArray() = default;
	OwnedArray(OwnedArray &&other)
		: elements_(std::exchange(other.elements_, nullptr)),
		  count_(std::exchange(other.count_, 0))
	{
	}
	~OwnedArray()
	{
		if (elements_)
			glue_free(elements_);
	}
	OwnedArray &operator=(OwnedArray &&other)
	{
		OwnedArray old(std::move(*this));
		elements_ = std::exchange(other.elements_, nullptr);
		count_ = std::exchange(other.count_, 0);
		return *this;
	}

	/* At least one. Empty when there is no memory. May sleep. */
	static OwnedArray create(u32 count) MAY_SLEEP
	{
		OwnedArray array;
		array.elements_ = static_cast<T *>(glue_zalloc(count * sizeof(T)));
		array.count_ = array.elements_ ? count : 0;
		return array;
	}

	T &operator[](u32 index) { return elements_[index]; }
	const T &operator[](u32 index) const { return elements_[index]; }
	T *data() { return elements_; }
	u32 size() const { return count_; }
	explicit operator bool() const { return elements_ != nullptr; }

private:
	static_assert(std::is_trivially_copyable_v<T>);

	T *elements_ = nullptr;
	u32 count_ = 0;
};

/* The base of what RCU keeps for its readers. */
struct RcuHead : glue_rcu_head {
};

/*
 * An object that is taken away from its readers before its owner gives it up. Its end, destructor
 * and all, comes when they are out, in a softirq; nobody waits for it.
 */
template <class T> class RcuOwned
{
public:
	constexpr RcuOwned() = default;
	RcuOwned(Owned<T> object) : object_(object.release()) {}
	RcuOwned(RcuOwned &&other) : object_(std::exchange(other.object_, nullptr)) {}
	~RcuOwned()
	{
		if (object_)
			glue_rcu_call(static_cast<RcuHead *>(object_), end);
	}
	RcuOwned &operator=(RcuOwned &&other)
	{
		RcuOwned old(std::move(*this));
		object_ = std::exchange(other.object_, nullptr);
		return *this;
	}

	T *operator->() const { return object_; }
	T &operator*() const { return *object_; }
	explicit operator bool() const { return object_ != nullptr; }

private:
	static void end(glue_rcu_head *head)
	{
		Owned<T>::adopt(static_cast<T *>(static_cast<RcuHead *>(head)));
	}

	T *object_ = nullptr;
};

/* A zeroed page of the kernel's direct map. */
class Page
{
public:
	constexpr Page() = default;
	Page(Page &&other) : address_(std::exchange(other.address_, nullptr)) {}
	~Page()
	{
		if (address_)
			glue_page_free(address_);
	}
	Page &operator=(Page &&other)
	{
		Page old(std::move(*this));
		address_ = std::exchange(other.address_, nullptr);
		return *this;
	}

	/* Empty when there is no memory. May sleep. */
	static Page create() MAY_SLEEP
	{
		Page page;
		page.address_ = glue_page_alloc();
		return page;
	}

	template <class T> T *as() const { return static_cast<T *>(address_); }
	HostPhys phys() const { return {glue_virt_to_phys(address_)}; }
	void *release() { return std::exchange(address_, nullptr); }
	explicit operator bool() const { return address_ != nullptr; }

private:
	void *address_ = nullptr;
};

} // namespace kvmpp
