// e^x and the functions made of it, for loops over pixels: no library calls and no branches, so
// that compilers vectorise them on the host, and few instructions on the device. A NaN stays a NaN.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/scalar.h"

namespace restorert {

namespace detail {

// e^x = power * (1 + rest), where power is a power of two and rest is expm1 of a number of at most
// ln(2) / 2. For -87.3 <= x <= 88.9; from 88.38 on power is infinity.
struct PowerOfE {
  float power;
  float rest;
};

RESTORERT_HD PowerOfE split_power_of_e(float x) {
  // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits of the sum.
  constexpr float kRound = 12582912.0F;
  const float shifted = x * 1.44269504F + kRound;
  const float n = shifted - kRound;
  // ln(2) in two parts, the first with so few bits that its product with n is exact.
  float r = x - n * 0.693359375F;
  r = r - n * -2.12194440e-4F;
  // A minimax polynomial: relative error of `rest` 1.7e-8.
  float q = 1.3882517e-3F;
  q = q * r + 8.3665475e-3F;
  q = q * r + 4.1667201e-2F;
  q = q * r + 0.16666543F;
  q = q * r + 0.49999997F;
  const float rest = (r * r) * q + r;
  const std::uint32_t bits = (bits_from_float(shifted) << 23) + 0x3f800000U;
  return {float_from_bits(bits), rest};
}

// These comparisons keep a NaN, which std::min and std::max might not.
RESTORERT_HD float at_most(float x, float limit) {
  return limit < x ? limit : x;
}

RESTORERT_HD float at_least(float x, float limit) {
  return limit > x ? limit : x;
}

}  // namespace detail

// e^x for x <= 0, within two units in the last place; 1.2e-38 below -87.3, where fp32 has no
// normal numbers left.
RESTORERT_HD float exp_of_negative(float x) {
#if defined(__CUDA_ARCH__)
  return exp2f(x * 1.44269504F);
#else
  const detail::PowerOfE e = detail::split_power_of_e(detail::at_least(x, -87.3F));
  return e.power * e.rest + e.power;
#endif
}

// 1 + e^-x, so that sigmoid(x) = 1 / it: infinity for the x whose sigmoid is below the normal
// numbers.
RESTORERT_HD float sigmoid_denominator(float x) {
#if defined(__CUDA_ARCH__)
  // The relative error of __expf grows with |x|, and e^-x matters only where |x| is small.
  return 1.0F + __expf(-x);
#else
  // From 88.38 on the power of two is 2^128, infinity.
  const detail::PowerOfE e =
      detail::split_power_of_e(detail::at_most(detail::at_least(-x, -87.3F), 88.9F));
  return (1.0F + e.rest) * e.power + 1.0F;
#endif
}

// tanh(x) = numerator / denominator = expm1(2x) / (expm1(2x) + 2), of full relative precision near
// zero too. Both are finite, and the denominator is at least 1.
struct Fraction {
  float numerator;
  float denominator;
};

RESTORERT_HD Fraction tanh_fraction(float x) {
  // Beyond 9.02 tanh rounds to 1.
  const float y = detail::at_most(detail::at_least(2.0F * x, -20.0F), 20.0F);
  const detail::PowerOfE e = detail::split_power_of_e(y);
  const float numerator = e.power * e.rest + (e.power - 1.0F);
  return {numerator, numerator + 2.0F};
}

// a / b within two units in the last place. On the device: 0 where |b| > 2^126.
RESTORERT_HD float divide(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

}  // namespace restorert
