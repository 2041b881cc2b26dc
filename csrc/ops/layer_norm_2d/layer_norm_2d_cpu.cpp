// Layer norm over channels on the CPU: plain fp32 loops that the compiler vectorises.
//
// NCHW: a tile of neighbouring pixels and all channels is copied to a dense buffer, where planes
// that lie a power of two apart cannot drive each other out of the cache; loops run over its
// pixels. NHWC: loops run over the channels of a pixel. Either way x comes from memory once, and
// what the second pass of the statistics and the result read is in the cache.
//
// The first pass gives a rounded mean; the second sums the distances from it, which corrects it,
// and their squares.
#include <algorithm>
#include <vector>

#include "core/loops.h"
#include "ops/layer_norm_2d/layer_norm_2d.h"

namespace restorert::layer_norm_2d {
namespace {

constexpr std::int64_t kMaxPixels = 1024;      // in a tile of planes
constexpr std::int64_t kTileElements = 65536;  // about: 256 KiB in fp32, a quarter of an L2 cache
constexpr std::int64_t kFewChannels = 16;      // NHWC with fewer runs as planes, transposed
constexpr std::int64_t kRunElements = 2048;    // NHWC: about 8 KiB in fp32, well within an L1 cache
constexpr std::int64_t kMaxRun = 256;          // NHWC: pixels in a run

#if defined(__GNUC__)
#define RESTORERT_PREFETCH(address) __builtin_prefetch(address)
#else
#define RESTORERT_PREFETCH(address) static_cast<void>(address)
#endif

constexpr std::int64_t kLanes = 16;  // elements in a cache line

// Statistics of up to kMaxPixels pixels, as Norm.
struct Norms {
  alignas(64) float reference[kMaxPixels];
  alignas(64) float mean[kMaxPixels];
  alignas(64) float scale[kMaxPixels];
};

// ---- planes: line c of a tile holds channel c of `pixels` pixels ----

// tile[c][p] = x[c][p], lines `stride` apart in x and `pixels` in the tile; sums[p] over c. Lines
// are too short for the processor to see them coming, so those of the next four channels are asked
// for.
RESTORERT_MULTIVERSION void copy_and_sum(const float* __restrict__ x, std::int64_t stride,
                                         std::int64_t channels, std::int64_t pixels,
                                         float* __restrict__ tile, float* __restrict__ sums) {
  for (std::int64_t p = 0; p < pixels; ++p) sums[p] = 0.0F;
  std::int64_t c = 0;
  for (; c + 4 <= channels; c += 4) {
    const float* x0 = x + c * stride;
    const float* x1 = x0 + stride;
    const float* x2 = x1 + stride;
    const float* x3 = x2 + stride;
    float* t0 = tile + c * pixels;
    float* t1 = t0 + pixels;
    float* t2 = t1 + pixels;
    float* t3 = t2 + pixels;
    const std::int64_t ahead = c + 8 <= channels ? 4 * stride : 0;
    std::int64_t p = 0;
    for (; p + kLanes <= pixels; p += kLanes) {
      RESTORERT_PREFETCH(x0 + ahead + p);
      RESTORERT_PREFETCH(x1 + ahead + p);
      RESTORERT_PREFETCH(x2 + ahead + p);
      RESTORERT_PREFETCH(x3 + ahead + p);
      RESTORERT_LANES for (std::int64_t j = p; j < p + kLanes; ++j) {
        t0[j] = x0[j];
        t1[j] = x1[j];
        t2[j] = x2[j];
        t3[j] = x3[j];
        sums[j] += (x0[j] + x1[j]) + (x2[j] + x3[j]);
      }
    }
    for (; p < pixels; ++p) {
      t0[p] = x0[p];
      t1[p] = x1[p];
      t2[p] = x2[p];
      t3[p] = x3[p];
      sums[p] += (x0[p] + x1[p]) + (x2[p] + x3[p]);
    }
  }
  for (; c < channels; ++c) {
#pragma omp simd
    for (std::int64_t p = 0; p < pixels; ++p) {
      tile[c * pixels + p] = x[c * stride + p];
      sums[p] += x[c * stride + p];
    }
  }
}

// The same for a tile that is there already.
RESTORERT_MULTIVERSION void sum_tile(const float* __restrict__ tile, std::int64_t channels,
                                     std::int64_t pixels, float* __restrict__ sums) {
  for (std::int64_t p = 0; p < pixels; ++p) sums[p] = 0.0F;
  std::int64_t c = 0;
  for (; c + 4 <= channels; c += 4) {
    const float* t0 = tile + c * pixels;
    const float* t1 = t0 + pixels;
    const float* t2 = t1 + pixels;
    const float* t3 = t2 + pixels;
#pragma omp simd
    for (std::int64_t p = 0; p < pixels; ++p) sums[p] += (t0[p] + t1[p]) + (t2[p] + t3[p]);
  }
  for (; c < channels; ++c) {
#pragma omp simd
    for (std::int64_t p = 0; p < pixels; ++p) sums[p] += tile[c * pixels + p];
  }
}

// From sums of x to statistics; `around` is room for the sums of x - reference.
RESTORERT_MULTIVERSION void finish_norms(const float* __restrict__ tile, std::int64_t channels,
                                         std::int64_t pixels, float eps,
                                         float* __restrict__ reference, float* __restrict__ around,
                                         float* __restrict__ squares) {
  const auto count = static_cast<float>(channels);
  for (std::int64_t p = 0; p < pixels; ++p) {
    reference[p] /= count;
    around[p] = 0.0F;
    squares[p] = 0.0F;
  }
  std::int64_t c = 0;
  for (; c + 4 <= channels; c += 4) {
    const float* t0 = tile + c * pixels;
    const float* t1 = t0 + pixels;
    const float* t2 = t1 + pixels;
    const float* t3 = t2 + pixels;
#pragma omp simd
    for (std::int64_t p = 0; p < pixels; ++p) {
      const float d0 = t0[p] - reference[p];
      const float d1 = t1[p] - reference[p];
      const float d2 = t2[p] - reference[p];
      const float d3 = t3[p] - reference[p];
      around[p] += (d0 + d1) + (d2 + d3);
      squares[p] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
    }
  }
  for (; c < channels; ++c) {
#pragma omp simd
    for (std::int64_t p = 0; p < pixels; ++p) {
      const float d = tile[c * pixels + p] - reference[p];
      around[p] += d;
      squares[p] += d * d;
    }
  }
#pragma omp simd
  for (std::int64_t p = 0; p < pixels; ++p) {
    const float mean = around[p] / count;
    const float m2 = squares[p] - mean * around[p];
    around[p] = mean;
    squares[p] = make_scale(m2 < 0.0F ? 0.0F : m2, count, eps);  // a NaN is kept
  }
}

void tile_norms(const float* tile, std::int64_t channels, std::int64_t pixels, float eps,
                Norms& norms) {
  finish_norms(tile, channels, pixels, eps, norms.reference, norms.mean, norms.scale);
}

RESTORERT_MULTIVERSION void apply_line(const float* line, float* out, std::int64_t pixels,
                                       const float* reference, const float* mean,
                                       const float* scale, float weight, float bias) {
#pragma omp simd
  for (std::int64_t p = 0; p < pixels; ++p) {
    out[p] = apply(line[p], Norm{reference[p], mean[p], scale[p]}, weight, bias);
  }
}

// fp32 parameters for the loops.
std::vector<float> parameters_of(const Problem& problem) {
  std::vector<float> values(as_size(2 * problem.channels));
  for (std::int64_t c = 0; c < problem.channels; ++c) {
    values[as_size(c)] = load_parameter(problem.weight, problem.weight_dtype, c);
    values[as_size(problem.channels + c)] = load_parameter(problem.bias, problem.bias_dtype, c);
  }
  return values;
}

std::int64_t pixels_of_tile(std::int64_t channels) {
  return std::clamp<std::int64_t>(kTileElements / channels / 16 * 16, 16, kMaxPixels);
}

template <typename T>
void run_planes(const Problem& problem) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const std::int64_t channels = problem.channels;
  const std::int64_t pixels = problem.pixels;
  const std::vector<float> parameters = parameters_of(problem);
  const float* weight = parameters.data();
  const float* bias = weight + channels;
  const bool stream = is_streamed(problem.bytes());
  const std::int64_t width = std::min(pixels, pixels_of_tile(channels));
  const std::int64_t tiles = ceil_div(pixels, width);
  const std::int64_t room = channels * width;
  std::vector<float> scratch(as_size(max_threads() * room));
  parallel_for(problem.images * tiles, problem.bytes() >= kSerialBytes,
               [&](std::int64_t item, int worker) {
                 float* tile = scratch.data() + worker * room;
                 const std::int64_t first = item % tiles * width;
                 const std::int64_t count = std::min(width, pixels - first);
                 const std::int64_t begin = item / tiles * channels * pixels + first;
                 Norms norms;
                 if constexpr (kIsFloat<T>) {
                   copy_and_sum(x + begin, pixels, channels, count, tile, norms.reference);
                 } else {
                   widen(x + begin, channels, pixels, count, tile);
                   sum_tile(tile, channels, count, norms.reference);
                 }
                 tile_norms(tile, channels, count, problem.eps, norms);
                 alignas(64) float line[kMaxPixels];
                 alignas(64) T narrowed[kIsFloat<T> ? 1 : kMaxPixels];
                 for (std::int64_t c = 0; c < channels; ++c) {
                   T* to = out + begin + c * pixels;
                   float* target = line;
                   if constexpr (kIsFloat<T>) target = stream ? line : to;
                   apply_line(tile + c * count, target, count, norms.reference, norms.mean,
                              norms.scale, weight[c], bias[c]);
                   put<T>(target, count, stream, narrowed, to);
                 }
                 if (stream) stream_fence();
               });
}

// ---- NHWC ----

// `pixels` pixels of `channels` channels, dense. In place (x == out) or to separate memory.
RESTORERT_MULTIVERSION void normalise_pixels(const float* x, float* out, std::int64_t pixels,
                                             std::int64_t channels, const float* weight,
                                             const float* bias, float eps, Norms& norms) {
  const auto count = static_cast<float>(channels);
  const float inverse = 1.0F / count;
  for (std::int64_t p = 0; p < pixels; p += 4) {
    // Four pixels at once hide the latency of the additions; behind the end, the last one again.
    const std::int64_t p1 = std::min(p + 1, pixels - 1);
    const std::int64_t p2 = std::min(p + 2, pixels - 1);
    const std::int64_t p3 = std::min(p + 3, pixels - 1);
    const float* x0 = x + p * channels;
    const float* x1 = x + p1 * channels;
    const float* x2 = x + p2 * channels;
    const float* x3 = x + p3 * channels;
    float r0 = 0.0F;
    float r1 = 0.0F;
    float r2 = 0.0F;
    float r3 = 0.0F;
#pragma omp simd reduction(+ : r0, r1, r2, r3)
    for (std::int64_t c = 0; c < channels; ++c) {
      r0 += x0[c];
      r1 += x1[c];
      r2 += x2[c];
      r3 += x3[c];
    }
    r0 *= inverse;
    r1 *= inverse;
    r2 *= inverse;
    r3 *= inverse;
    float a0 = 0.0F;
    float a1 = 0.0F;
    float a2 = 0.0F;
    float a3 = 0.0F;
    float s0 = 0.0F;
    float s1 = 0.0F;
    float s2 = 0.0F;
    float s3 = 0.0F;
#pragma omp simd reduction(+ : a0, a1, a2, a3, s0, s1, s2, s3)
    for (std::int64_t c = 0; c < channels; ++c) {
      const float d0 = x0[c] - r0;
      const float d1 = x1[c] - r1;
      const float d2 = x2[c] - r2;
      const float d3 = x3[c] - r3;
      a0 += d0;
      a1 += d1;
      a2 += d2;
      a3 += d3;
      s0 += d0 * d0;
      s1 += d1 * d1;
      s2 += d2 * d2;
      s3 += d3 * d3;
    }
    norms.reference[p3] = r3;  // last to first: behind the end, all are the last pixel's
    norms.reference[p2] = r2;
    norms.reference[p1] = r1;
    norms.reference[p] = r0;
    norms.mean[p3] = a3;
    norms.mean[p2] = a2;
    norms.mean[p1] = a1;
    norms.mean[p] = a0;
    norms.scale[p3] = s3;
    norms.scale[p2] = s2;
    norms.scale[p1] = s1;
    norms.scale[p] = s0;
  }
#pragma omp simd
  for (std::int64_t p = 0; p < pixels; ++p) {
    const float mean = norms.mean[p] / count;
    const float m2 = norms.scale[p] - mean * norms.mean[p];
    norms.mean[p] = mean;
    norms.scale[p] = make_scale(m2 < 0.0F ? 0.0F : m2, count, eps);  // a NaN is kept
  }
  for (std::int64_t p = 0; p < pixels; ++p) {
    const float* from = x + p * channels;
    float* to = out + p * channels;
    const Norm norm{norms.reference[p], norms.mean[p], norms.scale[p]};
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) to[c] = apply(from[c], norm, weight[c], bias[c]);
  }
}

