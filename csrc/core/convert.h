// Whole runs of fp16 and bf16 to and from fp32, with the processor's own instructions where it has
// them. Loops over pixels are written for fp32 alone and convert a cache-resident tile before and
// after.
#pragma once

#include <cstdint>

#include "core/scalar.h"

namespace restorert {

// `rows` runs of `columns` elements that lie `stride` elements apart, to a dense array.
void widen(const Half* from, std::int64_t rows, std::int64_t stride, std::int64_t columns,
           float* to);
void widen(const BFloat16* from, std::int64_t rows, std::int64_t stride, std::int64_t columns,
           float* to);

void narrow(const float* from, std::int64_t count, Half* to);
void narrow(const float* from, std::int64_t count, BFloat16* to);

}  // namespace restorert
