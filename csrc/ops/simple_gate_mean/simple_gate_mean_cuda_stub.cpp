// Takes the place of simple_gate_mean_cuda.cu in a build without the CUDA toolkit.
#include "core/not_compiled.h"
#include "ops/simple_gate_mean/simple_gate_mean.h"

namespace restorert::simple_gate_mean {

bool has_cuda() {
  return false;
}

Status run_cuda(const Problem& /*problem*/, void* /*workspace*/, std::size_t /*workspace_size*/,
                void* /*stream*/) {
  return cuda_not_compiled(kName);
}

}  // namespace restorert::simple_gate_mean
