// Takes the place of half_instance_norm_cuda.cu in a build without the CUDA toolkit.
#include "core/not_compiled.h"
#include "ops/half_instance_norm/half_instance_norm.h"

namespace restorert::half_instance_norm {

bool has_cuda() {
  return false;
}

Status run_cuda(const Problem& /*problem*/, void* /*workspace*/, std::size_t /*workspace_size*/,
                void* /*stream*/) {
  return cuda_not_compiled(kName);
}

}  // namespace restorert::half_instance_norm
