/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A value or the errno of why there is none. Nothing in the module throws, and no error can be
 * dropped without the compiler saying so.
 */
#pragma once

#include <asm/errno.h>

#include <new>
#include <type_traits>
#include <utility>

namespace kvmpp
{

/* The errnos that this module gives, or is given, as positive numbers. */
enum class Errno : int {
	perm = EPERM,
	noent = ENOENT,
	toobig = E2BIG,
	intr = EINTR,
	io = EIO,
	nxio = ENXIO,
	again = EAGAIN,
	nomem = ENOMEM,
	fault = EFAULT,
	busy = EBUSY,
	exist = EEXIST,
	inval = EINVAL,
	nospc = ENOSPC,
	opnotsupp = EOPNOTSUPP,
	timedout = ETIMEDOUT,
	hwpoison = EHWPOISON,
};

template <class T = void> class [[nodiscard]] Result
{
public:
	Result(T value) : ok_(true), value_(std::move(value)) {}
	Result(Errno error) : ok_(false), error_(error) {}
	Result(Result &&other) : ok_(other.ok_)
	{
		if (ok_)
			new (&value_) T(std::move(other.value_));
		else
			error_ = other.error_;
	}
	~Result()
	{
		if (ok_)
			value_.~T();
	}
	Result &operator=(Result &&other)
	{
		if (this != &other) {
			this->~Result();
			new (this) Result(std::move(other));
		}
		return *this;
	}

	explicit operator bool() const { return ok_; }
	T &operator*() { return value_; }
	T *operator->() { return &value_; }
	Errno error() const { return error_; }

private:
	bool ok_;
	union {
		T value_;
		Errno error_;
	};
};

/* What a register holds comes back in one. */
template <class T>
requires std::is_trivially_copyable_v<T>
class [[nodiscard]] Result<T>
{
public:
	constexpr Result(T value) : ok_(true), value_(value) {}
	constexpr Result(Errno error) : ok_(false), error_(error) {}

	constexpr explicit operator bool() const { return ok_; }
	constexpr T &operator*() { return value_; }
	constexpr T *operator->() { return &value_; }
	constexpr Errno error() const { return error_; }

private:
	bool ok_;
	union {
		T value_;
		Errno error_;
	};
};

template <> class [[nodiscard]] Result<void>
{
public:
	constexpr Result() = default;
	constexpr Result(Errno error) : error_(static_cast<int>(error)) {}

	constexpr explicit operator bool() const { return error_ == 0; }
	constexpr Errno error() const { return static_cast<Errno>(error_); }

private:
	int error_ = 0;
};

/*
 * The border to C: an errno as the kernel passes it, 0 or negative. And back: a glue function's
 * return value as a Result.
 */
constexpr int to_errno(const Result<> &result)
{
	return result ? 0 : -static_cast<int>(result.error());
}

constexpr Result<> from_errno(long value)
{
	return value < 0 ? Result<>(static_cast<Errno>(-value)) : Result<>();
}

} // namespace kvmpp
