/* Every micro-kernel and driver, for both types: compiled once per ISA by a stub that defines UKERNELS (the table's
   symbol) and VB (bytes in a vector), with the ISA's compiler flags. */
#include "conv.h"
#include "../pool.h"
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
/* The vector word for ?:, which C (unlike C++) lacks. */
#define SELECT(mask_type, mask, a, b) ((__typeof__(b))(((mask_type)(a) & (mask)) | ((mask_type)(b) & ~(mask))))
enum {
    OUT_OF_MEMORY = 1,
    PIXEL_BLOCK = 192, /* pixels whose offsets are made, and whose rows are multiplied, at a time */
    PLANE_TASK = 4096, /* outputs of a task of planes, at least */
};

/* A run of the summation: `length` elements of each row of A from offset a on, a step apart, against rows b, b+1, ... of B. */
typedef struct {
    long a, b, length;
} segment;

#include "geometry.h"

#define T float
#define VL_IS(n) (VB == 4 * (n))
#define T_INT int32_t
#define T_IS_FLOAT 1
#define FN(name) f32_##name
#define HALF_VECTORS (VB >= 32)
#include "family.h"

#undef T
#undef T_INT
#undef T_IS_FLOAT
#undef FN
#undef HALF_VECTORS
#undef VL_IS
#define T double
#define VL_IS(n) (VB == 8 * (n))
#define T_INT int64_t
#define T_IS_FLOAT 0
#define FN(name) f64_##name
#define HALF_VECTORS (VB >= 64)
#include "family.h"

#define STRING(s) #s
#define SYMBOL(s) STRING(s)
extern const ukernels UKERNELS;
const ukernels UKERNELS = {SYMBOL(UKERNELS), f32_FAMILY, f64_FAMILY};
