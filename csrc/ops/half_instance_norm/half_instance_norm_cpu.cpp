// Half instance norm on the CPU: plain fp32 loops that the compiler vectorises; fp16 and bf16 are
// converted tile by tile.
//
// Statistics take one pass over memory: a chunk that fits in the L1 cache is read twice, for its
// mean and for the squares around it, and chunks are merged in double precision by Chan's formula
// in an order that depends on the shape alone.
#include <algorithm>
#include <vector>

#include "core/loops.h"
#include "ops/half_instance_norm/half_instance_norm.h"

namespace restorert::half_instance_norm {
namespace {

constexpr std::int64_t kChunk = 4096;         // elements; 16 KiB in fp32, half of an L1 cache
constexpr std::int64_t kBlock = 64 * kChunk;  // elements; the unit of work when a plane is shared
constexpr std::int64_t kPixelBlock = 4096;    // pixels; the same for channels-last
constexpr std::int64_t kTile = 2048;          // elements written at once

struct ChunkSums {
  float mean;     // a rounded mean
  float around;   // sum of (x - mean), which corrects it
  float squares;  // sum of (x - mean)^2
};

RESTORERT_MULTIVERSION ChunkSums sum_chunk(const float* x, std::int64_t count) {
  const float mean = sum_quarters(x, count) / static_cast<float>(count);

  float d0 = 0.0F;
  float d1 = 0.0F;
  float q0 = 0.0F;
  float q1 = 0.0F;
  const std::int64_t half = count / 2;
  const float* upper = x + half;
#pragma omp simd reduction(+ : d0, d1, q0, q1)
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = x[i] - mean;
    const float b = upper[i] - mean;
    d0 += a;
    d1 += b;
    q0 += a * a;
    q1 += b * b;
  }
  for (std::int64_t i = 2 * half; i < count; ++i) {
    const float a = x[i] - mean;
    d0 += a;
    q0 += a * a;
  }
  return {mean, d0 + d1, q0 + q1};
}

// In place (x == out) or to separate memory.
RESTORERT_MULTIVERSION void apply_line(const float* x, float* out, std::int64_t count,
                                       Affine affine, float negative_slope) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) out[i] = apply(x[i], affine, negative_slope);
}

// Like apply_line, with one affine an element: means, scales and shifts hold `period` numbers each.
RESTORERT_MULTIVERSION void apply_periodic(const float* x, float* out, std::int64_t count,
                                           const float* affines, std::int64_t period,
                                           float negative_slope) {
  const float* mean = affines;
  const float* scale = affines + period;
  const float* shift = scale + period;
  for (std::int64_t begin = 0; begin < count; begin += period) {
    const std::int64_t length = begin + period < count ? period : count - begin;
    const float* from = x + begin;
    float* to = out + begin;
#pragma omp simd
    for (std::int64_t i = 0; i < length; ++i) {
      to[i] = apply(from[i], Affine{mean[i], scale[i], shift[i]}, negative_slope);
    }
  }
}

// m2 of a chunk around its true mean; a NaN is kept, since it must reach the output.
template <typename Real>
Real corrected_m2(Real squares, Real shift, Real around) {
  const Real m2 = squares - shift * around;
  return m2 < Real(0) ? Real(0) : m2;
}

template <typename T>
Moments<double> block_moments(const T* x, std::int64_t count) {
  Moments<double> moments{0.0, 0.0, 0.0};
  alignas(64) float chunk[kIsFloat<T> ? 1 : kChunk];
  for (std::int64_t i = 0; i < count; i += kChunk) {
    const std::int64_t length = std::min(kChunk, count - i);
    const ChunkSums sums = sum_chunk(as_floats(x + i, length, chunk), length);
    const auto n = static_cast<double>(length);
    const double around = sums.around;
    const double shift = around / n;
    moments = merge(moments, {n, sums.mean + shift,
                              corrected_m2(static_cast<double>(sums.squares), shift, around)});
  }
  return moments;
}

Affine affine_of(const Problem& problem, const Moments<double>& moments, std::int64_t channel) {
  const double weight = load_parameter(problem.weight, problem.weight_dtype, channel);
  const double bias = load_parameter(problem.bias, problem.bias_dtype, channel);
  const double scale =
      weight / std::sqrt(moments.m2 / moments.count + static_cast<double>(problem.eps));
  const auto mean = static_cast<float>(moments.mean);
  const double low = moments.mean - static_cast<double>(mean);
  return {mean, static_cast<float>(scale), static_cast<float>(bias - low * scale)};
}

