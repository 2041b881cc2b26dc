#include <pybind11/pybind11.h>

#include <cstdint>

#include "binding_helpers.h"
#include "core/not_compiled.h"
#include "ops/simple_gate/simple_gate.h"

namespace py = pybind11;

namespace restorert::simple_gate {
namespace {

void run(const TensorView& x, const TensorView& out, const TensorView* /*workspace*/,
         std::uintptr_t stream) {
  Problem problem;
  raise_if_error(check({x, out}, &problem));
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
  raise_if_error(check_input(kName, x));
  if (x.device != DeviceKind::kCpu && !has_cuda()) raise_if_error(cuda_not_compiled(kName));
  return 0;
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      "simple_gate", &run, py::arg("x"), py::arg("out"), py::arg("workspace") = nullptr,
      py::arg("stream") = 0,
      "Writes x[:, :C] * x[:, C:] to out.\n\n"
      "x: [N, 2C, H, W], contiguous or channels_last, float32, float16 or bfloat16. out: "
      "[N, C, H, W] in the dtype and layout of x. workspace: none is needed. stream: CUDA only, "
      "the cudaStream_t that orders the work, which is enqueued and not waited for.");
  module.def("simple_gate_workspace_size", &workspace_size, py::arg("x"),
             "Bytes of workspace that simple_gate needs: 0.");
}

}  // namespace restorert::simple_gate
