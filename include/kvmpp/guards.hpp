/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Contexts and locks as types. A function that must not be interrupted takes `const IrqOff &`: the
 * only way to have one is to have switched interrupts off, or to be where Linux has done so.
 */
#pragma once

#include "include/kvmpp/annotations.hpp"
#include "include/kvmpp/result.hpp"
#include "include/kvmpp/types.hpp"

#include <linux_glue/cpu.h>
#include <linux_glue/lock.h>

namespace kvmpp
{

/* The thread stays on this CPU. */
class PreemptOff
{
public:
	PreemptOff() { glue_preempt_disable(); }
	~PreemptOff() { glue_preempt_enable(); }
	PreemptOff(const PreemptOff &) = delete;
	PreemptOff &operator=(const PreemptOff &) = delete;

	CpuId cpu() const { return {glue_this_cpu()}; }
};

/* Neither another thread nor an interrupt nor an IPI comes in between on this CPU; an NMI may. */
class IrqOff
{
public:
	IrqOff() : flags_(glue_irq_save()) {}
	~IrqOff() { glue_irq_restore(flags_); }
	IrqOff(const IrqOff &) = delete;
	IrqOff &operator=(const IrqOff &) = delete;

	CpuId cpu() const { return {glue_this_cpu()}; }

private:
	glue_u64 flags_;
};

/* No CPU comes or goes. May sleep to get there. */
class CpusReadLock
{
public:
	CpusReadLock() { glue_cpus_read_lock(); }
	~CpusReadLock() { glue_cpus_read_unlock(); }
	CpusReadLock(const CpusReadLock &) = delete;
	CpusReadLock &operator=(const CpusReadLock &) = delete;
};

class CAPABILITY("mutex") Mutex
{
public:
	constexpr Mutex() = default;
	Mutex(const Mutex &) = delete;
	Mutex &operator=(const Mutex &) = delete;

	/* Once, before the first use: lockdep wants its class at run time. */
	void init(glue_lock_class lock_class) { glue_mutex_init(&mutex_, lock_class); }
	void lock() ACQUIRE() { glue_mutex_lock(&mutex_); }
	/* False when a fatal signal came first. */
	[[nodiscard]] bool lock_killable() TRY_ACQUIRE(true)
	{
		return glue_mutex_lock_killable(&mutex_) == 0;
	}
	void unlock() RELEASE() { glue_mutex_unlock(&mutex_); }

private:
	glue_mutex mutex_{};
};

class CAPABILITY("spinlock") SpinLock
{
public:
	constexpr SpinLock() = default;
	SpinLock(const SpinLock &) = delete;
	SpinLock &operator=(const SpinLock &) = delete;

	void init(glue_lock_class lock_class) { glue_spin_init(&lock_, lock_class); }
	void lock() ACQUIRE() { glue_spin_lock(&lock_); }
	void unlock() RELEASE() { glue_spin_unlock(&lock_); }

private:
	glue_spinlock lock_{};
};

template <class Lock> class SCOPED_CAPABILITY Locked
{
public:
	explicit Locked(Lock &lock) ACQUIRE(lock) : lock_(lock) { lock_.lock(); }
	~Locked() RELEASE() { lock_.unlock(); }
	Locked(const Locked &) = delete;
	Locked &operator=(const Locked &) = delete;

private:
	Lock &lock_;
};

class Srcu
{
public:
	constexpr Srcu() = default;
	Srcu(const Srcu &) = delete;
	Srcu &operator=(const Srcu &) = delete;

	Result<> init() { return from_errno(glue_srcu_init(&srcu_)); }
	void cleanup() { glue_srcu_cleanup(&srcu_); }
	void synchronize() { glue_srcu_synchronize(&srcu_); }

private:
	friend class SrcuRead;
	glue_srcu srcu_{};
};

class SrcuRead
{
public:
	explicit SrcuRead(Srcu &srcu) : srcu_(srcu), index_(glue_srcu_read_lock(&srcu.srcu_)) {}
	~SrcuRead() { glue_srcu_read_unlock(&srcu_.srcu_, index_); }
	SrcuRead(const SrcuRead &) = delete;
	SrcuRead &operator=(const SrcuRead &) = delete;

private:
	Srcu &srcu_;
	int index_;
};

/* What an RcuRead holds. There is one RCU in Linux. */
class CAPABILITY("RCU") Rcu
{
};
inline constinit Rcu rcu;

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