// Applies `function(in, out, count)`, an fp32 loop, to a span of T in steps of `step` elements, at
// most kTile. With `stream` the result goes past the caches.
template <typename T, typename Function>
void transform_span(const T* x, T* out, std::int64_t count, std::int64_t step, bool stream,
                    const Function& function) {
  alignas(64) float wide[kTile];
  alignas(64) T tile[kTile];
  for (std::int64_t i = 0; i < count; i += step) {
    const std::int64_t length = std::min(step, count - i);
    T* target = stream ? tile : out + i;
    if constexpr (kIsFloat<T>) {
      function(x + i, target, length);
    } else {
      widen(x + i, 1, 0, length, wide);
      function(wide, wide, length);
      narrow(wide, length, target);
    }
    if (stream) stream_copy(out + i, tile, as_size(length) * sizeof(T));
  }
  if (stream) stream_fence();
}

// ---- NCHW ----

template <typename T>
void run_planes(const Problem& problem) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const std::int64_t pixels = problem.pixels;
  const std::int64_t half = problem.channels / 2;
  const std::int64_t normalised = problem.images * half;
  const std::int64_t blocks = ceil_div(pixels, kBlock);
  const bool stream = is_streamed(problem.bytes());
  const bool parallel = problem.bytes() >= kSerialBytes;
  // Plane `p` of the normalised ones, then of the others.
  const auto offset = [&](std::int64_t p) {
    const bool first = p < normalised;
    const std::int64_t q = first ? p : p - normalised;
    return ((q / half) * problem.channels + (first ? 0 : half) + q % half) * pixels;
  };
  const auto write = [&](std::int64_t begin, std::int64_t count, const Affine& affine) {
    transform_span(x + begin, out + begin, count, kTile, stream,
                   [&](const float* from, float* to, std::int64_t length) {
                     apply_line(from, to, length, affine, problem.negative_slope);
                   });
  };

  if (normalised >= max_threads() || blocks == 1) {
    // A plane a thread: statistics, then the result while the plane is still in the cache.
    parallel_for(2 * normalised, parallel, [&](std::int64_t p, int) {
      const std::int64_t begin = offset(p);
      Affine affine = identity_affine();
      if (p < normalised) {
        Moments<double> moments{0.0, 0.0, 0.0};
        for (std::int64_t i = 0; i < pixels; i += kBlock) {
          moments = merge(moments, block_moments(x + begin + i, std::min(kBlock, pixels - i)));
        }
        affine = affine_of(problem, moments, p % half);
      }
      write(begin, pixels, affine);
    });
    return;
  }

  // Fewer planes than threads: share each plane, merging its blocks in the order used above.
  std::vector<Moments<double>> partial(as_size(normalised * blocks));
  parallel_for(normalised * blocks, parallel, [&](std::int64_t item, int) {
    const std::int64_t begin = item % blocks * kBlock;
    partial[as_size(item)] =
        block_moments(x + offset(item / blocks) + begin, std::min(kBlock, pixels - begin));
  });
  std::vector<Affine> affines(as_size(2 * normalised), identity_affine());
  for (std::int64_t p = 0; p < normalised; ++p) {
    Moments<double> moments{0.0, 0.0, 0.0};
    for (std::int64_t b = 0; b < blocks; ++b) {
      moments = merge(moments, partial[as_size(p * blocks + b)]);
    }
    affines[as_size(p)] = affine_of(problem, moments, p % half);
  }
  parallel_for(2 * normalised * blocks, parallel, [&](std::int64_t item, int) {
    const std::int64_t p = item / blocks;
    const std::int64_t begin = item % blocks * kBlock;
    write(offset(p) + begin, std::min(kBlock, pixels - begin), affines[as_size(p)]);
  });
}

// ---- NHWC ----

// Channels that are summed together, in registers, while a loop runs over pixels.
constexpr std::int64_t kLanes = 16;

