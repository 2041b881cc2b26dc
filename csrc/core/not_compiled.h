// What a call answers when its kernels were left out of this build.
#pragma once

#include <string>

#include "core/status.h"

namespace restorert {

inline Status cuda_not_compiled(const char* op) {
  return {StatusCode::kNotCompiled,
          std::string(op) +
              ": this build of restorert has no CUDA kernels; install the CUDA toolkit (nvcc on "
              "PATH) and rebuild in the source tree: pip install --force-reinstall --no-deps . -C "
              "cmake.define.CUDA=ON"};
}

}  // namespace restorert
