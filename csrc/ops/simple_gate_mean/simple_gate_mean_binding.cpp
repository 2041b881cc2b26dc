#include "binding_helpers.h"
#include "ops/simple_gate_mean/simple_gate_mean.h"

namespace py = pybind11;

namespace restorert::simple_gate_mean {
namespace {

void run(const TensorView& x, const TensorView& out, const TensorView& mean,
         const TensorView* workspace, std::uintptr_t stream) {
  Problem problem;
  raise_if_error(check({x, out, mean}, &problem));
  run_problem(kName, problem, {{"x", x}, {"out", out}, {"mean", mean}}, workspace, stream);
}

std::size_t workspace_size(const TensorView& x) {
  raise_if_error(check_input(x));
  return cuda_workspace_size({gated(picture_of(x))});
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      kName, &run, py::arg("x"), py::arg("out"), py::arg("mean"), py::arg("workspace") = nullptr,
      py::arg("stream") = 0,
      "Writes x[:, :C] * x[:, C:] to out and its mean over H x W to mean.\n\n"
      "x: [N, 2C, H, W], contiguous or channels_last, float32, float16 or bfloat16. out: "
      "[N, C, H, W] in the dtype and layout of x. mean: [N, C], float32, of the products before "
      "they are rounded. workspace: CUDA only, uint8, 16-byte aligned, at least "
      "simple_gate_mean_workspace_size(x) bytes. stream: CUDA only, the cudaStream_t that orders "
      "the work, which is enqueued and not waited for.");
  bind_workspace_size(module, kName, "x", &workspace_size);
}

}  // namespace restorert::simple_gate_mean