// Merges a chunk of `pixels` pixels, `stride` elements apart, of `half` channels into mean[c] and
// m2[c], which describe `before` pixels. `sums` is room for 3 * half numbers.
RESTORERT_MULTIVERSION void merge_pixels(const float* __restrict__ x, std::int64_t pixels,
                                         std::int64_t stride, std::int64_t half, double before,
                                         double* __restrict__ mean, double* __restrict__ m2,
                                         float* __restrict__ sums) {
  float* __restrict__ means = sums;
  float* __restrict__ around = sums + half;
  float* __restrict__ squares = sums + 2 * half;
  const auto size = static_cast<float>(pixels);
  std::int64_t c = 0;
  for (; c + kLanes <= half; c += kLanes) {
    const float* column = x + c;
    float s0[kLanes] = {};
    float s1[kLanes] = {};
    float s2[kLanes] = {};
    float s3[kLanes] = {};
    std::int64_t p = 0;
    for (; p + 4 <= pixels; p += 4) {
      const float* x0 = column + p * stride;
      const float* x1 = x0 + stride;
      const float* x2 = x1 + stride;
      const float* x3 = x2 + stride;
      RESTORERT_LANES for (int j = 0; j < kLanes; ++j) s0[j] += x0[j];
      RESTORERT_LANES for (int j = 0; j < kLanes; ++j) s1[j] += x1[j];
      RESTORERT_LANES for (int j = 0; j < kLanes; ++j) s2[j] += x2[j];
      RESTORERT_LANES for (int j = 0; j < kLanes; ++j) s3[j] += x3[j];
    }
    for (; p < pixels; ++p) {
      RESTORERT_LANES for (int j = 0; j < kLanes; ++j) s0[j] += column[p * stride + j];
    }
    float center[kLanes];
    RESTORERT_LANES for (int j = 0; j < kLanes; ++j) {
      center[j] = ((s0[j] + s1[j]) + (s2[j] + s3[j])) / size;
    }
    float d0[kLanes] = {};
    float d1[kLanes] = {};
    float q0[kLanes] = {};
    float q1[kLanes] = {};
    for (p = 0; p + 2 <= pixels; p += 2) {
      const float* x0 = column + p * stride;
      const float* x1 = x0 + stride;
      RESTORERT_LANES for (int j = 0; j < kLanes; ++j) {
        const float a = x0[j] - center[j];
        d0[j] += a;
        q0[j] += a * a;
      }
      RESTORERT_LANES for (int j = 0; j < kLanes; ++j) {
        const float b = x1[j] - center[j];
        d1[j] += b;
        q1[j] += b * b;
      }
    }
    for (; p < pixels; ++p) {
      RESTORERT_LANES for (int j = 0; j < kLanes; ++j) {
        const float a = column[p * stride + j] - center[j];
        d0[j] += a;
        q0[j] += a * a;
      }
    }
    RESTORERT_LANES for (int j = 0; j < kLanes; ++j) {
      means[c + j] = center[j];
      around[c + j] = d0[j] + d1[j];
      squares[c + j] = q0[j] + q1[j];
    }
  }
  for (; c < half; ++c) {  // what channels are left
    float sum = 0.0F;
    for (std::int64_t p = 0; p < pixels; ++p) sum += x[p * stride + c];
    const float center = sum / size;
    float d = 0.0F;
    float q = 0.0F;
    for (std::int64_t p = 0; p < pixels; ++p) {
      const float a = x[p * stride + c] - center;
      d += a;
      q += a * a;
    }
    means[c] = center;
    around[c] = d;
    squares[c] = q;
  }

  // Chan's formula with the counts, equal for all channels, taken out of the loop.
  const auto count = static_cast<double>(pixels);
  const double share = count / (before + count);
  const double weight = before * share;
  const double inverse = 1.0 / count;
#pragma omp simd
  for (std::int64_t k = 0; k < half; ++k) {
    const double shift = static_cast<double>(around[k]) * inverse;
    const double own =
        corrected_m2(static_cast<double>(squares[k]), shift, static_cast<double>(around[k]));
    m2[k] += own + merge_means(mean[k], static_cast<double>(means[k]) + shift, share, weight);
  }
}

