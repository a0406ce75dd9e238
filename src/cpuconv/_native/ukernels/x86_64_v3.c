#define ISA x86_64_v3
#define VB 32
#include "kernels.c"
#include "int8.c"
