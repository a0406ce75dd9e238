#define UKERNELS ukernels_x86_64_v3
#define VB 32
#include "kernels.c"
