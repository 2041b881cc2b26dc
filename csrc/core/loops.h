// What the ops' loops on the CPU share: tiles of fp32 before and after them, and what runs in
// parallel or past the caches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/convert.h"
#include "core/parallel.h"
#include "core/partition.h"
#include "core/stream_store.h"

namespace restorert {

// Outputs from the first size on are streamed; below the second, threads cost more than they bring.
inline constexpr std::int64_t kStreamBytes = std::int64_t{32} << 20;
inline constexpr std::int64_t kSerialBytes = std::int64_t{64} << 10;

inline bool is_streamed(std::int64_t bytes) {
  return kHasStreamStores && bytes >= kStreamBytes;
}

template <typename T>
inline constexpr bool kIsFloat = std::is_same_v<T, float>;

inline std::size_t as_size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

// `count` elements as fp32: themselves, or a copy in `room`.
template <typename T>
const float* as_floats(const T* from, std::int64_t count, [[maybe_unused]] float* room) {
  if constexpr (kIsFloat<T>) {
    return from;
  } else {
    widen(from, 1, 0, count, room);
    return room;
  }
}

// Adds up an array. Four running sums hide the latency of the additions.
inline float sum_quarters(const float* x, std::int64_t count) {
  const std::int64_t quarter = count / 4;
  const float* x1 = x + quarter;
  const float* x2 = x1 + quarter;
  const float* x3 = x2 + quarter;
  float s0 = 0.0F;
  float s1 = 0.0F;
  float s2 = 0.0F;
  float s3 = 0.0F;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
  for (std::int64_t i = 0; i < quarter; ++i) {
    s0 += x[i];
    s1 += x1[i];
    s2 += x2[i];
    s3 += x3[i];
  }
  for (std::int64_t i = 4 * quarter; i < count; ++i) s0 += x[i];
  return (s0 + s1) + (s2 + s3);
}

// Writes `count` fp32 results to their place: narrowed, and past the caches with `stream`. `from`
// may already be the place itself; `room` is for what is narrowed and streamed.
template <typename T>
void put(const float* from, std::int64_t count, bool stream, [[maybe_unused]] T* room, T* to) {
  if constexpr (kIsFloat<T>) {
    if (stream) stream_copy(to, from, as_size(count) * sizeof(T));
  } else if (stream) {
    narrow(from, count, room);
    stream_copy(to, room, as_size(count) * sizeof(T));
  } else {
    narrow(from, count, to);
  }
}

}  // namespace restorert
