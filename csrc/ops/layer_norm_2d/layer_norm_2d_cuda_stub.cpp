// Takes the place of layer_norm_2d_cuda.cu in a build without the CUDA toolkit.
#include "core/not_compiled.h"
#include "ops/layer_norm_2d/layer_norm_2d.h"

namespace restorert::layer_norm_2d {

bool has_cuda() {
  return false;
}

Status run_cuda(const Problem& /*problem*/, void* /*stream*/) {
  return cuda_not_compiled(kName);
}

}  // namespace restorert::layer_norm_2d
