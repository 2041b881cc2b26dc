#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "binding_helpers.h"
#include "core/check.h"
#include "core/not_compiled.h"
#include "ops/half_instance_norm/half_instance_norm.h"

namespace py = pybind11;

namespace restorert::half_instance_norm {
namespace {

void run(const TensorView& x, const TensorView& weight, const TensorView& bias,
         const TensorView& out, double eps, double negative_slope, const TensorView* workspace,
         std::uintptr_t stream) {
  Problem problem;
  raise_if_error(check({x, weight, bias, out, eps, negative_slope}, &problem));
  if (workspace != nullptr) {
    raise_if_error(check_workspace(kName, {"workspace", *workspace}, {"x", x}));
    raise_if_error(check_disjoint(kName, {"out", out}, {"workspace", *workspace}));
    raise_if_error(check_disjoint(kName, {"workspace", *workspace}, {"x", x}));
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
      "half_instance_norm", &run, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("out"),
      py::arg("eps") = kDefaultEps, py::arg("negative_slope") = kDefaultNegativeSlope,
      py::arg("workspace") = nullptr, py::arg("stream") = 0,
      "Writes leaky_relu(cat(instance_norm(x[:, :C/2]) * weight + bias, x[:, C/2:])) to out.\n\n"
      "x, out: [N, C, H, W], C even, contiguous or channels_last, float32, float16 or bfloat16; "
      "out "
      "may be x. weight, bias: [C/2], float32 or the dtype of x. workspace: CUDA only, uint8, "
      "16-byte "
      "aligned, at least half_instance_norm_workspace_size(x) bytes. stream: CUDA only, the "
      "cudaStream_t that orders the work, which is enqueued and not waited for.");
  module.def("half_instance_norm_workspace_size", &workspace_size, py::arg("x"),
             "Bytes of workspace that half_instance_norm needs for x: 0 on the CPU.");
}

}  // namespace restorert::half_instance_norm
