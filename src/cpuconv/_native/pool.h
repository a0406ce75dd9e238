/* The one pool of threads, and a scratch arena for each of them. */
#ifndef CPUCONV_POOL_H
#define CPUCONV_POOL_H
#include <stddef.h>

/* Runs one task; returns 0, or non-zero to make pool_run stop early and return that value. */
typedef int (*pool_task)(void *context, long index);

/* Calls task(context, i) for i in [0, tasks) on up to `threads` threads, the caller among them. If another caller holds
   the pool, this one does its tasks alone. Returns the first non-zero value a task returned, else 0. */
int pool_run(pool_task task, void *context, long tasks, int threads);

/* Whether short work is worth sharing: the workers are awake, or the last call ended so lately that they still would be had it woken them. */
int pool_awake(void);

/* Scratch of at least `bytes` bytes, 64-byte aligned, owned by the calling thread and valid until its next call for the
   same slot. NULL where memory is short. Tasks use slot TASK_ARENA; a caller of pool_run may keep data that its tasks share in
   CALL_ARENA; a task that itself runs convolutions keeps its data in BAND_ARENA. */
enum { TASK_ARENA, CALL_ARENA, BAND_ARENA, ARENAS };
void *pool_arena(int slot, size_t bytes);
#endif
