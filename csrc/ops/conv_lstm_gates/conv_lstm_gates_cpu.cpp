// The gates of a convolutional LSTM on the CPU: one plain fp32 loop that the compiler vectorises,
// over tiles that stay in the L1 cache. fp16 and bf16 are converted tile by tile.
#include <algorithm>

#include "core/loops.h"
#include "ops/conv_lstm_gates/conv_lstm_gates.h"

namespace restorert::conv_lstm_gates {
namespace {

constexpr std::int64_t kTile = 512;          // elements of one gate; seven such runs are 14 KiB
constexpr std::int64_t kBlock = 32 * kTile;  // elements; the unit of work of a thread
constexpr std::int64_t kSerial = 8 * kTile;  // below this many elements, threads cost more

// `rows` rows of the four gates, which lie `gate_stride` elements apart and begin anew every
// `row_stride` elements; the other three are dense, `columns` elements a row.
RESTORERT_MULTIVERSION void step_rows(const float* __restrict__ gates, std::int64_t row_stride,
                                      std::int64_t gate_stride, const float* cell, float* hidden,
                                      float* next_cell, std::int64_t rows, std::int64_t columns,
                                      float forget_bias) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* i = gates + row * row_stride;
    const float* j = i + gate_stride;
    const float* f = j + gate_stride;
    const float* o = f + gate_stride;
    const float* from = cell + row * columns;
    float* to = next_cell + row * columns;
    float* out = hidden + row * columns;
    // next_cell may be cell.
#pragma omp simd
    for (std::int64_t k = 0; k < columns; ++k) {
      const float next = next_cell_of(i[k], j[k], f[k], from[k], forget_bias);
      to[k] = next;
      out[k] = hidden_of(o[k], next);
    }
  }
}

// Room for one tile's fp32 numbers and results; one number where nothing is converted.
template <typename T, typename CellT>
struct Scratch {
  alignas(64) float gates[kIsFloat<T> ? 1 : 4 * kTile];
  alignas(64) float cell[kIsFloat<CellT> ? 1 : kTile];
  alignas(64) float hidden[kTile];
  alignas(64) float next_cell[kTile];
  alignas(64) T narrow_hidden[kIsFloat<T> ? 1 : kTile];
  alignas(64) CellT narrow_cell[kIsFloat<CellT> ? 1 : kTile];
};

// A tile: `rows` whole rows, or a part of one. `at` is its first element in the dense tensors.
template <typename T, typename CellT>
void run_tile(const Problem& problem, Scratch<T, CellT>& scratch, bool stream, const T* gates,
              std::int64_t at, std::int64_t rows, std::int64_t columns) {
  const auto* cell = static_cast<const CellT*>(problem.cell) + at;
  auto* hidden = static_cast<T*>(problem.hidden) + at;
  auto* next_cell = static_cast<CellT*>(problem.next_cell) + at;
  const std::int64_t count = rows * columns;

  std::int64_t gate_stride = problem.columns();
  const std::int64_t row_stride = 4 * gate_stride;
  const float* wide_gates = scratch.gates;
  if constexpr (kIsFloat<T>) {
    wide_gates = gates;
  } else if (columns == gate_stride) {
    widen(gates, 1, 0, 4 * count, scratch.gates);
  } else {
    widen(gates, 4, gate_stride, columns, scratch.gates);
    gate_stride = columns;
  }
  const float* wide_cell = as_floats(cell, count, scratch.cell);

  float* hidden_to = scratch.hidden;
  float* cell_to = scratch.next_cell;
  if constexpr (kIsFloat<T>) hidden_to = stream ? hidden_to : hidden;
  if constexpr (kIsFloat<CellT>) cell_to = stream ? cell_to : next_cell;
  step_rows(wide_gates, row_stride, gate_stride, wide_cell, hidden_to, cell_to, rows, columns,
            problem.forget_bias);
  put<T>(hidden_to, count, stream, scratch.narrow_hidden, hidden);
  put<CellT>(cell_to, count, stream, scratch.narrow_cell, next_cell);
}

template <typename T, typename CellT>
void run(const Problem& problem) {
  const auto* gates = static_cast<const T*>(problem.gates);
  const std::int64_t rows = problem.rows();
  const std::int64_t columns = problem.columns();
  const std::int64_t elements = rows * columns;
  const bool stream = is_streamed(elements * static_cast<std::int64_t>(sizeof(T) + sizeof(CellT)));
  // Short rows: several in a tile of at most kTile elements, and a block of work is whole rows.
  // Long ones are cut.
  const std::int64_t tile_rows = std::max<std::int64_t>(1, kTile / columns);
  const std::int64_t tile_columns = std::min(columns, kTile);
  const std::int64_t block_rows = std::max<std::int64_t>(1, kBlock / columns);
  const std::int64_t block_columns = std::min(columns, kBlock);
  const std::int64_t blocks_a_row = ceil_div(columns, block_columns);
  const std::int64_t row_blocks = ceil_div(rows, block_rows);
  parallel_for(row_blocks * blocks_a_row, elements >= kSerial, [&](std::int64_t item, int) {
    Scratch<T, CellT> scratch;
    const std::int64_t first_row = item / blocks_a_row * block_rows;
    const std::int64_t last_row = std::min(first_row + block_rows, rows);
    const std::int64_t first_column = item % blocks_a_row * block_columns;
    const std::int64_t last_column = std::min(first_column + block_columns, columns);
    for (std::int64_t row = first_row; row < last_row; row += tile_rows) {
      for (std::int64_t c = first_column; c < last_column; c += tile_columns) {
        run_tile<T, CellT>(problem, scratch, stream, gates + 4 * row * columns + c,
                           row * columns + c, std::min(tile_rows, last_row - row),
                           std::min(tile_columns, last_column - c));
      }
    }
    if (stream) stream_fence();
  });
}

}  // namespace

void run_cpu(const Problem& problem) {
  if (problem.empty()) return;
  dispatch_floating(problem.dtype, false, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (problem.cell_dtype == DType::kFloat32) {
      run<T, float>(problem);
    } else {
      run<T, T>(problem);
    }
    return true;
  });
}

}  // namespace restorert::conv_lstm_gates
