#include <pybind11/pybind11.h>

#include <cstdint>

#include "binding_helpers.h"
#include "core/check.h"
#include "core/not_compiled.h"
#include "ops/simple_gate_mean/simple_gate_mean.h"

namespace py = pybind11;

namespace restorert::simple_gate_mean {
namespace {

void run(const TensorView& x, const TensorView& out, const TensorView& mean,
         const TensorView* workspace, std::uintptr_t stream) {
  Problem problem;
  raise_if_error(check({x, out, mean}, &problem));
  if (workspace != nullptr) {
    raise_if_error(check_workspace(kName, {"workspace", *workspace}, {"x", x}));
    for (const Argument& argument :
         {Argument{"x", x}, Argument{"out", out}, Argument{"mean", mean}}) {
      raise_if_error(check_disjoint(kName, {"workspace", *workspace}, argument));
    }
  }
  Status status;
  {
    const py::gil_scoped_release release;
    if (x.device == DeviceKind::kCpu) {
      run_cpu(problem);
    } else {
      status = run_cuda(problem, workspace != nullptr ? workspace->data : nullptr,
                        workspace != nullptr ? static_cast<std::size_t>(workspace->shape[0]) : 0,
                        reinterpret_cast<void*>(stream));  // NOLINT: a cudaStream_t by value
    }
  }
  raise_if_error(status);
}

std::size_t workspace_size(const TensorView& x) {
  raise_if_error(check_input(x));
  if (x.device == DeviceKind::kCpu) return 0;
  if (!has_cuda()) raise_if_error(cuda_not_compiled(kName));
  return cuda_workspace_size(describe(x));
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      "simple_gate_mean", &run, py::arg("x"), py::arg("out"), py::arg("mean"),
      py::arg("workspace") = nullptr, py::arg("stream") = 0,
      "Writes x[:, :C] * x[:, C:] to out and its mean over H x W to mean.\n\n"
      "x: [N, 2C, H, W], contiguous or channels_last, float32, float16 or bfloat16. out: "
      "[N, C, H, W] in the dtype and layout of x. mean: [N, C], float32, of the products before "
      "they are rounded. workspace: CUDA only, uint8, 16-byte aligned, at least "
      "simple_gate_mean_workspace_size(x) bytes. stream: CUDA only, the cudaStream_t that orders "
      "the work, which is enqueued and not waited for.");
  module.def("simple_gate_mean_workspace_size", &workspace_size, py::arg("x"),
             "Bytes of workspace that simple_gate_mean needs for x: 0 on the CPU.");
}

}  // namespace restorert::simple_gate_mean
