// Pictures for the tests of half instance norm, and the op by its formula in double precision.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/dispatch.h"
#include "ops/half_instance_norm/half_instance_norm.h"

namespace restorert::test {

struct Picture {
  std::int64_t images, channels, height, width;
  Layout layout;

  std::int64_t pixels() const { return height * width; }
  std::size_t size() const { return static_cast<std::size_t>(images * channels * pixels()); }
  std::size_t index(std::int64_t n, std::int64_t c, std::int64_t p) const {
    return static_cast<std::size_t>(layout == Layout::kNCHW ? (n * channels + c) * pixels() + p
                                                            : (n * pixels() + p) * channels + c);
  }
};

// Reproducible numbers in [-1, 1), different in every channel.
inline float noise(std::uint64_t seed) {
  std::uint64_t z = (seed + 1) * 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  z ^= z >> 31;
  return static_cast<float>(z >> 40) / 8388608.0F - 1.0F;
}

template <typename T>
std::vector<T> make_picture(const Picture& picture, float mean, float spread) {
  std::vector<T> data(picture.size());
  std::uint64_t seed = 0;
  for (std::int64_t n = 0; n < picture.images; ++n) {
    for (std::int64_t c = 0; c < picture.channels; ++c) {
      for (std::int64_t p = 0; p < picture.pixels(); ++p) {
        data[picture.index(n, c, p)] =
            from_float<T>(mean + spread * noise(seed++) * static_cast<float>(1 + c % 3));
      }
    }
  }
  return data;
}

// The formula of half_instance_norm.h in double precision: two passes over each channel.
template <typename T>
std::vector<double> reference(const Picture& picture, const std::vector<T>& x,
                              const std::vector<float>& weight, const std::vector<float>& bias,
                              double eps, double slope) {
  std::vector<double> y(picture.size());
  const auto count = static_cast<double>(picture.pixels());
  for (std::int64_t n = 0; n < picture.images; ++n) {
    for (std::int64_t c = 0; c < picture.channels; ++c) {
      double mean = 0.0;
      double scale = 1.0;
      double shift = 0.0;
      if (c < picture.channels / 2) {
        for (std::int64_t p = 0; p < picture.pixels(); ++p) {
          mean += static_cast<double>(to_float(x[picture.index(n, c, p)]));
        }
        mean /= count;
        double variance = 0.0;
        for (std::int64_t p = 0; p < picture.pixels(); ++p) {
          const double d = static_cast<double>(to_float(x[picture.index(n, c, p)])) - mean;
          variance += d * d;
        }
        scale = static_cast<double>(weight[static_cast<std::size_t>(c)]) /
                std::sqrt(variance / count + eps);
        shift = static_cast<double>(bias[static_cast<std::size_t>(c)]);
      }
      for (std::int64_t p = 0; p < picture.pixels(); ++p) {
        const std::size_t i = picture.index(n, c, p);
        const double v = (static_cast<double>(to_float(x[i])) - mean) * scale + shift;
        y[i] = v > 0.0 ? v : v * slope;
      }
    }
  }
  return y;
}

// The largest error, of results up to 1 absolute and beyond relative.
template <typename T>
double worst_error(const std::vector<T>& actual, const std::vector<double>& expected) {
  double worst = 0.0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(static_cast<double>(to_float(actual[i])) - expected[i]) /
                         std::fmax(1.0, std::abs(expected[i]));
    if (std::isnan(error)) return error;
    worst = std::fmax(worst, error);
  }
  return worst;
}

}  // namespace restorert::test