template <typename T>
void run_pixels(const Problem& problem) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const std::int64_t channels = problem.channels;
  const std::int64_t half = channels / 2;
  const std::int64_t pixels = problem.pixels;
  const bool parallel = problem.bytes() >= kSerialBytes;
  // Chunks of about 8 KiB of fp32: only every second half-pixel is read, which leaves half of the
  // cache's sets unused. At most 256 pixels, because an fp32 sum loses digits as it grows.
  const std::int64_t chunk = std::clamp<std::int64_t>(kTile / half, 4, 256);
  // At most 256 blocks a picture, so that the partial sums stay small.
  const std::int64_t block = std::max(kPixelBlock, ceil_div(pixels, 256));
  const std::int64_t blocks = ceil_div(pixels, block);

  std::vector<double> partial(as_size(problem.images * blocks * 2 * half));  // means, then m2
  const std::int64_t room = 3 * half + (kIsFloat<T> ? 0 : chunk * half);
  std::vector<float> scratch(as_size(max_threads() * room));
  parallel_for(problem.images * blocks, parallel, [&](std::int64_t item, int worker) {
    float* sums = scratch.data() + worker * room;
    double* mean = partial.data() + item * 2 * half;
    const std::int64_t begin = item % blocks * block;
    const std::int64_t end = std::min(begin + block, pixels);
    for (std::int64_t p = begin; p < end; p += chunk) {
      const std::int64_t length = std::min(chunk, end - p);
      const T* from = x + ((item / blocks) * pixels + p) * channels;
      const auto before = static_cast<double>(p - begin);
      if constexpr (kIsFloat<T>) {
        merge_pixels(from, length, channels, half, before, mean, mean + half, sums);
      } else {
        float* wide = sums + 3 * half;
        widen(from, length, channels, half, wide);
        merge_pixels(wide, length, half, half, before, mean, mean + half, sums);
      }
    }
  });

  // Means, scales and shifts of all channels, identity for the second half; with few channels,
  // repeated for several pixels, which makes the loops over them longer.
  const std::int64_t repeat = std::max<std::int64_t>(1, 256 / channels);
  const std::int64_t period = repeat * channels;
  std::vector<float> affines(as_size(problem.images * 3 * period));
  for (std::int64_t n = 0; n < problem.images; ++n) {
    float* to = affines.data() + n * 3 * period;
    for (std::int64_t c = 0; c < channels; ++c) {
      Affine affine = identity_affine();
      if (c < half) {
        Moments<double> moments{0.0, 0.0, 0.0};
        for (std::int64_t b = 0; b < blocks; ++b) {
          const double* mean = partial.data() + (n * blocks + b) * 2 * half;
          const auto count = static_cast<double>(std::min(block, pixels - b * block));
          moments = merge(moments, {count, mean[c], mean[half + c]});
        }
        affine = affine_of(problem, moments, c);
      }
      for (std::int64_t i = c; i < period; i += channels) {
        to[i] = affine.mean;
        to[period + i] = affine.scale;
        to[2 * period + i] = affine.shift;
      }
    }
  }

  const bool stream = is_streamed(problem.bytes());
  parallel_for(problem.images * blocks, parallel, [&](std::int64_t item, int) {
    const std::int64_t n = item / blocks;
    const float* affine = affines.data() + n * 3 * period;
    const std::int64_t begin = item % blocks * block;
    const std::int64_t count = (std::min(begin + block, pixels) - begin) * channels;
    const std::int64_t offset = (n * pixels + begin) * channels;
    if (period > kTile) {
      // So many channels that a tile is a part of a pixel: channel by channel in tiles.
      for (std::int64_t p = 0; p < count; p += channels) {
        for (std::int64_t c = 0; c < channels; c += kTile) {
          const std::int64_t length = std::min(kTile, channels - c);
          transform_span(
              x + offset + p + c, out + offset + p + c, length, kTile, stream,
              [&](const float* from, float* to, std::int64_t size) {
                for (std::int64_t i = 0; i < size; ++i) {
                  const std::int64_t k = c + i;
                  to[i] =
                      apply(from[i], Affine{affine[k], affine[period + k], affine[2 * period + k]},
                            problem.negative_slope);
                }
              });
        }
      }
      return;
    }
    transform_span(x + offset, out + offset, count, kTile / period * period, stream,
                   [&](const float* from, float* to, std::int64_t size) {
                     apply_periodic(from, to, size, affine, period, problem.negative_slope);
                   });
  });
}

}  // namespace

void run_cpu(const Problem& problem) {
  if (problem.empty()) return;
  dispatch_floating(problem.dtype, false, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (problem.layout == Layout::kNCHW) {
      run_planes<T>(problem);
    } else {
      run_pixels<T>(problem);
    }
    return true;
  });
}

}  // namespace restorert::half_instance_norm
