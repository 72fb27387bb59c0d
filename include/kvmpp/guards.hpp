/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Contexts and locks as types: an object is the time spent in one.
 *
 * A function that needs a context takes its guard, `const IrqOff &` or `const OnCpu &`: nobody can
 * call it who is not there, whatever compiler it is. It also says REQUIRES(irqs_off), which the
 * guard's use insists on, so that clang knows the context inside: only thus can it refuse there what
 * MAY_SLEEP or WAITS_FOR_IPIS, which no parameter can say.
 */
#pragma once

#include "include/kvmpp/annotations.hpp"
#include "include/kvmpp/contexts.hpp"
#include "include/kvmpp/result.hpp"
#include "include/kvmpp/types.hpp"

#include <linux_glue/cpu.h>
#include <linux_glue/lock.h>

namespace kvmpp
{

/* The thread stays on this CPU, for whichever of the two reasons below. */
class OnCpu
{
public:
	OnCpu(const OnCpu &) = delete;
	OnCpu &operator=(const OnCpu &) = delete;

	CpuId cpu() const { return {glue_this_cpu()}; }

private:
	friend class PreemptOff;
	friend class IrqOff;
	OnCpu() = default;
	~OnCpu() = default;
};

class SCOPED_CAPABILITY PreemptOff : public OnCpu
{
public:
	PreemptOff() ACQUIRE(preempt_off) { glue_preempt_disable(); }
	~PreemptOff() RELEASE() { glue_preempt_enable(); }
};

class SCOPED_CAPABILITY IrqOff : public OnCpu
{
public:
	IrqOff() ACQUIRE(irqs_off) : flags_(glue_irq_save()), cpu_(OnCpu::cpu()) {}
	~IrqOff() RELEASE() { glue_irq_restore(flags_); }

	CpuId cpu() const REQUIRES(irqs_off) { return cpu_; }

private:
	glue_u64 flags_;
	CpuId cpu_;
};

/* cpus_read_lock(). May sleep to get there. */
class SCOPED_CAPABILITY CpusReadLock
{
public:
	CpusReadLock() ACQUIRE(cpus_stay) MAY_SLEEP { glue_cpus_read_lock(); }
	~CpusReadLock() RELEASE() { glue_cpus_read_unlock(); }
	CpusReadLock(const CpusReadLock &) = delete;
	CpusReadLock &operator=(const CpusReadLock &) = delete;
};

/* A set of CPUs. */
class CpuMask
{
public:
	constexpr CpuMask() = default;
	~CpuMask()
	{
		if (mask_)
			glue_cpumask_free(mask_);
	}
	CpuMask(const CpuMask &) = delete;
	CpuMask &operator=(const CpuMask &) = delete;

	/* Errno::nomem. May sleep. */
	Result<> create()
	{
		mask_ = glue_cpumask_alloc();
		return mask_ ? Result<>() : Errno::nomem;
	}
	void clear() { glue_cpumask_clear(mask_); }
	void add(CpuId cpu) { glue_cpumask_set(mask_, cpu.value); }
	glue_cpumask *mask() const { return mask_; }

private:
	glue_cpumask *mask_ = nullptr;
};

class CAPABILITY("mutex") Mutex
{
public:
	constexpr Mutex() = default;
	Mutex(const Mutex &) = delete;
	Mutex &operator=(const Mutex &) = delete;

	/* Once, before the first use: lockdep wants its class at run time. */
	void init(glue_lock_class lock_class) { glue_mutex_init(&mutex_, lock_class); }
	void lock() ACQUIRE() MAY_SLEEP { glue_mutex_lock(&mutex_); }
	/* False when a fatal signal came first. */
	[[nodiscard]] bool lock_killable() TRY_ACQUIRE(true) MAY_SLEEP
	{
		return glue_mutex_lock_killable(&mutex_) == 0;
	}
	void unlock() RELEASE() { glue_mutex_unlock(&mutex_); }

private:
	glue_mutex mutex_{};
};

/* Never with interrupts off, where the IPI of a holder that flushes TLBs could not come in. */
class CAPABILITY("spinlock") SpinLock
{
public:
	constexpr SpinLock() = default;
	SpinLock(const SpinLock &) = delete;
	SpinLock &operator=(const SpinLock &) = delete;

	void init(glue_lock_class lock_class) { glue_spin_init(&lock_, lock_class); }
	void lock() ACQUIRE() EXCLUDES(irqs_off) { glue_spin_lock(&lock_); }
	void unlock() RELEASE() { glue_spin_unlock(&lock_); }

private:
	glue_spinlock lock_{};
};

/* One that interrupts take too: held with interrupts off, and taken anywhere but in NMIs. */
class CAPABILITY("spinlock") IrqSpinLock
{
public:
	constexpr IrqSpinLock() = default;
	IrqSpinLock(const IrqSpinLock &) = delete;
	IrqSpinLock &operator=(const IrqSpinLock &) = delete;

	void init(glue_lock_class lock_class) { glue_spin_init(&lock_, lock_class); }

private:
	template <class Lock> friend class Locked;
	glue_spinlock lock_{};
};

/* The same for many who read, or one who writes. */
class CAPABILITY("rwlock") RwLock
{
public:
	constexpr RwLock() = default;
	RwLock(const RwLock &) = delete;
	RwLock &operator=(const RwLock &) = delete;

