// Takes the place of channel_attention_cuda.cu in a build without the CUDA toolkit.
#include "core/not_compiled.h"
#include "ops/channel_attention/channel_attention.h"

namespace restorert::channel_attention {

bool has_cuda() {
  return false;
}

Status run_cuda(const Problem& /*problem*/, void* /*workspace*/, std::size_t /*workspace_size*/,
                void* /*stream*/) {
  return cuda_not_compiled(kName);
}

}  // namespace restorert::channel_attention
