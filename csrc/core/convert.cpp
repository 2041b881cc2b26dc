#include "core/convert.h"

#if defined(RESTORERT_HAS_TARGET_CLONES)
#include <immintrin.h>
#endif

namespace restorert {
namespace {

void widen_plain(const Half* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = detail::half_bits_to_float(from[i].bits);
}

void narrow_plain(const float* from, std::int64_t count, Half* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i].bits = detail::float_to_half_bits(from[i]);
}

// GCC 12 does not vectorise conversions of its own half type, hence intrinsics.
#if defined(RESTORERT_HAS_TARGET_CLONES)
#define RESTORERT_F16C_512 __attribute__((target("avx512f")))
#define RESTORERT_F16C_256 __attribute__((target("avx,f16c")))

// All lanes. GCC warns that the forms without a mask read an undefined register.
constexpr __mmask16 kAll = 0xffff;

RESTORERT_F16C_512 void widen_512(const Half* from, std::int64_t count, float* to) {
  std::int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    _mm512_storeu_ps(to + i, _mm512_maskz_cvtph_ps(kAll, bits));
  }
  widen_plain(from + i, count - i, to + i);
}

RESTORERT_F16C_512 void narrow_512(const float* from, std::int64_t count, Half* to) {
  std::int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i bits =
        _mm512_maskz_cvtps_ph(kAll, _mm512_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), bits);
  }
  narrow_plain(from + i, count - i, to + i);
}

RESTORERT_F16C_256 void widen_256(const Half* from, std::int64_t count, float* to) {
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(bits));
  }
  widen_plain(from + i, count - i, to + i);
}

RESTORERT_F16C_256 void narrow_256(const float* from, std::int64_t count, Half* to) {
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i bits = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), bits);
  }
  narrow_plain(from + i, count - i, to + i);
}

#endif

struct HalfConversions {
  void (*widen)(const Half*, std::int64_t, float*) = widen_plain;
  void (*narrow)(const float*, std::int64_t, Half*) = narrow_plain;
};

HalfConversions choose_half_conversions() {
#if defined(RESTORERT_HAS_TARGET_CLONES)
  if (__builtin_cpu_supports("avx512f") != 0) return {widen_512, narrow_512};
  if (__builtin_cpu_supports("f16c") != 0) return {widen_256, narrow_256};
#endif
  return {};
}

const HalfConversions& half_conversions() {
  static const HalfConversions conversions = choose_half_conversions();
  return conversions;
}

RESTORERT_MULTIVERSION void widen_run(const BFloat16* __restrict__ from, std::int64_t count,
                                      float* __restrict__ to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = detail::bfloat16_bits_to_float(from[i].bits);
}

RESTORERT_MULTIVERSION void narrow_run(const float* __restrict__ from, std::int64_t count,
                                       BFloat16* __restrict__ to) {
  for (std::int64_t i = 0; i < count; ++i) to[i].bits = detail::float_to_bfloat16_bits(from[i]);
}

}  // namespace

void widen(const Half* from, std::int64_t rows, std::int64_t stride, std::int64_t columns,
           float* to) {
  const auto run = half_conversions().widen;
  for (std::int64_t row = 0; row < rows; ++row)
    run(from + row * stride, columns, to + row * columns);
}

void widen(const BFloat16* from, std::int64_t rows, std::int64_t stride, std::int64_t columns,
           float* to) {
  for (std::int64_t row = 0; row < rows; ++row) {
    widen_run(from + row * stride, columns, to + row * columns);
  }
}

void narrow(const float* from, std::int64_t count, Half* to) {
  half_conversions().narrow(from, count, to);
}

void narrow(const float* from, std::int64_t count, BFloat16* to) {
  narrow_run(from, count, to);
}

}  // namespace restorert
