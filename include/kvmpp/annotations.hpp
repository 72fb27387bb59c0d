/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Clang's thread-safety attributes: what lock or context a function needs and what a lock protects,
 * checked at compile time by clang, ignored by gcc. An attribute can only be hidden behind a macro.
 */
#pragma once

#if defined(__clang__)
#define KVMPP_TSA(x) __attribute__((x))
#else
#define KVMPP_TSA(x)
#endif

#define CAPABILITY(name)          KVMPP_TSA(capability(name))
#define SCOPED_CAPABILITY         KVMPP_TSA(scoped_lockable)
#define GUARDED_BY(lock)          KVMPP_TSA(guarded_by(lock))
#define ACQUIRE(...)              KVMPP_TSA(acquire_capability(__VA_ARGS__))
#define ACQUIRE_SHARED(...)       KVMPP_TSA(acquire_shared_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...)          KVMPP_TSA(try_acquire_capability(__VA_ARGS__))
#define RELEASE(...)              KVMPP_TSA(release_capability(__VA_ARGS__))
#define RELEASE_SHARED(...)       KVMPP_TSA(release_shared_capability(__VA_ARGS__))
#define REQUIRES(...)             KVMPP_TSA(requires_capability(__VA_ARGS__))
#define REQUIRES_SHARED(...)      KVMPP_TSA(requires_shared_capability(__VA_ARGS__))
#define EXCLUDES(...)             KVMPP_TSA(locks_excluded(__VA_ARGS__))
#define ACQUIRED_BEFORE(...)      KVMPP_TSA(acquired_before(__VA_ARGS__))
#define ACQUIRED_AFTER(...)       KVMPP_TSA(acquired_after(__VA_ARGS__))
#define RETURN_CAPABILITY(lock)   KVMPP_TSA(lock_returned(lock))
#define NO_THREAD_SAFETY_ANALYSIS KVMPP_TSA(no_thread_safety_analysis)
