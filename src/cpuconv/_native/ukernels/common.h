/* What every micro-kernel file begins with. */
#ifndef CPUCONV_COMMON_H
#define CPUCONV_COMMON_H
#include "conv.h"
#include "../pool.h"
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* `prefix` and the ISA, which the stub defines */
#define PASTED(a, b) a##b
#define PASTE(a, b) PASTED(a, b)
#define NAME(prefix) PASTE(prefix, ISA)

#define INLINE static inline __attribute__((always_inline))
/* Short of integer registers, gcc's usual tuning parks integers in vector registers, where they wait behind all multiply-adds. */
#if defined(__x86_64__) && !defined(__clang__)
#define IN_MEMORY __attribute__((target("tune=icelake-server")))
#else
#define IN_MEMORY
#endif
#define UNROLL _Pragma("GCC unroll 64")
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
/* The vector word for ?:, which C (unlike C++) lacks. */
#define SELECT(mask_type, mask, a, b) ((__typeof__(b))(((mask_type)(a) & (mask)) | ((mask_type)(b) & ~(mask))))
/* What a micro-kernel does for each row of A and vector of B. */
#define MULTIPLY_ADD(acc, s, b) ((acc) + (s) * (b))
enum {
    OUT_OF_MEMORY = 1,
    PIXEL_BLOCK = 192, /* pixels whose offsets are made, and whose rows are multiplied, at a time */
    PLANE_TASK = 4096, /* outputs of a task of planes, at least */
    LINE_BYTES = 64,   /* of cache */
    FAR = 1 << 20,     /* bytes of a weight that does not stay in L2 */
    IN_L1 = 24 << 10,  /* bytes that stay in L1 beside what streams through it */
    PIXELS_AHEAD = 12 << 10, /* bytes from the pixels of a product to those that are prefetched */
    MR_MAX = 12,       /* rows of A that a micro-kernel multiplies, at most */
    SHORT_SUM = 64,    /* steps, beside which a call counts */
};

/* Where pixels that a block reads may lie outside the image: nowhere, among its first and last kw / 2, or anywhere. */
enum { NO_EDGE, AT_ENDS, ANYWHERE };

/* What is prefetched with each pixel that a depthwise block reads in NHWC. */
enum { NO_FETCH, NEXT_BLOCK, NEXT_LINE };

/* A run of the summation: `length` elements of each row of A from offset a on, a step apart, against rows b, b+1, ... of B. */
typedef struct {
    long a, b, length;
} segment;

#include "geometry.h"
#endif
