#define UKERNELS ukernels_x86_64_v2
#define VB 16
#include "kernels.c"
