#define ISA generic
#define VB 16
#include "kernels.c"
#include "int8.c"
