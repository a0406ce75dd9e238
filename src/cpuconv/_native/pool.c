/* Why not OpenMP: libgomp hangs in a forked child, spins for milliseconds after each region, and starts one team for every
   Python thread that calls; this pool survives fork (workers are started anew), sleeps after about 50 us, and is shared. */
#define _GNU_SOURCE
#include "pool.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_WORKERS = 255, SPIN_NS = 50000, SHORT_NS = 8000, ALIGNMENT = 64 };

static pthread_mutex_t owner = PTHREAD_MUTEX_INITIALIZER; /* held by the caller whose region runs */
static pthread_mutex_t sleep_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

/* What a worker reads when it starts is in one cache line. */
static struct {
    _Alignas(ALIGNMENT) atomic_uint generation; /* counts regions; idle workers wait for it to change */
    atomic_int open;                            /* 1 while a worker may join */
    atomic_int inside;                          /* workers that joined or look whether they may */
    int threads;                                /* the caller, and workers with a lower index than their number. From here on */
    pool_task task;                             /* written only while the region is not open and no worker is inside */
    void *context;
} region;

/* Tasks that one thread does from the first on, while others that have done theirs take the last ones. Calls that follow each other on the same
   arrays find them in the same core's cache: with one queue for all, half of them were in the other's. */
static struct {
    _Alignas(ALIGNMENT) atomic_long left;
    atomic_int begun; /* its owner is at work */
    long total, first; /* first: the owner's alone */
    atomic_long last;  /* one past it */
} shares[MAX_WORKERS + 1];

static _Alignas(ALIGNMENT) atomic_int failure;
static atomic_int workers; /* started so far; changed by the owner only */
static atomic_int asleep;
static _Atomic int64_t used; /* when a call last ended */

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

/* Takes a task of a share that has more than `kept`. */
static int claim(atomic_long *left, long kept) {
    for (long n = atomic_load(left); n > kept;)
        if (atomic_compare_exchange_weak(left, &n, n - 1)) return 1;
    return 0;
}

static int attempt(pool_task task, void *context, long index) {
    const int status = task(context, index);
    if (status) atomic_store(&failure, status);
    return !status && !atomic_load(&failure);
}

/* What thread `self` does: its own share, then what is left of others'; but the last short task of a thread that is at work is sooner done by it than
   here, where the cache has none of its data. */
static void drain(pool_task task, void *context, int threads, int self) {
    const int64_t start = now_ns();
    atomic_store_explicit(&shares[self].begun, 1, memory_order_relaxed);
    while (claim(&shares[self].left, 0))
        if (!attempt(task, context, shares[self].first++)) return;
    const int brief = now_ns() - start < SHORT_NS * shares[self].total;
    for (int k = 1; k < threads; k++) {
        const int other = (self + k) % threads;
        while (claim(&shares[other].left, brief && atomic_load(&shares[other].begun)))
            if (!attempt(task, context, atomic_fetch_sub(&shares[other].last, 1) - 1)) return;
    }
}

static unsigned await_region(unsigned seen) {
    int64_t end = now_ns() + SPIN_NS;
    for (unsigned spins = 1;; spins++) {
        unsigned g = atomic_load_explicit(&region.generation, memory_order_acquire);
        if (g != seen) return g;
        relax();
        if (spins % 64 == 0 && now_ns() > end) break;
    }
    pthread_mutex_lock(&sleep_lock);
    atomic_fetch_add(&asleep, 1);
    while (atomic_load(&region.generation) == seen) pthread_cond_wait(&wake, &sleep_lock);
    atomic_fetch_sub(&asleep, 1);
    pthread_mutex_unlock(&sleep_lock);
    return atomic_load(&region.generation);
}

/* A worker that wakes late finds the region closed and is not waited for. */
static void join_region(int index) {
    __builtin_prefetch(&shares[index + 1], 1);
    atomic_fetch_add(&region.inside, 1);
    if (atomic_load(&region.open) && index + 1 < region.threads) drain(region.task, region.context, region.threads, index + 1);
    atomic_fetch_sub(&region.inside, 1);
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
    atomic_store(&workers, 0);
    atomic_store(&asleep, 0);
    atomic_store(&region.open, 0);
    atomic_store(&region.inside, 0);
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
    for (int index = atomic_load(&workers); index < count; index++) {
        struct worker_start *start = malloc(sizeof *start);
        pthread_t thread;
        if (!start) break;
        *start = (struct worker_start){index, atomic_load(&region.generation)};
        if (pthread_create(&thread, &attributes, worker, start)) {
            free(start);
            break;
        }
        atomic_fetch_add(&workers, 1);
    }
    pthread_attr_destroy(&attributes);
}

static int run_alone(pool_task task, void *context, long tasks) {
    int status = 0;
    for (long i = 0; i < tasks && !status; i++) status = task(context, i);
    return status;
}

static int run_shared(pool_task task, void *context, long tasks, int threads) {
    start_workers(threads - 1);
    region.task = task;
    region.context = context;
    region.threads = threads;
    for (int t = 0; t < threads; t++) {
        const long first = tasks * t / threads, last = tasks * (t + 1) / threads;
        shares[t].first = first;
        shares[t].total = last - first;
        atomic_store_explicit(&shares[t].last, last, memory_order_relaxed);
        atomic_store_explicit(&shares[t].left, last - first, memory_order_relaxed);
        atomic_store_explicit(&shares[t].begun, 0, memory_order_relaxed);
    }
    atomic_store_explicit(&failure, 0, memory_order_relaxed);
    atomic_store(&region.open, 1);
    atomic_fetch_add(&region.generation, 1);
    if (atomic_load(&asleep)) {
        pthread_mutex_lock(&sleep_lock);
        pthread_cond_broadcast(&wake);
        pthread_mutex_unlock(&sleep_lock);
    }
    drain(task, context, threads, 0);
    atomic_store(&region.open, 0);
    while (atomic_load(&region.inside) > 0) relax();
    return atomic_load(&failure);
}

int pool_run(pool_task task, void *context, long tasks, int threads) {
    if (threads > MAX_WORKERS + 1) threads = MAX_WORKERS + 1;
    if (threads > tasks) threads = (int)tasks;
    const int shared = threads > 1 && !pthread_mutex_trylock(&owner);
    const int status = shared ? run_shared(task, context, tasks, threads) : run_alone(task, context, tasks);
    if (shared) pthread_mutex_unlock(&owner);
    atomic_store(&used, now_ns()); /* locked: whoever sees what comes later sees the results, too, those that went past the caches (STREAM of vec.h) */
    return status;
}

int pool_awake(void) {
    return (atomic_load(&workers) && !atomic_load(&asleep)) || now_ns() - atomic_load_explicit(&used, memory_order_relaxed) < SPIN_NS;
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
