// Takes the place of memory_read_cuda.cu in a build without the CUDA toolkit.
#include "core/not_compiled.h"
#include "ops/memory_read/memory_read.h"

namespace restorert::memory_read {

bool has_cuda() {
  return false;
}

Status run_cuda(const Problem& /*problem*/, void* /*stream*/) {
  return cuda_not_compiled(kName);
}

}  // namespace restorert::memory_read
