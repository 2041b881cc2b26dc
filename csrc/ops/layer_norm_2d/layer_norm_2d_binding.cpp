#include "binding_helpers.h"
#include "ops/layer_norm_2d/layer_norm_2d.h"

namespace py = pybind11;

namespace restorert::layer_norm_2d {
namespace {

void run(const TensorView& x, const TensorView& weight, const TensorView& bias,
         const TensorView& out, double eps, const TensorView* workspace, std::uintptr_t stream) {
  Problem problem;
  raise_if_error(check({x, weight, bias, out, eps}, &problem));
  run_problem(kName, problem, {{"x", x}}, workspace, stream);
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      kName, &run, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("out"),
      py::arg("eps") = kDefaultEps, py::arg("workspace") = nullptr, py::arg("stream") = 0,
      "Writes (x - mean) / sqrt(variance + eps) * weight + bias to out, mean and variance over the "
      "channels of each pixel.\n\n"
      "x, out: [N, C, H, W], contiguous or channels_last, float32, float16 or bfloat16; out may be "
      "x. weight, bias: [C], float32 or the dtype of x. workspace: none is needed. stream: CUDA "
      "only, the cudaStream_t that orders the work, which is enqueued and not waited for.");
  bind_workspace_size(module, kName, "x", &no_workspace);
}

}  // namespace restorert::layer_norm_2d
