// The simple gate on CUDA: one kernel, every element read and written once. A thread takes 16 bytes
// of each factor.
#include "core/device.cuh"
#include "core/dispatch.h"
#include "core/partition.h"
#include "ops/simple_gate/simple_gate.h"

namespace restorert::simple_gate {
namespace {

// One thread a vector of V elements; V divides columns. Index is 32 bits wide where every offset
// fits, because a 64-bit division costs as much as the element itself.
template <typename T, int V, typename Index>
__global__ void __launch_bounds__(kThreads)
    multiply_halves(const T* x, T* out, Index rows, Index columns) {
  const Index vectors = columns / V;
  const Index items = rows * vectors;
  const Index stride = static_cast<Index>(gridDim.x) * kThreads;
  for (Index item = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; item < items;
       item += stride) {
    const Index row = item / vectors;
    const Index at = item * V;
    const T* mine = x + (at + row * columns);  // 2 * row * columns + column
    const Pack<T, V> first = load_once<T, V>(mine);
    const Pack<T, V> second = load_once<T, V>(mine + columns);
    Pack<T, V> result;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      result.v[j] = from_float<T>(to_float(first.v[j]) * to_float(second.v[j]));
    }
    store_once(out + at, result);
  }
}

template <typename T, int V>
cudaError_t run(const Problem& problem, cudaStream_t stream) {
  const auto* x = static_cast<const T*>(problem.x);
  auto* out = static_cast<T*>(problem.out);
  const std::int64_t items = problem.rows * (problem.columns / V);
  const std::int64_t blocks = ceil_div(items, kThreads);
  // Offsets go up to twice the elements, and the loop's counter one grid past them.
  if (problem.rows * problem.columns < (std::int64_t{1} << 30)) {
    return launch(multiply_halves<T, V, unsigned>, blocks, kThreads, stream, x, out,
                  static_cast<unsigned>(problem.rows), static_cast<unsigned>(problem.columns));
  }
  return launch(multiply_halves<T, V, std::int64_t>, blocks, kThreads, stream, x, out, problem.rows,
                problem.columns);
}

bool aligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % kVectorBytes == 0;
}

}  // namespace

bool has_cuda() {
  return true;
}

Status run_cuda(const Problem& problem, void* stream) {
  if (problem.rows == 0 || problem.columns == 0) return {};
  const DeviceGuard guard(problem.device_index);
  if (guard.error() != cudaSuccess) {
    return cuda_status(kName, "selecting the CUDA device", guard.error());
  }
  auto* cuda_stream = static_cast<cudaStream_t>(stream);
  const cudaError_t error = dispatch_floating(problem.dtype, cudaErrorInvalidValue, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kLanes = static_cast<int>(kVectorBytes / sizeof(T));
    const bool vectors =
        problem.columns % kLanes == 0 && aligned(problem.x) && aligned(problem.out);
    return vectors ? run<T, kLanes>(problem, cuda_stream) : run<T, 1>(problem, cuda_stream);
  });
  return cuda_status(kName, "launching the CUDA kernel", error);
}

}  // namespace restorert::simple_gate
