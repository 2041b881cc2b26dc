// Channel attention on the CPU: one pass over r for its sums, the two small products in double, one
// pass over r and x for the result. Plain fp32 loops that the compiler vectorises; fp16 and bf16
// are converted tile by tile.
//
// Sums are fp32 over a few thousand elements at most and double beyond, in an order that depends on
// the shape alone.
#include <algorithm>
#include <vector>

#include "core/loops.h"
#include "ops/channel_attention/channel_attention.h"

namespace restorert::channel_attention {
namespace {

constexpr std::int64_t kChunk = 4096;         // elements; 16 KiB in fp32
constexpr std::int64_t kBlock = 64 * kChunk;  // elements; the unit of work of a thread
constexpr std::int64_t kTile = 2048;          // elements converted at once
constexpr std::int64_t kRows = 4;             // periods that are added up at once
constexpr std::int64_t kFold = 64;            // times that fp32 sums grow before they fold

bool is_parallel(const Problem& problem) {
  return problem.bytes() >= kSerialBytes;
}

// ---- loops ----

RESTORERT_MULTIVERSION float sum_chunk(const float* x, std::int64_t count) {
  return sum_quarters(x, count);
}

// Adds kRows lines of `period` elements to `sums`.
RESTORERT_MULTIVERSION void add_rows(const float* __restrict__ x, std::int64_t period,
                                     float* __restrict__ sums) {
  const float* x1 = x + period;
  const float* x2 = x1 + period;
  const float* x3 = x2 + period;
#pragma omp simd
  for (std::int64_t i = 0; i < period; ++i) sums[i] += (x[i] + x1[i]) + (x2[i] + x3[i]);
}

RESTORERT_MULTIVERSION void add_row(const float* __restrict__ x, std::int64_t count,
                                    float* __restrict__ sums) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) sums[i] += x[i];
}

// The result may lie on r or on x.
RESTORERT_MULTIVERSION void apply_line(const float* r, const float* x, float* out,
                                       std::int64_t count, float scale) {
  if (x == nullptr) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) out[i] = r[i] * scale;
    return;
  }
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) out[i] = r[i] * scale + x[i];
}

// Like apply_line, with `period` scales that repeat.
RESTORERT_MULTIVERSION void apply_periodic(const float* r, const float* x, float* out,
                                           std::int64_t count, const float* scales,
                                           std::int64_t period) {
  for (std::int64_t begin = 0; begin < count; begin += period) {
    const std::int64_t length = begin + period < count ? period : count - begin;
    const float* from = r + begin;
    float* to = out + begin;
    if (x == nullptr) {
#pragma omp simd
      for (std::int64_t i = 0; i < length; ++i) to[i] = from[i] * scales[i];
    } else {
      const float* more = x + begin;
#pragma omp simd
      for (std::int64_t i = 0; i < length; ++i) to[i] = from[i] * scales[i] + more[i];
    }
  }
}

// Applies `function(r, x, out, count)`, an fp32 loop, to a span of T in steps of `step` elements,
// for fp16 and bf16 at most kTile. x may be null.
//
// Unlike half instance norm this does not store past the caches: measured at 1 x 40 x 720 x 1280 in
// fp32, the whole op takes as long with memory that was written before, and a fifth longer with
// memory that the system has just handed out.
template <typename T, typename Function>
void transform_span(const T* r, const T* x, T* out, std::int64_t count, std::int64_t step,
                    const Function& function) {
  if constexpr (kIsFloat<T>) {
    static_cast<void>(step);
    function(r, x, out, count);
  } else {
    alignas(64) float wide_r[kTile];
    alignas(64) float wide_x[kTile];
    for (std::int64_t i = 0; i < count; i += step) {
      const std::int64_t length = std::min(step, count - i);
      widen(r + i, 1, 0, length, wide_r);
      if (x != nullptr) widen(x + i, 1, 0, length, wide_x);
      function(wide_r, x == nullptr ? nullptr : wide_x, wide_r, length);
      narrow(wide_r, length, out + i);
    }
  }
}

// ---- the two small products ----

