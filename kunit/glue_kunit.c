// SPDX-License-Identifier: GPL-2.0
/* The glue that C++ stands on: opaque storage is large enough, and what is in it is Linux's own. */
#include <kunit/test.h>
#include <linux/gfp.h>
#include <linux/cpumask.h>
#include <linux/lockdep.h>
#include <linux/mutex.h>
#include <linux/pgtable.h>
#include <linux/preempt.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/string.h>

#include <linux_glue/alloc.h>
#include <linux_glue/cpu.h>
#include <linux_glue/dedicated.h>
#include <linux_glue/lock.h>

#include "cases.h"

static struct mutex *mutex_in(struct glue_mutex *mutex)
{
	return (struct mutex *)mutex->opaque;
}

static spinlock_t *spinlock_in(struct glue_spinlock *lock)
{
	return (spinlock_t *)lock->opaque;
}

static void storage_is_large_enough(struct kunit *test)
{
	KUNIT_EXPECT_LE(test, sizeof(struct mutex), sizeof(struct glue_mutex));
	KUNIT_EXPECT_LE(test, sizeof(spinlock_t), sizeof(struct glue_spinlock));
	KUNIT_EXPECT_LE(test, sizeof(rwlock_t), sizeof(struct glue_rwlock));
	KUNIT_EXPECT_LE(test, sizeof(struct srcu_struct), sizeof(struct glue_srcu));
	KUNIT_EXPECT_LE(test, sizeof(struct rcu_head),
			sizeof_field(struct glue_rcu_head, opaque));
	KUNIT_EXPECT_LE(test, __alignof__(struct mutex), __alignof__(struct glue_mutex));
	KUNIT_EXPECT_LE(test, __alignof__(spinlock_t), __alignof__(struct glue_spinlock));
	KUNIT_EXPECT_LE(test, __alignof__(struct srcu_struct), __alignof__(struct glue_srcu));
}

static void mutex_is_a_mutex(struct kunit *test)
{
	static struct glue_mutex mutex;

	glue_mutex_init(&mutex, GLUE_LOCK_VM);
	KUNIT_EXPECT_FALSE(test, mutex_is_locked(mutex_in(&mutex)));
	glue_mutex_lock(&mutex);
	KUNIT_EXPECT_TRUE(test, mutex_is_locked(mutex_in(&mutex)));
	KUNIT_EXPECT_EQ(test, mutex_trylock(mutex_in(&mutex)), 0);
	glue_mutex_unlock(&mutex);
	KUNIT_EXPECT_FALSE(test, mutex_is_locked(mutex_in(&mutex)));
	KUNIT_EXPECT_EQ(test, glue_mutex_lock_killable(&mutex), 0);
	KUNIT_EXPECT_TRUE(test, mutex_is_locked(mutex_in(&mutex)));
	glue_mutex_unlock(&mutex);
}

static void spinlock_is_a_spinlock(struct kunit *test)
{
	static struct glue_spinlock lock;
	int before = preempt_count();

	glue_spin_init(&lock, GLUE_LOCK_MMU);
	glue_spin_lock(&lock);
	KUNIT_EXPECT_TRUE(test, spin_is_locked(spinlock_in(&lock)));
	KUNIT_EXPECT_NE(test, preempt_count(), before);
	glue_spin_unlock(&lock);
	KUNIT_EXPECT_FALSE(test, spin_is_locked(spinlock_in(&lock)));
	KUNIT_EXPECT_EQ(test, preempt_count(), before);
}

static void rwlock_is_an_rwlock(struct kunit *test)
{
	static struct glue_rwlock lock;
	int before = preempt_count();

	glue_rwlock_init(&lock, GLUE_LOCK_MMU);
	glue_read_lock(&lock);
	/* Not glue_read_lock(), which may wait for a writer who waits for us. */
	KUNIT_EXPECT_TRUE(test, read_trylock((rwlock_t *)lock.opaque));
	KUNIT_EXPECT_FALSE(test, write_trylock((rwlock_t *)lock.opaque));
	glue_read_unlock(&lock);
	glue_read_unlock(&lock);
	glue_write_lock(&lock);
	KUNIT_EXPECT_FALSE(test, read_trylock((rwlock_t *)lock.opaque));
	glue_write_unlock(&lock);
	KUNIT_EXPECT_EQ(test, preempt_count(), before);
}

static void lockdep_sees_the_class(struct kunit *test)
{
#ifdef CONFIG_LOCKDEP
	static struct glue_mutex vm, other_vm, vcpu;
	static struct glue_spinlock mmu;

	glue_mutex_init(&vm, GLUE_LOCK_VM);
	glue_mutex_init(&other_vm, GLUE_LOCK_VM);
	glue_mutex_init(&vcpu, GLUE_LOCK_VCPU);
	glue_spin_init(&mmu, GLUE_LOCK_MMU);
	KUNIT_EXPECT_STREQ(test, mutex_in(&vm)->dep_map.name, "kvmpp_vm_lock");
	KUNIT_EXPECT_STREQ(test, mutex_in(&vcpu)->dep_map.name, "kvmpp_vcpu_mutex");
	KUNIT_EXPECT_STREQ(test, spinlock_in(&mmu)->dep_map.name, "kvmpp_mmu_lock");
	KUNIT_EXPECT_PTR_EQ(test, mutex_in(&vm)->dep_map.key, mutex_in(&other_vm)->dep_map.key);
	KUNIT_EXPECT_PTR_NE(test, mutex_in(&vm)->dep_map.key, mutex_in(&vcpu)->dep_map.key);
	glue_mutex_lock(&vm);
	KUNIT_EXPECT_NE(test, lockdep_is_held(mutex_in(&vm)), 0);
	KUNIT_EXPECT_EQ(test, lockdep_is_held(mutex_in(&other_vm)), 0);
	glue_mutex_unlock(&vm);
#else
	kunit_skip(test, "no lockdep in this kernel");
#endif
}

