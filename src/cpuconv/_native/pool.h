/* The one pool of threads, and a scratch arena for each of them. */
#ifndef CPUCONV_POOL_H
#define CPUCONV_POOL_H
#include <stddef.h>

/* Runs one task; returns 0, or non-zero to make pool_run stop early and return that value. */
typedef int (*pool_task)(void *context, long index);

/* Calls task(context, i) for i in [0, tasks) on up to `threads` threads, the caller among them. If another caller holds
   the pool, this one does its tasks alone. Returns the first non-zero value a task returned, else 0. */
int pool_run(pool_task task, void *context, long tasks, int threads);

/* Scratch of at least `bytes` bytes, 64-byte aligned, owned by the calling thread and valid until its next call with a
   larger size. NULL where memory is short. */
void *pool_arena(size_t bytes);
#endif
