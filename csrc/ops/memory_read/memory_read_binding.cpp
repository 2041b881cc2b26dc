#include "binding_helpers.h"
#include "ops/memory_read/memory_read.h"

namespace py = pybind11;

namespace restorert::memory_read {
namespace {

void run(const TensorView& x, const TensorView& part, const TensorView& instance,
         const TensorView& semantic, const TensorView& semantic_out, const TensorView& instance_out,
         const TensorView& part_out, double shrink, const TensorView* workspace,
         std::uintptr_t stream) {
  Problem problem;
  raise_if_error(
      check({x, part, instance, semantic, semantic_out, instance_out, part_out, shrink}, &problem));
  run_problem(kName, problem, {{"x", x}}, workspace, stream);
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      kName, &run, py::arg("x"), py::arg("part"), py::arg("instance"), py::arg("semantic"),
      py::arg("semantic_out"), py::arg("instance_out"), py::arg("part_out"),
      py::arg("shrink") = kDefaultShrink, py::arg("workspace") = nullptr, py::arg("stream") = 0,
      "Reads the part memory with x, the instance memory with that, the semantic memory with that; "
      "a read is softmax(query . memory^T), hard shrink, L1 norm, weighted sum of the memory.\n\n"
      "x and the outputs: [N, C, H, W], C from 1 to 16, contiguous or channels_last, float32, "
      "float16 or bfloat16. part, instance, semantic: [1 to 512, C], contiguous, float32. "
      "workspace: none is needed. stream: CUDA only, the cudaStream_t that orders the work, which "
      "is enqueued and not waited for.");
  bind_workspace_size(module, kName, "x", &no_workspace);
}

}  // namespace restorert::memory_read