// Few channels: the loops run over pixels, on a transposed copy in `tile`.
RESTORERT_MULTIVERSION void transpose(const float* __restrict__ from, std::int64_t rows,
                                      std::int64_t columns, float* __restrict__ to) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) to[c * rows + r] = from[r * columns + c];
  }
}

void normalise_few_channels(const float* x, float* out, std::int64_t pixels, std::int64_t channels,
                            const float* weight, const float* bias, float eps, Norms& norms,
                            float* tile) {
  transpose(x, pixels, channels, tile);
  sum_tile(tile, channels, pixels, norms.reference);
  tile_norms(tile, channels, pixels, eps, norms);
  for (std::int64_t c = 0; c < channels; ++c) {
    float* line = tile + c * pixels;
    apply_line(line, line, pixels, norms.reference, norms.mean, norms.scale, weight[c], bias[c]);
  }
  transpose(tile, channels, pixels, out);
}

template <typename T>
void run_pixels(const Problem& problem) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const std::int64_t channels = problem.channels;
  const std::int64_t pixels = problem.images * problem.pixels;
  const std::vector<float> parameters = parameters_of(problem);
  const float* weight = parameters.data();
  const float* bias = weight + channels;
  const bool stream = is_streamed(problem.bytes());
  const std::int64_t run = std::clamp<std::int64_t>(kRunElements / channels, 4, kMaxRun);
  constexpr std::int64_t kRunsInBlock = 16;  // the unit of work
  const std::int64_t block = run * kRunsInBlock;
  // Room for a run in fp32, one in the dtype of x, and one transposed.
  const std::int64_t room = run * channels;
  const bool few = channels < kFewChannels;
  std::vector<float> scratch(as_size(max_threads() * room * (few ? 2 : 1)));
  std::vector<T> narrowed(as_size(kIsFloat<T> || !stream ? 0 : max_threads() * room));
  parallel_for(
      ceil_div(pixels, block), problem.bytes() >= kSerialBytes, [&](std::int64_t item, int worker) {
        float* wide = scratch.data() + worker * room * (few ? 2 : 1);
        T* narrow_room = narrowed.empty() ? nullptr : narrowed.data() + worker * room;
        Norms norms;
        const std::int64_t end = std::min(pixels, (item + 1) * block);
        for (std::int64_t p = item * block; p < end; p += run) {
          const std::int64_t count = std::min(run, end - p);
          const T* source = x + p * channels;
          T* to = out + p * channels;
          const float* from = wide;
          float* target = wide;
          if constexpr (kIsFloat<T>) {
            from = source;
            if (!stream) target = to;
          } else {
            widen(source, 1, 0, count * channels, wide);
          }
          if (few) {
            normalise_few_channels(from, target, count, channels, weight, bias, problem.eps, norms,
                                   wide + room);
          } else {
            normalise_pixels(from, target, count, channels, weight, bias, problem.eps, norms);
          }
          put<T>(target, count * channels, stream, narrow_room, to);
        }
        if (stream) stream_fence();
      });
}

}  // namespace

void run_cpu(const Problem& problem) {
  if (problem.empty()) return;
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

}  // namespace restorert::layer_norm_2d
