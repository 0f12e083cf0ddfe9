/* Codewords and signs: what is chosen, and what is refitted to it, in blocks of outputs.

   Outputs are the inner loop everywhere, so that compilers vectorise across them and every output
   is computed in the same order whatever stands beside it. Scores of a block stay in a core's own
   cache. Everything is written once, for both types. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t num;

/* Outputs of a block. */
#define LANES 32
#define EACH(i) for (num i = 0; i < LANES; i++)

/* Of two vectors of integers, the first where asked for. */
#define PICK(where, yes, no) (((where) & (yes)) | (~(where) & (no)))
#define INLINE static inline __attribute__((always_inline))

#define real float
#define mask int32_t
#define NAME(name) name##_float32
#define COPYSIGN copysignf
#include "choice.h"
#include "refit.h"
#undef real
#undef mask
#undef NAME
#undef COPYSIGN

#define real double
#define mask int64_t
#define NAME(name) name##_float64
#define COPYSIGN copysign
#include "choice.h"
#include "refit.h"
