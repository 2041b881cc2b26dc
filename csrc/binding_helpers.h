// What the ops' bindings share: running a checked problem, and turning a status into a Python
// exception.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/check.h"
#include "core/status.h"
#include "core/tensor_view.h"

namespace restorert {

// Raises ValueError, TypeError, NotCompiledError or RuntimeError with the status's message, or does
// nothing. The caller holds the GIL.
void raise_if_error(const Status& status);

// Runs `problem` without the GIL where the first of `tensors` lies. `workspace` may be null; else
// it shares no memory with any of them. `stream` is a cudaStream_t by value.
template <typename Problem>
void run_problem(const char* op, const Problem& problem, std::initializer_list<Argument> tensors,
                 const TensorView* workspace, std::uintptr_t stream) {
  const Argument& first = *tensors.begin();
  void* memory = nullptr;
  std::size_t size = 0;
  if (workspace != nullptr) {
    const Argument argument{"workspace", *workspace};
    raise_if_error(check_workspace(op, argument, first));
    for (const Argument& tensor : tensors) raise_if_error(check_disjoint(op, argument, tensor));
    memory = workspace->data;
    size = static_cast<std::size_t>(workspace->shape[0]);
  }
  Status status;
  {
    const pybind11::gil_scoped_release release;
    if (first.view.device == DeviceKind::kCpu) {
      run_cpu(problem);
    } else {
      status = run_cuda(problem, memory, size, reinterpret_cast<void*>(stream));  // NOLINT
    }
  }
  raise_if_error(status);
}

// The workspace of an op that needs none.
inline std::size_t no_workspace(const TensorView& /*view*/) {
  return 0;
}

// Binds <op>_workspace_size(<argument>), where `size` gives the bytes that CUDA needs.
template <typename Size>
void bind_workspace_size(pybind11::module_& module, const std::string& op, const char* argument,
                         const Size& size) {
  module.def((op + "_workspace_size").c_str(),
             [size](const TensorView& view) {
               const std::size_t bytes = size(view);
               return view.device == DeviceKind::kCpu ? 0 : bytes;
             },
             pybind11::arg(argument),
             ("Bytes of workspace that " + op + " needs for this tensor: 0 on the CPU.").c_str());
}

}  // namespace restorert
