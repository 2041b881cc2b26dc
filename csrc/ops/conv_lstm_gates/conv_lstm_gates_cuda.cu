// The gates of a convolutional LSTM on CUDA: one kernel, every element read and written once. A
// thread takes 16 bytes of each gate and the elements of the cell that belong to them.
#include "core/device.cuh"
#include "core/partition.h"
#include "ops/conv_lstm_gates/conv_lstm_gates.h"

namespace restorert::conv_lstm_gates {
namespace {

// V elements of type T as fp32, in loads of at most 16 bytes.
template <typename T, int V>
__device__ __forceinline__ void load_values(float (&values)[V], const T* address) {
  constexpr int kLanes = V * sizeof(T) > 16 ? 16 / static_cast<int>(sizeof(T)) : V;
#pragma unroll
  for (int k = 0; k < V; k += kLanes) {
    const Pack<T, kLanes> pack = load_once<T, kLanes>(address + k);
#pragma unroll
    for (int j = 0; j < kLanes; ++j) values[k + j] = to_float(pack.v[j]);
  }
}

template <typename T, int V>
__device__ __forceinline__ void store_values(T* address, const float (&values)[V]) {
  constexpr int kLanes = V * sizeof(T) > 16 ? 16 / static_cast<int>(sizeof(T)) : V;
#pragma unroll
  for (int k = 0; k < V; k += kLanes) {
    Pack<T, kLanes> pack;
#pragma unroll
    for (int j = 0; j < kLanes; ++j) pack.v[j] = from_float<T>(values[k + j]);
    store_once(address + k, pack);
  }
}

// One thread a vector of V elements; V divides columns. Index is 32 bits wide where every offset
// fits, because a 64-bit division costs as much as the element itself.
template <typename T, typename CellT, int V, typename Index>
__global__ void __launch_bounds__(kThreads)
    step_elements(const T* gates, const CellT* cell, T* hidden, CellT* next_cell, Index rows,
                  Index columns, float forget_bias) {
  const Index vectors = columns / V;
  const Index items = rows * vectors;
  const Index stride = static_cast<Index>(gridDim.x) * kThreads;
  for (Index item = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; item < items;
       item += stride) {
    const Index row = item / vectors;
    const Index at = item * V;
    const T* mine = gates + (at + 3 * row * columns);  // 4 * row * columns + column
    float i[V];
    float j[V];
    float f[V];
    float o[V];
    float state[V];
    load_values<T, V>(i, mine);
    load_values<T, V>(j, mine + columns);
    load_values<T, V>(f, mine + 2 * columns);
    load_values<T, V>(o, mine + 3 * columns);
    load_values<CellT, V>(state, cell + at);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      state[k] = next_cell_of(i[k], j[k], f[k], state[k], forget_bias);
      o[k] = hidden_of(o[k], state[k]);
    }
    store_values<CellT, V>(next_cell + at, state);
    store_values<T, V>(hidden + at, o);
  }
}

template <typename T, typename CellT, int V>
cudaError_t run_vectors(const Problem& problem, cudaStream_t stream) {
  const auto* gates = static_cast<const T*>(problem.gates);
  const auto* cell = static_cast<const CellT*>(problem.cell);
  auto* hidden = static_cast<T*>(problem.hidden);
  auto* next_cell = static_cast<CellT*>(problem.next_cell);
  const std::int64_t rows = problem.rows();
  const std::int64_t columns = problem.columns();
  const std::int64_t blocks = ceil_div(rows * (columns / V), kThreads);
  // Offsets go up to four times the elements, and the loop's counter one grid past them.
  if (rows * columns < (std::int64_t{1} << 29)) {
    return launch(step_elements<T, CellT, V, unsigned>, blocks, kThreads, stream, gates, cell,
                  hidden, next_cell, static_cast<unsigned>(rows), static_cast<unsigned>(columns),
                  problem.forget_bias);
  }
  return launch(step_elements<T, CellT, V, std::int64_t>, blocks, kThreads, stream, gates, cell,
                hidden, next_cell, rows, columns, problem.forget_bias);
}

template <typename T, typename CellT>
cudaError_t run(const Problem& problem, cudaStream_t stream) {
  constexpr int kLanes = static_cast<int>(kVectorBytes / sizeof(T));
  const bool vectors =
      splits_into(kVectorBytes, problem.columns() * sizeof(T),
                  {problem.gates, problem.cell, problem.hidden, problem.next_cell});
  return vectors ? run_vectors<T, CellT, kLanes>(problem, stream)
                 : run_vectors<T, CellT, 1>(problem, stream);
}

}  // namespace

Status run_cuda(const Problem& problem, void* /*workspace*/, std::size_t /*workspace_size*/,
                void* stream) {
  if (problem.empty()) return {};
  auto* cuda_stream = static_cast<cudaStream_t>(stream);
  return launch_on(kName, problem.device_index, [&] {
    return dispatch_floating(problem.dtype, cudaErrorInvalidValue, [&](auto tag) {
      using T = typename decltype(tag)::type;
      return problem.cell_dtype == DType::kFloat32 ? run<T, float>(problem, cuda_stream)
                                                   : run<T, T>(problem, cuda_stream);
    });
  });
}

}  // namespace restorert::conv_lstm_gates
