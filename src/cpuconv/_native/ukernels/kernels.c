/* Every floating micro-kernel and driver, for both types: compiled once per ISA by a stub that defines ISA and VB (bytes in a vector),
   with the ISA's compiler flags. */
#include "common.h"

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

extern const ukernels NAME(ukernels_);
const ukernels NAME(ukernels_) = {f32_FAMILY, f64_FAMILY};
