#define ISA x86_64_v4_vnni
#define VB 64
#include "int8.c"