// scales[n * channels + c] from sums[(n * slabs + slab) * channels + c], slab by slab.
template <typename Sum>
std::vector<float> make_scales(const Problem& problem, const Sum* sums, std::int64_t slabs) {
  const std::int64_t channels = problem.channels;
  std::vector<float> scales(as_size(problem.images * channels));
  std::vector<double> mean(as_size(channels));
  std::vector<double> hidden(as_size(problem.hidden));
  const auto dot = [](const Parameter& matrix, std::int64_t row, const Parameter& bias,
                      const std::vector<double>& vector) {
    const auto length = static_cast<std::int64_t>(vector.size());
    double sum = bias.data == nullptr
                     ? 0.0
                     : static_cast<double>(load_parameter(bias.data, bias.dtype, row));
    for (std::int64_t i = 0; i < length; ++i) {
      sum += static_cast<double>(load_parameter(matrix.data, matrix.dtype, row * length + i)) *
             vector[as_size(i)];
    }
    return sum;
  };
  for (std::int64_t n = 0; n < problem.images; ++n) {
    std::fill(mean.begin(), mean.end(), 0.0);
    for (std::int64_t slab = 0; slab < slabs; ++slab) {
      const Sum* line = sums + (n * slabs + slab) * channels;
      for (std::int64_t c = 0; c < channels; ++c) {
        mean[as_size(c)] += static_cast<double>(line[c]);
      }
    }
    for (double& value : mean) value /= static_cast<double>(problem.pixels);
    for (std::int64_t j = 0; j < problem.hidden; ++j) {
      const double value = dot(problem.w_down, j, problem.b_down, mean);
      hidden[as_size(j)] = value < 0.0 ? 0.0 : value;  // keeps a NaN
    }
    for (std::int64_t c = 0; c < channels; ++c) {
      const double value = dot(problem.w_up, c, problem.b_up, hidden);
      scales[as_size(n * channels + c)] = static_cast<float>(1.0 / (1.0 + std::exp(-value)));
    }
  }
  return scales;
}

// ---- NCHW ----

template <typename T>
double sum_block(const T* r, std::int64_t count) {
  alignas(64) float room[kIsFloat<T> ? 1 : kChunk];
  double sum = 0.0;
  for (std::int64_t i = 0; i < count; i += kChunk) {
    const std::int64_t length = std::min(kChunk, count - i);
    sum += static_cast<double>(sum_chunk(as_floats(r + i, length, room), length));
  }
  return sum;
}

template <typename T>
void run_planes(const Problem& problem) {
  const auto* r = static_cast<const T*>(problem.r);
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const std::int64_t pixels = problem.pixels;
  const std::int64_t channels = problem.channels;
  const std::int64_t blocks = ceil_div(pixels, kBlock);
  const std::int64_t items = problem.images * channels * blocks;
  std::vector<float> scales;
  if (problem.sums != nullptr) {
    scales = make_scales(problem, problem.sums, 1);
  } else {
    std::vector<double> sums(as_size(items));  // [image][block][channel]
    parallel_for(items, is_parallel(problem), [&](std::int64_t item, int) {
      const std::int64_t plane = item / blocks;
      const std::int64_t block = item % blocks;
      const std::int64_t begin = block * kBlock;
      sums[as_size((plane / channels * blocks + block) * channels + plane % channels)] =
          sum_block(r + plane * pixels + begin, std::min(kBlock, pixels - begin));
    });
    scales = make_scales(problem, sums.data(), blocks);
  }
  parallel_for(items, is_parallel(problem), [&](std::int64_t item, int) {
    // Backwards: what was summed last is still in the cache.
    const std::int64_t rest = items - 1 - item;
    const std::int64_t plane = rest / blocks;
    const std::int64_t begin = rest % blocks * kBlock;
    const std::int64_t offset = plane * pixels + begin;
    const float scale = scales[as_size(plane)];
    transform_span(r + offset, x == nullptr ? nullptr : x + offset, out + offset,
                   std::min(kBlock, pixels - begin), kTile,
                   [&](const float* from, const float* more, float* to, std::int64_t length) {
                     apply_line(from, more, to, length, scale);
                   });
  });
}

// ---- NHWC ----

