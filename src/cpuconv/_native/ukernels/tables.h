/* The tables and feature names of this build; CPUCONV_TABLES and CPUCONV_FEATURES are lists that setup.py makes from isa.py. */
#include "conv.h"

#define TABLE(symbol) extern const ukernels ukernels_##symbol;
CPUCONV_TABLES
#undef TABLE
#define TABLE(symbol) &ukernels_##symbol,
static const ukernels *const cpuconv_tables[] = {CPUCONV_TABLES NULL};
#undef TABLE

#define FEATURE(name) name,
static const char *const cpuconv_features[] = {CPUCONV_FEATURES NULL};
#undef FEATURE

/* The compiler's run-time library asks CPUID and, for wide registers, whether the operating system saves them (XGETBV). */
static int cpuconv_supports(int feature) {
    int i = 0;
    (void)i;
    (void)feature;
#define FEATURE(name) if (i++ == feature) return __builtin_cpu_supports(name) != 0;
    CPUCONV_FEATURES
#undef FEATURE
    return 0;
}
