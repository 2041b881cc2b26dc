// core/exponential.h against the C library in double precision.
#include "core/exponential.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "check.h"

namespace rr = restorert;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

double relative(float found, double expected) {
  return std::abs(static_cast<double>(found) - expected) / std::abs(expected);
}

// `function(x)` for x of both signs from 2^-40 to `most`, in steps of 1/4096 of x.
template <typename Function>
void sweep(double most, const Function& function) {
  for (double x = std::ldexp(1.0, -40); x < most; x *= 1.0 + 1.0 / 4096.0) {
    function(static_cast<float>(x));
    function(static_cast<float>(-x));
  }
}

void test_precision() {
  std::array<double, 3> worst{};
  sweep(87.0, [&](float x) {
    const double wide = static_cast<double>(x);
    if (x < 0.0F) {
      worst[0] = std::fmax(worst[0], relative(rr::exp_of_negative(x), std::exp(wide)));
    }
    worst[1] = std::fmax(worst[1], relative(rr::sigmoid_denominator(x), 1.0 + std::exp(-wide)));
    const rr::Fraction tanh = rr::tanh_fraction(x);
    worst[2] = std::fmax(worst[2], relative(tanh.numerator / tanh.denominator, std::tanh(wide)));
  });
  std::printf("worst relative error, exp sigmoid tanh: %.2e %.2e %.2e\n", worst[0], worst[1],
              worst[2]);
  for (const double error : worst) CHECK(error < 3e-7);
}

void test_ends() {
  CHECK(rr::exp_of_negative(0.0F) == 1.0F);
  CHECK(rr::exp_of_negative(-kInfinity) < 2e-38F && rr::exp_of_negative(-1e30F) < 2e-38F);
  CHECK(rr::sigmoid_denominator(kInfinity) == 1.0F && rr::sigmoid_denominator(1e30F) == 1.0F);
  CHECK(rr::sigmoid_denominator(-kInfinity) == kInfinity);
  for (float x = -95.0F; x < -80.0F; x += 0.001F) {
    const float sum = rr::sigmoid_denominator(x);
    CHECK(x < -88.4F ? sum == kInfinity : sum > 1e34F);
  }
  for (const float sign : {-1.0F, 1.0F}) {
    for (const float x : {10.0F, 1e30F, kInfinity}) {
      const rr::Fraction tanh = rr::tanh_fraction(sign * x);
      CHECK(tanh.numerator / tanh.denominator == sign);
    }
  }
  CHECK(rr::tanh_fraction(0.0F).numerator == 0.0F);
  CHECK(std::isnan(rr::exp_of_negative(kNan)));
  CHECK(std::isnan(rr::sigmoid_denominator(kNan)));
  CHECK(std::isnan(rr::tanh_fraction(kNan).numerator));
}

}  // namespace

int main() {
  test_precision();
  test_ends();
  return rr::test::check_result();
}