// Sums over `pixels` pixels into totals[channels]. A line of `period` elements holds whole pixels;
// `scratch` is room for (1 + kRows) * period numbers.
template <typename T>
void sum_pixels(const T* r, std::int64_t pixels, std::int64_t channels, std::int64_t period,
                float* scratch, double* totals) {
  float* sums = scratch;
  float* room = scratch + period;
  const std::int64_t count = pixels * channels;
  std::fill(totals, totals + channels, 0.0);
  for (std::int64_t begin = 0; begin < count; begin += kFold * kRows * period) {
    const std::int64_t end = std::min(count, begin + kFold * kRows * period);
    std::fill(sums, sums + period, 0.0F);
    std::int64_t i = begin;
    for (; i + kRows * period <= end; i += kRows * period) {
      add_rows(as_floats(r + i, kRows * period, room), period, sums);
    }
    for (; i < end; i += period) {
      const std::int64_t length = std::min(period, end - i);
      add_row(as_floats(r + i, length, room), length, sums);
    }
    for (std::int64_t first = 0; first < period; first += channels) {
      for (std::int64_t c = 0; c < channels; ++c) {
        totals[c] += static_cast<double>(sums[first + c]);
      }
    }
  }
}

template <typename T>
void run_pixels(const Problem& problem) {
  const auto* r = static_cast<const T*>(problem.r);
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const std::int64_t channels = problem.channels;
  const std::int64_t pixels = problem.pixels;
  // Several pixels make a line, which keeps the loops over a line long.
  const std::int64_t period =
      std::max<std::int64_t>(1, std::min(kTile / channels, pixels)) * channels;
  // At most 256 blocks a picture, so that the partial sums stay small.
  const std::int64_t block = std::max(ceil_div(kBlock, channels), ceil_div(pixels, 256));
  const std::int64_t blocks = ceil_div(pixels, block);
  const std::int64_t items = problem.images * blocks;
  std::vector<float> scales;
  if (problem.sums != nullptr) {
    scales = make_scales(problem, problem.sums, 1);
  } else {
    std::vector<double> sums(as_size(items * channels));
    const std::int64_t room = (1 + kRows) * period;
    std::vector<float> scratch(as_size(max_threads() * room));
    parallel_for(items, is_parallel(problem), [&](std::int64_t item, int worker) {
      const std::int64_t begin = item % blocks * block;
      sum_pixels(r + (item / blocks * pixels + begin) * channels, std::min(block, pixels - begin),
                 channels, period, scratch.data() + worker * room, sums.data() + item * channels);
    });
    scales = make_scales(problem, sums.data(), blocks);
  }
  std::vector<float> lines(as_size(problem.images * period));
  for (std::int64_t n = 0; n < problem.images; ++n) {
    for (std::int64_t i = 0; i < period; ++i) {
      lines[as_size(n * period + i)] = scales[as_size(n * channels + i % channels)];
    }
  }
  parallel_for(items, is_parallel(problem), [&](std::int64_t item, int) {
    const std::int64_t rest = items - 1 - item;
    const std::int64_t n = rest / blocks;
    const float* line = lines.data() + n * period;
    const std::int64_t begin = rest % blocks * block;
    const std::int64_t count = std::min(block, pixels - begin) * channels;
    const std::int64_t offset = (n * pixels + begin) * channels;
    const auto span = [&](std::int64_t first, std::int64_t length, const float* factors,
                          std::int64_t repeat, std::int64_t step) {
      const std::int64_t at = offset + first;
      transform_span(r + at, x == nullptr ? nullptr : x + at, out + at, length, step,
                     [&](const float* from, const float* more, float* to, std::int64_t size) {
                       apply_periodic(from, more, to, size, factors, repeat);
                     });
    };
    if (period <= kTile) {
      span(0, count, line, period, period);
      return;
    }
    // So many channels that a tile is a part of a pixel.
    for (std::int64_t first = 0; first < count; first += channels) {
      for (std::int64_t c = 0; c < channels; c += kTile) {
        const std::int64_t length = std::min(kTile, channels - c);
        span(first + c, length, line + c, length, length);
      }
    }
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

}  // namespace restorert::channel_attention
