// How CUDA kernels cut up pictures; host code, so that it is tested without a GPU.
#pragma once

#include <cstdint>
#include <initializer_list>

namespace restorert {

inline constexpr int kThreads = 256;              // of a block
inline constexpr std::int64_t kVectorBytes = 16;  // one thread's widest load

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

// Whether lines of `bytes` bytes at these addresses split into vectors of `width` bytes.
inline bool splits_into(std::int64_t width, std::int64_t bytes,
                        std::initializer_list<const void*> addresses) {
  bool splits = bytes % width == 0;
  for (const void* address : addresses) {
    splits = splits &&
             reinterpret_cast<std::uintptr_t>(address) % static_cast<std::uintptr_t>(width) == 0;
  }
  return splits;
}

// A line of `pixels` elements cut into `count` slabs of `size` elements; the last may be shorter,
// and slabs past the end are empty.
struct Split {
  std::int64_t count;
  std::int64_t size;
};

// How a block of kThreads covers the channel vectors of a pixel: `lanes` neighbouring threads take
// neighbouring vectors, `rows` groups of them take different pixels, `blocks` blocks cover a pixel.
struct ChannelTile {
  std::int64_t lanes;
  std::int64_t rows;
  std::int64_t blocks;
};

constexpr ChannelTile tile_channels(std::int64_t vectors) {
  const std::int64_t blocks = ceil_div(vectors, 32);
  const std::int64_t lanes = ceil_div(vectors, blocks);
  return {lanes, kThreads / lanes, blocks};
}

}  // namespace restorert
