/* The tables and feature names of this build; CPUCONV_TABLES and CPUCONV_FEATURES are lists that setup.py makes from isa.py. */
#include "conv.h"
#ifdef __aarch64__
#include <asm/hwcap.h>
#include <string.h>
#include <sys/auxv.h>
#endif

#define TABLE(symbol, floats, name)          \
    extern const ukernels ukernels_##floats; \
    extern const int8_ukernels int8_##symbol;
CPUCONV_TABLES
#undef TABLE

typedef struct {
    const char *isa;
    const ukernels *floats;
    const int8_ukernels *int8;
} isa_table;
#define TABLE(symbol, floats, name) {name, &ukernels_##floats, &int8_##symbol},
static const isa_table cpuconv_tables[] = {CPUCONV_TABLES {NULL, NULL, NULL}};
#undef TABLE

#define FEATURE(name) name,
static const char *const cpuconv_features[] = {CPUCONV_FEATURES NULL};
#undef FEATURE

#ifdef __aarch64__
#define SUPPORTS(name) (!strcmp(name, "asimddp") && getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
#else
/* The compiler's run-time library asks CPUID and, for wide registers, whether the operating system saves them (XGETBV). */
#define SUPPORTS(name) (__builtin_cpu_supports(name) != 0)
#endif
static int cpuconv_supports(int feature) {
    int i = 0;
    (void)i;
    (void)feature;
#define FEATURE(name) if (i++ == feature) return SUPPORTS(name);
    CPUCONV_FEATURES
#undef FEATURE
    return 0;
}
