#define UKERNELS ukernels_x86_64_v4
#define VB 64
#include "kernels.c"
