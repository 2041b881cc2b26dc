#include "binding_helpers.h"
#include "ops/half_instance_norm/half_instance_norm.h"

namespace py = pybind11;

namespace restorert::half_instance_norm {
namespace {

void run(const TensorView& x, const TensorView& weight, const TensorView& bias,
         const TensorView& out, double eps, double negative_slope, const TensorView* workspace,
         std::uintptr_t stream) {
  Problem problem;
  raise_if_error(check({x, weight, bias, out, eps, negative_slope}, &problem));
  run_problem(kName, problem, {{"x", x}, {"out", out}}, workspace, stream);
}

std::size_t workspace_size(const TensorView& x) {
  raise_if_error(check_input(x));
  return cuda_workspace_size({picture_of(x)});
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      kName, &run, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("out"),
      py::arg("eps") = kDefaultEps, py::arg("negative_slope") = kDefaultNegativeSlope,
      py::arg("workspace") = nullptr, py::arg("stream") = 0,
      "Writes leaky_relu(cat(instance_norm(x[:, :C/2]) * weight + bias, x[:, C/2:])) to out.\n\n"
      "x, out: [N, C, H, W], C even, contiguous or channels_last, float32, float16 or bfloat16; "
      "out may be x. weight, bias: [C/2], float32 or the dtype of x. workspace: CUDA only, uint8, "
      "16-byte aligned, at least half_instance_norm_workspace_size(x) bytes. stream: CUDA only, "
      "the cudaStream_t that orders the work, which is enqueued and not waited for.");
  bind_workspace_size(module, kName, "x", &workspace_size);
}

}  // namespace restorert::half_instance_norm
