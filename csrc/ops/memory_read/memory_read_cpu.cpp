// MemoryNet's three reads on the CPU: blocks of pixels are gathered into planes of fp32, then 16
// pixels at a time, one a vector lane, go through all three reads. Their weights, one vector a
// prototype, stay in the L1 cache (6 KiB for 100 prototypes).
#include <algorithm>
#include <limits>
#include <vector>

#include "core/loops.h"
#include "ops/memory_read/memory_read.h"

namespace restorert::memory_read {
namespace {

constexpr int kLanes = 16;            // pixels that go through the reads together
constexpr std::int64_t kBlock = 256;  // pixels; the unit of work of a thread

// One read of kLanes pixels: query and out are [C][stride] with the pixels side by side, memory is
// [prototypes][C], weights is room for [prototypes][kLanes].
template <int C>
RESTORERT_MULTIVERSION void read_pixels(const float* __restrict__ query,
                                        const float* __restrict__ memory, std::int64_t prototypes,
                                        float shrink, std::int64_t stride,
                                        float* __restrict__ weights, float* __restrict__ out) {
  float largest[kLanes];
  RESTORERT_LANES for (int j = 0; j < kLanes; ++j) {
    largest[j] = -std::numeric_limits<float>::infinity();
  }
  for (std::int64_t k = 0; k < prototypes; ++k) {
    const float* row = memory + k * C;
    float* logit = weights + k * kLanes;
    RESTORERT_LANES for (int j = 0; j < kLanes; ++j) {
      float dot = query[j] * row[0];
      for (int c = 1; c < C; ++c) dot += query[c * stride + j] * row[c];
      logit[j] = dot;
      largest[j] = dot > largest[j] ? dot : largest[j];
    }
  }

  float sum[kLanes] = {};
  for (std::int64_t k = 0; k < prototypes; ++k) {
    float* weight = weights + k * kLanes;
    RESTORERT_LANES for (int j = 0; j < kLanes; ++j) {
      const float e = exp_of_negative(weight[j] - largest[j]);
      weight[j] = e;
      sum[j] += e;
    }
  }

  float limit[kLanes];
  float kept[kLanes] = {};
  float total[C][kLanes] = {};
  RESTORERT_LANES for (int j = 0; j < kLanes; ++j) limit[j] = shrink * sum[j];
  for (std::int64_t k = 0; k < prototypes; ++k) {
    const float* row = memory + k * C;
    const float* weight = weights + k * kLanes;
    float left[kLanes];
    RESTORERT_LANES for (int j = 0; j < kLanes; ++j) {
      left[j] = hard_shrink(weight[j], limit[j]);
      kept[j] += left[j];
    }
    for (int c = 0; c < C; ++c) {
      RESTORERT_LANES for (int j = 0; j < kLanes; ++j) total[c][j] += left[j] * row[c];
    }
  }
  float scale[kLanes];
  RESTORERT_LANES for (int j = 0; j < kLanes; ++j) scale[j] = normalizer(kept[j], sum[j]);
  for (int c = 0; c < C; ++c) {
    RESTORERT_LANES for (int j = 0; j < kLanes; ++j) out[c * stride + j] = total[c][j] * scale[j];
  }
}

// `count` pixels from `from` on (their first channel) to planes of fp32, kBlock apart.
template <typename T>
void gather(const Problem& problem, const T* from, std::int64_t count, float* room, float* planes) {
  const std::int64_t channels = problem.channels;
  if (problem.layout == Layout::kNCHW) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const T* line = from + c * problem.pixels;
      if constexpr (kIsFloat<T>) {
        std::copy(line, line + count, planes + c * kBlock);
      } else {
        widen(line, 1, 0, count, planes + c * kBlock);
      }
    }
    return;
  }
  const float* wide = as_floats(from, count * channels, room);
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t p = 0; p < count; ++p) planes[c * kBlock + p] = wide[p * channels + c];
  }
}

// The way back.
template <typename T>
void scatter(const Problem& problem, const float* planes, std::int64_t count, float* room, T* to) {
  const std::int64_t channels = problem.channels;
  if (problem.layout == Layout::kNCHW) {
    for (std::int64_t c = 0; c < channels; ++c) {
      T* line = to + c * problem.pixels;
      if constexpr (kIsFloat<T>) {
        std::copy(planes + c * kBlock, planes + c * kBlock + count, line);
      } else {
        narrow(planes + c * kBlock, count, line);
      }
    }
    return;
  }
  float* wide = room;
  if constexpr (kIsFloat<T>) wide = to;
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t p = 0; p < count; ++p) wide[p * channels + c] = planes[c * kBlock + p];
  }
  if constexpr (!kIsFloat<T>) narrow(wide, count * channels, to);
}

template <typename T, int C>
void run(const Problem& problem) {
  const std::int64_t channels = problem.channels;
  const std::int64_t blocks = ceil_div(problem.pixels, kBlock);

  std::array<std::vector<float>, 3> memories;  // [prototypes][C], filled up with zeros
  std::int64_t most = 0;
  for (std::size_t s = 0; s < memories.size(); ++s) {
    const Stage& stage = problem.stages[s];
    memories[s].resize(as_size(stage.prototypes * C));
    for (std::int64_t k = 0; k < stage.prototypes; ++k) {
      std::copy(stage.memory + k * channels, stage.memory + (k + 1) * channels,
                memories[s].begin() + k * C);
    }
    most = std::max(most, stage.prototypes);
  }

  // A worker's weights, its planes of x and of the three results, and room to change layouts.
  const std::int64_t planes = C * kBlock;
  const std::int64_t room = most * kLanes + 5 * planes;
  std::vector<float> scratch(as_size(max_threads() * room));
  parallel_for(problem.images * blocks, true, [&](std::int64_t item, int worker) {
    float* weights = scratch.data() + worker * room;
    float* queries = weights + most * kLanes;
    float* change = queries + 4 * planes;
    const std::int64_t first = item % blocks * kBlock;
    const std::int64_t count = std::min(kBlock, problem.pixels - first);
    const std::int64_t begin = item / blocks * channels * problem.pixels +
                               (problem.layout == Layout::kNCHW ? first : first * channels);
    // What lies behind the last pixel, or above the last channel, is some earlier number or zero.
    gather(problem, static_cast<const T*>(problem.x) + begin, count, change, queries);
    for (std::int64_t p = 0; p < count; p += kLanes) {
      for (std::size_t s = 0; s < memories.size(); ++s) {
        float* query = queries + static_cast<std::int64_t>(s) * planes + p;
        read_pixels<C>(query, memories[s].data(), problem.stages[s].prototypes, problem.shrink,
                       kBlock, weights, query + planes);
      }
    }
    for (std::size_t s = 0; s < memories.size(); ++s) {
      scatter(problem, queries + static_cast<std::int64_t>(s + 1) * planes, count, change,
              static_cast<T*>(problem.stages[s].out) + begin);
    }
  });
}

}  // namespace

void run_cpu(const Problem& problem) {
  if (problem.empty()) return;
  dispatch_floating(problem.dtype, false, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return dispatch_channels<bool>(problem.channels, [&](auto channels) {
      run<T, decltype(channels)::value>(problem);
      return true;
    });
  });
}

}  // namespace restorert::memory_read
