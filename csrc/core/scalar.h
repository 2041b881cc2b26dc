// fp16 and bf16 as 16-bit storage with conversions to and from fp32. On the host they are
// branch-free integer arithmetic, which compilers vectorise; on the device they are the hardware's
// instructions. Rounding is to nearest, ties to even; overflow gives infinity; a NaN stays a
// (quiet) NaN.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/macros.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace restorert {

struct Half {
  std::uint16_t bits;
};

struct BFloat16 {
  std::uint16_t bits;
};

namespace detail {

RESTORERT_HD float float_from_bits(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
#endif
}

RESTORERT_HD std::uint32_t bits_from_float(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
#endif
}

// Widens fp16. A half has 5 exponent bits with bias 15, a float 8 with bias 127.
inline float half_bits_to_float(std::uint16_t half) {
  const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fffU) << 13;
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
  // Normal numbers: move the exponent from bias 15 to bias 127.
  const std::uint32_t normal = magnitude + (112U << 23);
  // Infinity and NaN: all ones stay all ones.
  const std::uint32_t special = magnitude + (224U << 23);
  // Subnormal numbers: put the fraction under exponent -14 and subtract the implicit one, exactly.
  const std::uint32_t subnormal =
      bits_from_float(float_from_bits(magnitude + (113U << 23)) - float_from_bits(113U << 23));
  std::uint32_t bits = magnitude >= (31U << 23) ? special : normal;
  bits = magnitude < (1U << 23) ? subnormal : bits;
  return float_from_bits(bits | sign);
}

inline std::uint16_t float_to_half_bits(float value) {
  const std::uint32_t all = bits_from_float(value);
  const std::uint32_t sign = (all >> 16) & 0x8000U;
  const std::uint32_t magnitude = all & 0x7fffffffU;
  // Normal halves: rebias, then round to nearest even on the 13 bits that go. A carry out of the
  // fraction raises the exponent, which is right, up to and including infinity.
  const std::uint32_t normal =
      (magnitude - (112U << 23) + 0x0fffU + ((magnitude >> 13) & 1U)) >> 13;
  // Subnormal halves: adding 0.5 leaves the fraction's low bits counting units of 2^-24, rounded to
  // nearest even by the addition.
  const std::uint32_t subnormal = bits_from_float(float_from_bits(magnitude) + 0.5F) - 0x3f000000U;
  std::uint32_t half = magnitude < (113U << 23) ? subnormal : normal;
  half = magnitude >= (143U << 23) ? 0x7c00U : half;
  half = magnitude > (255U << 23) ? 0x7e00U : half;
  return static_cast<std::uint16_t>(half | sign);
}

inline float bfloat16_bits_to_float(std::uint16_t bits) {
  return float_from_bits(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t float_to_bfloat16_bits(float value) {
  const std::uint32_t all = bits_from_float(value);
  const std::uint32_t rounded = (all + 0x7fffU + ((all >> 16) & 1U)) >> 16;
  const bool is_nan = (all & 0x7fffffffU) > 0x7f800000U;
  return static_cast<std::uint16_t>(is_nan ? 0x7fc0U : rounded);
}

}  // namespace detail

RESTORERT_HD float to_float(float value) {
  return value;
}

RESTORERT_HD float to_float(Half value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  return detail::half_bits_to_float(value.bits);
#endif
}

RESTORERT_HD float to_float(BFloat16 value) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
#else
  return detail::bfloat16_bits_to_float(value.bits);
#endif
}

template <typename T>
RESTORERT_HD T from_float(float value);

template <>
RESTORERT_HD float from_float<float>(float value) {
  return value;
}

template <>
RESTORERT_HD Half from_float<Half>(float value) {
#if defined(__CUDA_ARCH__)
  return Half{__half_as_ushort(__float2half_rn(value))};
#else
  return Half{detail::float_to_half_bits(value)};
#endif
}

template <>
RESTORERT_HD BFloat16 from_float<BFloat16>(float value) {
#if defined(__CUDA_ARCH__)
  return BFloat16{__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
  return BFloat16{detail::float_to_bfloat16_bits(value)};
#endif
}

}  // namespace restorert
