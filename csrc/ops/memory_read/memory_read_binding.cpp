#include <pybind11/pybind11.h>

#include <cstdint>

#include "binding_helpers.h"
#include "core/not_compiled.h"
#include "ops/memory_read/memory_read.h"

namespace py = pybind11;

namespace restorert::memory_read {
namespace {

void run(const TensorView& x, const TensorView& part, const TensorView& instance,
         const TensorView& semantic, const TensorView& semantic_out, const TensorView& instance_out,
         const TensorView& part_out, double shrink, const TensorView* /*workspace*/,
         std::uintptr_t stream) {
  Problem problem;
  raise_if_error(
      check({x, part, instance, semantic, semantic_out, instance_out, part_out, shrink}, &problem));
  Status status;
  {
    const py::gil_scoped_release release;
    if (x.device == DeviceKind::kCpu) {
      run_cpu(problem);
    } else {
      status = run_cuda(problem, reinterpret_cast<void*>(stream));  // NOLINT: a cudaStream_t
    }
  }
  raise_if_error(status);
}

std::size_t workspace_size(const TensorView& x) {
  if (x.device != DeviceKind::kCpu && !has_cuda()) raise_if_error(cuda_not_compiled(kName));
  return 0;
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      "memory_read", &run, py::arg("x"), py::arg("part"), py::arg("instance"), py::arg("semantic"),
      py::arg("semantic_out"), py::arg("instance_out"), py::arg("part_out"),
      py::arg("shrink") = kDefaultShrink, py::arg("workspace") = nullptr, py::arg("stream") = 0,
      "Reads the part memory with x, the instance memory with that, the semantic memory with that; "
      "a read is softmax(query . memory^T), hard shrink, L1 norm, weighted sum of the memory.\n\n"
      "x and the outputs: [N, C, H, W], C from 1 to 16, contiguous or channels_last, float32, "
      "float16 or bfloat16. part, instance, semantic: [1 to 512, C], contiguous, float32. "
      "workspace: none is needed. stream: CUDA only, the cudaStream_t that orders the work, which "
      "is enqueued and not waited for.");
  module.def("memory_read_workspace_size", &workspace_size, py::arg("x"),
             "Bytes of workspace that memory_read needs: 0.");
}

}  // namespace restorert::memory_read
