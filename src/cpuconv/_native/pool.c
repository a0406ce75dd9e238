/* Why not OpenMP: libgomp hangs in a forked child, spins for milliseconds after each region, and starts one team for every
   Python thread that calls; this pool survives fork (workers are started anew), sleeps after about 50 us, and is shared. */
#define _GNU_SOURCE
#include "pool.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_WORKERS = 255, SPIN_NS = 50000, ALIGNMENT = 64 };

static pthread_mutex_t owner = PTHREAD_MUTEX_INITIALIZER; /* held by the caller whose region runs */
static pthread_mutex_t sleep_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static int workers; /* started so far; changed by the owner only */

static struct {
    pool_task task;
    void *context;
    long tasks;
    int helpers; /* workers with a lower index take part */
} region;        /* written only while no region is open and no worker is inside */
static atomic_long next_task;
static atomic_int failure;
static atomic_uint generation; /* counts regions; idle workers wait for it to change */
static atomic_int open_region; /* 1 while a worker may join */
static atomic_int inside;      /* workers that joined or look whether they may */

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void drain(pool_task task, void *context, long tasks) {
    long i;
    while ((i = atomic_fetch_add(&next_task, 1)) < tasks) {
        int status = task(context, i);
        if (status) {
            atomic_store(&failure, status);
            atomic_store(&next_task, tasks);
        }
    }
}

static unsigned await_region(unsigned seen) {
    int64_t end = now_ns() + SPIN_NS;
    for (unsigned spins = 1;; spins++) {
        unsigned g = atomic_load_explicit(&generation, memory_order_acquire);
        if (g != seen) return g;
        relax();
        if (spins % 64 == 0 && now_ns() > end) break;
    }
    pthread_mutex_lock(&sleep_lock);
    while (atomic_load(&generation) == seen) pthread_cond_wait(&wake, &sleep_lock);
    pthread_mutex_unlock(&sleep_lock);
    return atomic_load(&generation);
}

/* A worker that wakes late finds the region closed and is not waited for. */
static void join_region(int index) {
    atomic_fetch_add(&inside, 1);
    if (atomic_load(&open_region) && index < region.helpers) drain(region.task, region.context, region.tasks);
    atomic_fetch_sub(&inside, 1);
}

struct worker_start {
    int index;
    unsigned seen;
};

static void *worker(void *p) {
    struct worker_start start = *(struct worker_start *)p;
    free(p);
    for (unsigned seen = start.seen;;) {
        seen = await_region(seen);
        join_region(start.index);
    }
    return NULL;
}

/* After fork only the caller exists in the child: forget the workers and the locks that they may have held. */
static void forget_workers(void) {
    workers = 0;
    atomic_store(&open_region, 0);
    atomic_store(&inside, 0);
    pthread_mutex_init(&owner, NULL);
    pthread_mutex_init(&sleep_lock, NULL);
    pthread_cond_init(&wake, NULL);
}

static void register_fork_handler(void) { pthread_atfork(NULL, NULL, forget_workers); }

static void start_workers(int count) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork_handler);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (workers < count) {
        struct worker_start *start = malloc(sizeof *start);
        pthread_t thread;
        if (!start) break;
        *start = (struct worker_start){workers, atomic_load(&generation)};
        if (pthread_create(&thread, &attributes, worker, start)) {
            free(start);
            break;
        }
        workers++;
    }
    pthread_attr_destroy(&attributes);
}

int pool_run(pool_task task, void *context, long tasks, int threads) {
    if (threads > MAX_WORKERS + 1) threads = MAX_WORKERS + 1;
    if (threads > tasks) threads = (int)tasks;
    if (threads <= 1 || pthread_mutex_trylock(&owner)) {
        for (long i = 0; i < tasks; i++) {
            int status = task(context, i);
            if (status) return status;
        }
        return 0;
    }
    start_workers(threads - 1);
    region.task = task;
    region.context = context;
    region.tasks = tasks;
    region.helpers = threads - 1;
    atomic_store(&next_task, 0);
    atomic_store(&failure, 0);
    atomic_store(&open_region, 1);
    pthread_mutex_lock(&sleep_lock);
    atomic_fetch_add(&generation, 1);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&sleep_lock);
    drain(task, context, tasks);
    atomic_store(&open_region, 0);
    while (atomic_load(&inside) > 0) relax();
    int status = atomic_load(&failure);
    pthread_mutex_unlock(&owner);
    return status;
}

struct arena {
    size_t size;
    void *memory;
};
static pthread_key_t arena_key;
static pthread_once_t arena_once = PTHREAD_ONCE_INIT;

static void free_arenas(void *p) {
    struct arena *arenas = p;
    for (int i = 0; i < ARENAS; i++) free(arenas[i].memory);
    free(arenas);
}
static void make_arena_key(void) { pthread_key_create(&arena_key, free_arenas); }

void *pool_arena(int slot, size_t bytes) {
    pthread_once(&arena_once, make_arena_key);
    struct arena *arena = pthread_getspecific(arena_key);
    if (!arena) {
        arena = calloc(ARENAS, sizeof *arena);
        if (!arena) return NULL;
        if (pthread_setspecific(arena_key, arena)) {
            free(arena);
            return NULL;
        }
    }
    arena += slot;
    if (arena->size < bytes) {
        bytes = (bytes + 4095) / 4096 * 4096;
        free(arena->memory);
        arena->memory = aligned_alloc(ALIGNMENT, bytes);
        arena->size = arena->memory ? bytes : 0;
    }
    return arena->memory;
}
