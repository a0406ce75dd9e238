#define ISA x86_64_v2
#define VB 16
#include "kernels.c"
#include "int8.c"
