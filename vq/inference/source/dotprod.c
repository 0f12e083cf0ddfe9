/* NEON with dot products: Cortex-A55 and A76, Neoverse, all of Apple's M. */

#include "narrow.h"
