#define ISA x86_64_v4
#define VB 64
#include "kernels.c"
#include "int8.c"
