/* AVX-512 with VNNI: Cascade Lake. */

#include "wide.h"
