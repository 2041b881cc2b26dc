// Takes the place of conv_lstm_gates_cuda.cu in a build without the CUDA toolkit.
#include "core/not_compiled.h"
#include "ops/conv_lstm_gates/conv_lstm_gates.h"

namespace restorert::conv_lstm_gates {

bool has_cuda() {
  return false;
}

Status run_cuda(const Problem& /*problem*/, void* /*stream*/) {
  return cuda_not_compiled(kName);
}

}  // namespace restorert::conv_lstm_gates