static void srcu_waits_for_its_readers(struct kunit *test)
{
	static struct glue_srcu srcu;
	struct srcu_struct *inside = (struct srcu_struct *)srcu.opaque;
	int index;

	KUNIT_ASSERT_EQ(test, glue_srcu_init(&srcu), 0);
	index = glue_srcu_read_lock(&srcu);
#ifdef CONFIG_DEBUG_LOCK_ALLOC
	KUNIT_EXPECT_NE(test, srcu_read_lock_held(inside), 0);
#endif
	glue_srcu_read_unlock(&srcu, index);
	glue_srcu_synchronize(&srcu);
	(void)inside;
	glue_srcu_cleanup(&srcu);
}

static void irqs_and_preemption(struct kunit *test)
{
	glue_u64 flags = glue_irq_save();

	KUNIT_EXPECT_TRUE(test, irqs_disabled());
	glue_irq_restore(flags);
	KUNIT_EXPECT_FALSE(test, irqs_disabled());
	glue_preempt_disable();
	KUNIT_EXPECT_NE(test, preempt_count(), 0);
	KUNIT_EXPECT_EQ(test, glue_this_cpu(), smp_processor_id());
	glue_preempt_enable();
}

static void note_cpu(void *argument)
{
	cpumask_set_cpu(smp_processor_id(), argument);
	if (!irqs_disabled())
		cpumask_set_cpu(0, (struct cpumask *)argument + 1);
}

static void calls_to_cpus(struct kunit *test)
{
	struct cpumask *seen = kunit_kzalloc(test, 2 * sizeof(*seen), GFP_KERNEL);
	struct glue_cpumask *mask = glue_cpumask_alloc();
	int last = cpumask_last(cpu_online_mask);

	KUNIT_ASSERT_NOT_NULL(test, seen);
	KUNIT_ASSERT_NOT_NULL(test, mask);
	KUNIT_EXPECT_EQ(test, glue_call_on_cpu(last, note_cpu, seen), 0);
	KUNIT_EXPECT_TRUE(test, cpumask_equal(seen, cpumask_of(last)));
	KUNIT_EXPECT_EQ(test, glue_call_on_cpu(glue_nr_cpus(), note_cpu, seen), -ENXIO);
	cpumask_clear(seen);
	glue_call_on_cpumask(mask, note_cpu, seen);
	KUNIT_EXPECT_TRUE(test, cpumask_empty(seen));
	glue_cpumask_set(mask, last);
	glue_call_on_cpumask(mask, note_cpu, seen);
	KUNIT_EXPECT_TRUE(test, cpumask_equal(seen, cpumask_of(last)));
	cpumask_clear(seen);
	glue_call_on_all_cpus(note_cpu, seen);
	KUNIT_EXPECT_TRUE(test, cpumask_equal(seen, cpu_online_mask));
	KUNIT_EXPECT_TRUE_MSG(test, cpumask_empty(seen + 1), "called with interrupts on");
	glue_cpumask_free(mask);
}

static void memory_is_zeroed(struct kunit *test)
{
	u8 *small = glue_zalloc(100), *large = glue_zalloc(3 << 20);
	void *page = glue_page_alloc();

	KUNIT_ASSERT_NOT_NULL(test, small);
	KUNIT_ASSERT_NOT_NULL(test, large);
	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_EXPECT_NULL(test, memchr_inv(small, 0, 100));
	KUNIT_EXPECT_NULL(test, memchr_inv(large, 0, 3 << 20));
	KUNIT_EXPECT_NULL(test, memchr_inv(page, 0, PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, glue_virt_to_phys(page) % PAGE_SIZE, 0);
	KUNIT_EXPECT_PTR_EQ(test, glue_phys_to_virt(glue_virt_to_phys(page)), page);
	glue_page_free(page);
	glue_free(large);
	glue_free(small);
}

/* Tables are not looked for in the memory that is mapped: pages of it that come one by one, and as a whole. */
static void private_map_leaves_memory_alone(struct kunit *test)
{
	u8 *memory = (u8 *)__get_free_pages(GFP_KERNEL | __GFP_ZERO, PMD_SHIFT - PAGE_SHIFT);
	struct glue_private_map *map = glue_private_map_create();

	KUNIT_ASSERT_NOT_NULL(test, memory);
	KUNIT_ASSERT_NOT_NULL(test, map);
	KUNIT_ASSERT_TRUE(test, IS_ALIGNED((unsigned long)memory, PMD_SIZE));
	for (int whole = 0; whole < 2; whole++) {
		KUNIT_EXPECT_EQ(test, glue_private_map_add(map, memory, whole ? PMD_SIZE : 8), 0);
		KUNIT_EXPECT_EQ(test, glue_private_map_add(map, memory + 5 * PAGE_SIZE, 8), 0);
		KUNIT_EXPECT_EQ(test, glue_private_map_add(map, memory + PMD_SIZE - 8, 8), 0);
	}
	glue_private_map_destroy(map);
	map = glue_private_map_create();
	KUNIT_ASSERT_NOT_NULL(test, map);
	KUNIT_EXPECT_EQ(test, glue_private_map_add(map, memory, PMD_SIZE), 0);
	KUNIT_EXPECT_EQ(test, glue_private_map_add(map, memory + 7 * PAGE_SIZE, 8), 0);
	glue_private_map_destroy(map);
	KUNIT_EXPECT_NULL(test, memchr_inv(memory, 0, PMD_SIZE));
	free_pages((unsigned long)memory, PMD_SHIFT - PAGE_SHIFT);
}

DEFINE_TEST_SUITE(GLUE_CASES)
