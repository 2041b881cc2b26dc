// Takes the place of simple_gate_cuda.cu in a build without the CUDA toolkit.
#include "core/not_compiled.h"
#include "ops/simple_gate/simple_gate.h"

namespace restorert::simple_gate {

bool has_cuda() {
  return false;
}

Status run_cuda(const Problem& /*problem*/, void* /*stream*/) {
  return cuda_not_compiled(kName);
}

}  // namespace restorert::simple_gate
