#include <pybind11/pybind11.h>

#include <cstdint>

#include "binding_helpers.h"
#include "core/not_compiled.h"
#include "ops/layer_norm_2d/layer_norm_2d.h"

namespace py = pybind11;

namespace restorert::layer_norm_2d {
namespace {

void run(const TensorView& x, const TensorView& weight, const TensorView& bias,
         const TensorView& out, double eps, const TensorView* /*workspace*/,
         std::uintptr_t stream) {
  Problem problem;
  raise_if_error(check({x, weight, bias, out, eps}, &problem));
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
  raise_if_error(check_input(x));
  if (x.device != DeviceKind::kCpu && !has_cuda()) raise_if_error(cuda_not_compiled(kName));
  return 0;
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      "layer_norm_2d", &run, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("out"),
      py::arg("eps") = kDefaultEps, py::arg("workspace") = nullptr, py::arg("stream") = 0,
      "Writes (x - mean) / sqrt(variance + eps) * weight + bias to out, mean and variance over the "
      "channels of each pixel.\n\n"
      "x, out: [N, C, H, W], contiguous or channels_last, float32, float16 or bfloat16; out may be "
      "x. weight, bias: [C], float32 or the dtype of x. workspace: none is needed. stream: CUDA "
      "only, the cudaStream_t that orders the work, which is enqueued and not waited for.");
  module.def("layer_norm_2d_workspace_size", &workspace_size, py::arg("x"),
             "Bytes of workspace that layer_norm_2d needs: 0.");
}

}  // namespace restorert::layer_norm_2d
