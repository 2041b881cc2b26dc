// The simple gate on the CPU: plain fp32 loops that the compiler vectorises, a tile that fits the
// L1 cache at a time; fp16 and bf16 are converted tile by tile.
#include <algorithm>
#include <type_traits>

#include "core/convert.h"
#include "core/dispatch.h"
#include "core/parallel.h"
#include "core/stream_store.h"
#include "ops/simple_gate/simple_gate.h"

namespace restorert::simple_gate {
namespace {

constexpr std::int64_t kTile = 512;  // elements of a factor; short, so that reads and writes mix
constexpr std::int64_t kBlock = 512 * kTile;                   // the unit of work
constexpr std::int64_t kStreamBytes = std::int64_t{32} << 20;  // outputs from here on are streamed
constexpr std::int64_t kSerialBytes = std::int64_t{64} << 10;  // below this, threads cost more

// `rows` rows of two factors, `stride` elements apart, the second `gap` elements behind the first.
RESTORERT_MULTIVERSION void multiply_rows(const float* __restrict__ x, std::int64_t stride,
                                          std::int64_t gap, float* __restrict__ out,
                                          std::int64_t rows, std::int64_t columns) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* first = x + r * stride;
    const float* second = first + gap;
    float* to = out + r * columns;
#pragma omp simd
    for (std::int64_t i = 0; i < columns; ++i) to[i] = first[i] * second[i];
  }
}

template <typename T>
inline constexpr bool kIsFloat = std::is_same_v<T, float>;

template <typename T>
struct Scratch {
  alignas(64) float factors[kIsFloat<T> ? 1 : 2 * kTile];
  alignas(64) float product[kTile];
  alignas(64) T narrowed[kIsFloat<T> ? 1 : kTile];
};

// A tile: `rows` whole rows, or a part of one.
template <typename T>
void run_tile(Scratch<T>& scratch, std::int64_t row_columns, bool stream, const T* x, T* out,
              std::int64_t rows, std::int64_t columns) {
  const std::int64_t count = rows * columns;
  const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
  if constexpr (kIsFloat<T>) {
    multiply_rows(x, 2 * row_columns, row_columns, stream ? scratch.product : out, rows, columns);
    if (stream) stream_copy(out, scratch.product, bytes);
  } else {
    if (columns == row_columns) {
      widen(x, 1, 0, 2 * count, scratch.factors);
    } else {
      widen(x, 2, row_columns, columns, scratch.factors);
    }
    multiply_rows(scratch.factors, 2 * columns, columns, scratch.product, rows, columns);
    narrow(scratch.product, count, stream ? scratch.narrowed : out);
    if (stream) stream_copy(out, scratch.narrowed, bytes);
  }
}

template <typename T>
void run(const Problem& problem) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const std::int64_t columns = problem.columns;
  const std::int64_t bytes =
      problem.rows * columns * static_cast<std::int64_t>(item_size(problem.dtype));
  const bool stream = kHasStreamStores && bytes >= kStreamBytes;
  // Short rows: several in a tile, and a block of work is whole rows. Long ones are cut.
  const std::int64_t tile_rows = std::max<std::int64_t>(1, kTile / columns);
  const std::int64_t tile_columns = std::min(columns, kTile);
  const std::int64_t block_rows = std::max<std::int64_t>(1, kBlock / columns);
  const std::int64_t block_columns = std::min(columns, kBlock);
  const std::int64_t blocks_a_row = (columns + block_columns - 1) / block_columns;
  const std::int64_t row_blocks = (problem.rows + block_rows - 1) / block_rows;
  parallel_for(row_blocks * blocks_a_row, bytes >= kSerialBytes, [&](std::int64_t item, int) {
    Scratch<T> scratch;
    const std::int64_t first_row = item / blocks_a_row * block_rows;
    const std::int64_t last_row = std::min(first_row + block_rows, problem.rows);
    const std::int64_t first_column = item % blocks_a_row * block_columns;
    const std::int64_t last_column = std::min(first_column + block_columns, columns);
    for (std::int64_t row = first_row; row < last_row; row += tile_rows) {
      for (std::int64_t c = first_column; c < last_column; c += tile_columns) {
        run_tile<T>(scratch, columns, stream, x + 2 * row * columns + c, out + row * columns + c,
                    std::min(tile_rows, last_row - row), std::min(tile_columns, last_column - c));
      }
    }
    if (stream) stream_fence();
  });
}

}  // namespace

void run_cpu(const Problem& problem) {
  if (problem.rows == 0 || problem.columns == 0) return;
  dispatch_floating(problem.dtype, false, [&](auto tag) {
    run<typename decltype(tag)::type>(problem);
    return true;
  });
}

}  // namespace restorert::simple_gate