	void init(glue_lock_class lock_class) { glue_rwlock_init(&lock_, lock_class); }
	void lock() ACQUIRE() EXCLUDES(irqs_off) { glue_write_lock(&lock_); }
	void unlock() RELEASE() { glue_write_unlock(&lock_); }
	void lock_to_read() ACQUIRE_SHARED() EXCLUDES(irqs_off) { glue_read_lock(&lock_); }
	void unlock_to_read() RELEASE_SHARED() { glue_read_unlock(&lock_); }

private:
	glue_rwlock lock_{};
};

/* Locked locked(lock): held until the end of the scope. */
template <class Lock> class Locked;

template <> class SCOPED_CAPABILITY Locked<Mutex>
{
public:
	explicit Locked(Mutex &lock) ACQUIRE(lock) MAY_SLEEP : lock_(lock) { lock_.lock(); }
	~Locked() RELEASE() { lock_.unlock(); }
	Locked(const Locked &) = delete;
	Locked &operator=(const Locked &) = delete;

private:
	Mutex &lock_;
};

template <> class SCOPED_CAPABILITY Locked<SpinLock>
{
public:
	explicit Locked(SpinLock &lock) ACQUIRE(lock, preempt_off) EXCLUDES(irqs_off) : lock_(lock)
	{
		lock_.lock();
	}
	~Locked() RELEASE() { lock_.unlock(); }
	Locked(const Locked &) = delete;
	Locked &operator=(const Locked &) = delete;

private:
	SpinLock &lock_;
};

template <> class SCOPED_CAPABILITY Locked<IrqSpinLock>
{
public:
	explicit Locked(IrqSpinLock &lock) ACQUIRE(lock, irqs_off)
		: lock_(lock), flags_(glue_spin_lock_irqsave(&lock.lock_))
	{
	}
	~Locked() RELEASE() { glue_spin_unlock_irqrestore(&lock_.lock_, flags_); }
	Locked(const Locked &) = delete;
	Locked &operator=(const Locked &) = delete;

private:
	IrqSpinLock &lock_;
	glue_u64 flags_;
};

/* By the one who writes. */
template <> class SCOPED_CAPABILITY Locked<RwLock>
{
public:
	explicit Locked(RwLock &lock) ACQUIRE(lock, preempt_off) EXCLUDES(irqs_off) : lock_(lock)
	{
		lock_.lock();
	}
	~Locked() RELEASE() { lock_.unlock(); }
	Locked(const Locked &) = delete;
	Locked &operator=(const Locked &) = delete;

private:
	RwLock &lock_;
};

Locked(Mutex &)->Locked<Mutex>;
Locked(SpinLock &)->Locked<SpinLock>;
Locked(IrqSpinLock &)->Locked<IrqSpinLock>;
Locked(RwLock &)->Locked<RwLock>;

/* ReadLocked locked(lock): held by one of many. */
class SCOPED_CAPABILITY ReadLocked
{
public:
	explicit ReadLocked(RwLock &lock) ACQUIRE_SHARED(lock) ACQUIRE(preempt_off)
		EXCLUDES(irqs_off)
		: lock_(lock)
	{
		lock_.lock_to_read();
	}
	~ReadLocked() RELEASE() { lock_.unlock_to_read(); }
	ReadLocked(const ReadLocked &) = delete;
	ReadLocked &operator=(const ReadLocked &) = delete;

private:
	RwLock &lock_;
};

class CAPABILITY("srcu") Srcu
{
public:
	constexpr Srcu() = default;
	Srcu(const Srcu &) = delete;
	Srcu &operator=(const Srcu &) = delete;

	Result<> init() { return from_errno(glue_srcu_init(&srcu_)); }
	void cleanup() { glue_srcu_cleanup(&srcu_); }
	/* Until every reader is gone that may have seen the state before: the caller must be none. */
	void synchronize() EXCLUDES(this) MAY_SLEEP { glue_srcu_synchronize(&srcu_); }

private:
	friend class SrcuRead;
	glue_srcu srcu_{};
};

class SCOPED_CAPABILITY SrcuRead
{
public:
	explicit SrcuRead(Srcu &srcu) ACQUIRE_SHARED(srcu)
		: srcu_(srcu), index_(glue_srcu_read_lock(&srcu.srcu_))
	{
	}
	~SrcuRead() RELEASE() { glue_srcu_read_unlock(&srcu_.srcu_, index_); }
	SrcuRead(const SrcuRead &) = delete;
	SrcuRead &operator=(const SrcuRead &) = delete;

private:
	Srcu &srcu_;
	int index_;
};

/*
 * What was found in here stays in memory until the end. Preemption may happen, sleeping must not;
 * whoever takes things away does not wait.
 */
class SCOPED_CAPABILITY RcuRead
{
public:
	RcuRead() ACQUIRE_SHARED(rcu) { glue_rcu_read_lock(); }
	~RcuRead() RELEASE() { glue_rcu_read_unlock(); }
	RcuRead(const RcuRead &) = delete;
	RcuRead &operator=(const RcuRead &) = delete;
};

} // namespace kvmpp
