#define ISA aarch64_neon
#define VB 16
#include "kernels.c"
#include "int8.c"
