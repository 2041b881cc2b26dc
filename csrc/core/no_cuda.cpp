// Takes the place of every <op>_cuda.cu in a build without the CUDA toolkit.
#include <cstddef>
#include <string>

#include "core/status.h"
#include "ops.h"

namespace restorert {
namespace {

Status cuda_not_compiled(const char* op) {
  return {StatusCode::kNotCompiled,
          std::string(op) +
              ": this build of restorert has no CUDA kernels; install the CUDA toolkit (nvcc on "
              "PATH) and rebuild in the source tree: pip install --force-reinstall --no-deps . -C "
              "cmake.define.CUDA=ON"};
}

}  // namespace
}  // namespace restorert

#define RESTORERT_WITHOUT_CUDA(op)                             \
  namespace restorert::op {                                    \
  struct Problem;                                              \
  Status run_cuda(const Problem&, void*, std::size_t, void*) { \
    return cuda_not_compiled(#op);                             \
  }                                                            \
  }
RESTORERT_FOR_EACH_OP(RESTORERT_WITHOUT_CUDA)
