// The simple gate with its mean on the CPU: plain fp32 loops that the compiler vectorises, a tile
// at a time; fp16 and bf16 are converted tile by tile. A tile's products are summed in fp32, tiles
// in double precision, in an order that depends on the shape alone.
#include <algorithm>
#include <limits>
#include <vector>

#include "core/dispatch.h"
#include "core/loops.h"
#include "ops/simple_gate_mean/simple_gate_mean.h"

namespace restorert::simple_gate_mean {
namespace {

constexpr std::int64_t kTile = 512;  // elements of a factor; short, so that reads and writes mix
constexpr std::int64_t kBlock = 512 * kTile;  // NCHW: the unit of work within a plane
constexpr std::int64_t kMaxPixels = 64;       // NHWC: pixels in a tile, summed in fp32

// Writes the products of a line and returns their sum.
RESTORERT_MULTIVERSION float multiply_line(const float* __restrict__ first,
                                           const float* __restrict__ second,
                                           float* __restrict__ out, std::int64_t count) {
  float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) {
    const float y = first[i] * second[i];
    out[i] = y;
    sum += y;
  }
  return sum;
}

// Writes the products of `pixels` pixels, both factors of one behind the other, and sums each
// channel.
RESTORERT_MULTIVERSION void multiply_pixels(const float* __restrict__ x, std::int64_t pixels,
                                            std::int64_t channels, float* __restrict__ out,
                                            float* __restrict__ sums) {
  for (std::int64_t c = 0; c < channels; ++c) sums[c] = 0.0F;
  for (std::int64_t p = 0; p < pixels; ++p) {
    const float* first = x + 2 * p * channels;
    const float* second = first + channels;
    float* to = out + p * channels;
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) {
      const float y = first[c] * second[c];
      to[c] = y;
      sums[c] += y;
    }
  }
}

template <typename T>
void run_planes(const Problem& problem) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const std::int64_t pixels = problem.pixels;
  const std::int64_t planes = problem.images * problem.channels;
  const std::int64_t blocks = ceil_div(pixels, kBlock);
  const bool stream = is_streamed(problem.bytes());
  std::vector<double> partial(as_size(planes * blocks));
  parallel_for(planes * blocks, problem.bytes() >= kSerialBytes, [&](std::int64_t item, int) {
    alignas(64) float factors[kIsFloat<T> ? 1 : 2 * kTile];
    alignas(64) float product[kTile];
    alignas(64) T narrowed[kIsFloat<T> ? 1 : kTile];
    const std::int64_t plane = item / blocks;
    const std::int64_t image = plane / problem.channels;
    // The channels of earlier images are twice as many in x.
    const T* first = x + (plane + image * problem.channels) * pixels;
    T* to = out + plane * pixels;
    const std::int64_t begin = item % blocks * kBlock;
    const std::int64_t end = std::min(begin + kBlock, pixels);
    double sum = 0.0;
    for (std::int64_t p = begin; p < end; p += kTile) {
      const std::int64_t count = std::min(kTile, end - p);
      const auto bytes = as_size(count) * sizeof(T);
      if constexpr (kIsFloat<T>) {
        float* target = stream ? product : to + p;
        const T* second = first + problem.channels * pixels;
        sum += static_cast<double>(multiply_line(first + p, second + p, target, count));
        if (stream) stream_copy(to + p, product, bytes);
      } else {
        widen(first + p, 2, problem.channels * pixels, count, factors);
        sum += static_cast<double>(multiply_line(factors, factors + count, product, count));
        narrow(product, count, stream ? narrowed : to + p);
        if (stream) stream_copy(to + p, narrowed, bytes);
      }
    }
    partial[as_size(item)] = sum;
    if (stream) stream_fence();
  });
  for (std::int64_t plane = 0; plane < planes; ++plane) {
    double sum = 0.0;
    for (std::int64_t b = 0; b < blocks; ++b) sum += partial[as_size(plane * blocks + b)];
    problem.mean[plane] = static_cast<float>(sum / static_cast<double>(pixels));
  }
}

template <typename T>
void run_pixels(const Problem& problem) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const std::int64_t channels = problem.channels;
  const std::int64_t pixels = problem.pixels;
  const bool stream = is_streamed(problem.bytes());
  const std::int64_t tile = std::clamp<std::int64_t>(kTile / channels, 1, kMaxPixels);
  // At most 256 blocks an image, so that the partial sums stay small.
  const std::int64_t least = std::max<std::int64_t>(kBlock / channels, tile);
  const std::int64_t block = std::max(least, ceil_div(pixels, 256));
  const std::int64_t blocks = ceil_div(pixels, block);
  std::vector<double> partial(as_size(problem.images * blocks * channels));
  // A tile's sums, its products and, converted, its factors.
  const std::int64_t room = channels * (1 + tile + (kIsFloat<T> ? 0 : 2 * tile));
  std::vector<float> scratch(as_size(max_threads() * room));
  std::vector<T> narrowed(as_size(kIsFloat<T> || !stream ? 0 : max_threads() * tile * channels));
  parallel_for(problem.images * blocks, problem.bytes() >= kSerialBytes,
               [&](std::int64_t item, int worker) {
                 float* sums = scratch.data() + worker * room;
                 float* product = sums + channels;
                 double* totals = partial.data() + item * channels;
                 const std::int64_t begin = item / blocks * pixels;
                 const std::int64_t last = begin + std::min(pixels, (item % blocks + 1) * block);
                 for (std::int64_t p = begin + item % blocks * block; p < last; p += tile) {
                   const std::int64_t length = std::min(tile, last - p);
                   const std::int64_t count = length * channels;
                   const auto bytes = as_size(count) * sizeof(T);
                   const T* from = x + 2 * p * channels;
                   T* to = out + p * channels;
                   if constexpr (kIsFloat<T>) {
                     multiply_pixels(from, length, channels, stream ? product : to, sums);
                     if (stream) stream_copy(to, product, bytes);
                   } else {
                     float* factors = product + tile * channels;
                     T* target = stream ? narrowed.data() + worker * tile * channels : to;
                     widen(from, 1, 0, 2 * count, factors);
                     multiply_pixels(factors, length, channels, product, sums);
                     narrow(product, count, target);
                     if (stream) stream_copy(to, target, bytes);
                   }
                   for (std::int64_t c = 0; c < channels; ++c)
                     totals[c] += static_cast<double>(sums[c]);
                 }
                 if (stream) stream_fence();
               });
  for (std::int64_t n = 0; n < problem.images; ++n) {
    for (std::int64_t c = 0; c < channels; ++c) {
      double sum = 0.0;
      for (std::int64_t b = 0; b < blocks; ++b) {
        sum += partial[as_size((n * blocks + b) * channels + c)];
      }
      problem.mean[n * channels + c] = static_cast<float>(sum / static_cast<double>(pixels));
    }
  }
}

}  // namespace

void run_cpu(const Problem& problem) {
  if (problem.images == 0 || problem.channels == 0) return;
  if (problem.pixels == 0) {
    std::fill_n(problem.mean, problem.images * problem.channels,
                std::numeric_limits<float>::quiet_NaN());
    return;
  }
  dispatch_floating(problem.dtype, false, [&](auto tag) {
    using T = typename decltype(tag)::type;
    // One pixel an image is NHWC as well, and there its channels are a run.
    if (problem.layout == Layout::kNCHW && problem.pixels > 1) {
      run_planes<T>(problem);
    } else {
      run_pixels<T>(problem);
    }
    return true;
  });
}

}  // namespace restorert::simple_gate_mean
