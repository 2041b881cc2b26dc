// Scalar conversions over every bit pattern, and merging of moments.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "core/convert.h"
#include "core/moments.h"
#include "core/scalar.h"
#include "ops/half_instance_norm/half_instance_norm.h"

namespace rr = restorert;

namespace {

// fp16 and bf16 by their definition, in double precision.
double value_of(std::uint16_t bits, int exponent_bits, int fraction_bits) {
  const int exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  const double scale = std::ldexp(1.0, (exponent == 0 ? 1 : exponent) - bias - fraction_bits);
  return sign * scale * (fraction + (exponent == 0 ? 0 : (1 << fraction_bits)));
}

bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof(a)) == 0;
}

template <typename T>
void test_conversions(int exponent_bits, int fraction_bits) {
  // Every 16-bit value widens to its definition and narrows back to itself.
  std::vector<T> all(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
  std::vector<float> wide(all.size());
  rr::widen(all.data(), 1, 0, 65536, wide.data());
  std::vector<T> back(all.size());
  rr::narrow(wide.data(), 65536, back.data());
  int wrong = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double expected = value_of(all[i].bits, exponent_bits, fraction_bits);
    const float scalar = rr::to_float(all[i]);
    if (std::isnan(expected)) {
      wrong += !std::isnan(scalar) || !std::isnan(wide[i]);
      wrong += !std::isnan(rr::to_float(back[i]));
      wrong += !std::isnan(rr::to_float(rr::from_float<T>(scalar)));
    } else {
      wrong += !same_bits(scalar, static_cast<float>(expected)) || !same_bits(scalar, wide[i]);
      wrong += back[i].bits != all[i].bits || rr::from_float<T>(scalar).bits != all[i].bits;
    }
  }
  CHECK(wrong == 0);

  // Between two neighbours: the nearer one, and the even one in the middle.
  const auto infinity = static_cast<std::uint16_t>(((1 << exponent_bits) - 1) << fraction_bits);
  std::vector<float> points;
  std::vector<std::uint16_t> expected;
  for (std::uint16_t low = 0; low + 1 < infinity; ++low) {
    const double a = value_of(low, exponent_bits, fraction_bits);
    const double b = value_of(static_cast<std::uint16_t>(low + 1), exponent_bits, fraction_bits);
    const auto middle = static_cast<float>((a + b) / 2);
    const auto even = static_cast<std::uint16_t>(low + low % 2);
    points.insert(points.end(), {std::nextafter(middle, 0.0F), middle,
                                 std::nextafter(middle, std::numeric_limits<float>::max())});
    expected.insert(expected.end(), {low, even, static_cast<std::uint16_t>(low + 1)});
  }
  const auto largest = static_cast<std::uint16_t>(infinity - 1);
  const double step =
      value_of(largest, exponent_bits, fraction_bits) -
      value_of(static_cast<std::uint16_t>(largest - 1), exponent_bits, fraction_bits);
  const auto limit = static_cast<float>(value_of(largest, exponent_bits, fraction_bits) + step / 2);
  points.insert(points.end(),
                {std::nextafter(limit, 0.0F), limit, std::numeric_limits<float>::infinity()});
  expected.insert(expected.end(), {largest, infinity, infinity});
  const auto count = static_cast<std::int64_t>(points.size());
  std::vector<T> narrow(points.size());
  rr::narrow(points.data(), count, narrow.data());
  wrong = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    wrong += narrow[i].bits != expected[i];
    wrong += rr::from_float<T>(points[i]).bits != expected[i];
    wrong += rr::from_float<T>(-points[i]).bits != (expected[i] | 0x8000);
  }
  CHECK(wrong == 0);

  // Rows of a strided picture.
  std::vector<float> rows(3 * 21);
  rr::widen(all.data() + 0x3c00, 3, 50, 21, rows.data());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CHECK(same_bits(rows[i], wide[0x3c00 + i / 21 * 50 + i % 21]));
  }
}

void test_moments() {
  using rr::Moments;
  const Moments<double> none{0.0, 0.0, 0.0};
  const Moments<double> some{3.0, 2.0, 5.0};
  CHECK(rr::merge(none, none).count == 0.0);
  CHECK(rr::merge(some, none).mean == 2.0 && rr::merge(some, none).m2 == 5.0);
  CHECK(rr::merge(none, some).mean == 2.0 && rr::merge(none, some).m2 == 5.0);

  // A sequence cut anywhere gives the moments of the whole, also around a large mean.
  for (const double mean : {0.0, 1e4, -1e8}) {
    std::vector<double> values(1000);
    double sum = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = mean + std::sin(static_cast<double>(i) * 0.7);
      sum += values[i] - mean;
    }
    const double true_mean = mean + sum / 1000.0;
    double true_m2 = 0.0;
    for (const double value : values) true_m2 += (value - true_mean) * (value - true_mean);
    for (const std::size_t step : {1, 7, 333, 999}) {
      Moments<double> total = none;
      for (std::size_t begin = 0; begin < values.size(); begin += step) {
        Moments<double> part = none;
        for (std::size_t i = begin; i < values.size() && i < begin + step; ++i) {
          part = rr::merge(part, Moments<double>{1.0, values[i], 0.0});
        }
        total = rr::merge(total, part);
      }
      CHECK(total.count == 1000.0);
      // Worst seen: 5e-8 around -1e8 (half a unit in the last place of the mean is 7e-9).
      CHECK(std::abs(total.mean - true_mean) < 1e-6);
      CHECK(std::abs(total.m2 - true_m2) < 1e-4);
    }
  }
}

void test_affine() {
  namespace hin = rr::half_instance_norm;
  // A mean of 10000.0003 is no fp32 number; the shift makes up for what rounding took.
  const rr::Moments<float> moments{4.0F, 0.0003F, 4.0F};
  const hin::Affine affine = hin::make_affine(1e4F, moments, 2.0F, 0.5F, 0.0F);
  CHECK(affine.mean == 1e4F);
  CHECK(std::abs(hin::apply(1e4F + 1.0F, affine, 0.2F) - (2.0 * (1.0 - 0.0003) + 0.5)) < 1e-6);
  // An outlier as reference does no harm to the mean.
  const hin::Affine far = hin::make_affine(1e4F, {4.0F, -9999.5F, 4.0F}, 1.0F, 0.0F, 0.0F);
  CHECK(far.mean == 0.5F);
  for (const float value : {1.5F, 0.0F, -0.0F, 65504.0F, std::numeric_limits<float>::infinity()}) {
    CHECK(same_bits(hin::apply(value, hin::identity_affine(), 0.2F), value));
  }
  CHECK(hin::apply(-1.0F, hin::identity_affine(), 0.25F) == -0.25F);
  CHECK(std::isnan(hin::apply(std::nanf(""), hin::identity_affine(), 0.2F)));
}

}  // namespace

int main() {
  test_conversions<rr::Half>(5, 10);
  test_conversions<rr::BFloat16>(8, 7);
  test_moments();
  test_affine();
  return rr::test::check_result();
}
