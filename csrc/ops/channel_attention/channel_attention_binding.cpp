#include "binding_helpers.h"
#include "ops/channel_attention/channel_attention.h"

namespace py = pybind11;

namespace restorert::channel_attention {
namespace {

void run(const TensorView& r, const TensorView* x, const TensorView& w_down, const TensorView& w_up,
         const TensorView* b_down, const TensorView* b_up, const TensorView* sums,
         const TensorView& out, const TensorView* workspace, std::uintptr_t stream) {
  Problem problem;
  raise_if_error(check({r, x, w_down, w_up, b_down, b_up, sums, out}, &problem));
  run_problem(kName, problem, {{"r", r}, {"x", x != nullptr ? *x : r}, {"out", out}}, workspace,
              stream);
}

std::size_t workspace_size(const TensorView& r) {
  raise_if_error(check_input(r));
  return cuda_workspace_size({picture_of(r)});
}

}  // namespace

void bind(py::module_& module) {
  module.def(
      kName, &run, py::arg("r"), py::arg("x").none(true), py::arg("w_down"), py::arg("w_up"),
      py::arg("b_down").none(true), py::arg("b_up").none(true), py::arg("sums").none(true),
      py::arg("out"), py::arg("workspace") = nullptr, py::arg("stream") = 0,
      "Writes r * s + x to out, s = sigmoid(w_up relu(w_down mean_hw(r) + b_down) + b_up).\n\n"
      "r, x, out: [N, C, H, W], contiguous or channels_last, float32, float16 or bfloat16; x may "
      "be None (r * s alone); out may be r or x. w_down: [R, C], w_up: [C, R]; b_down: [R], b_up: "
      "[C], or None for both: float32 or the dtype of r. sums: None, or float32 [N, C], r summed "
      "over H x W. workspace: CUDA only, uint8, 16-byte aligned, at least "
      "channel_attention_workspace_size(r) bytes. stream: CUDA only, the cudaStream_t that orders "
      "the work, which is enqueued and not waited for.");
  bind_workspace_size(module, kName, "r", &workspace_size);
}

}  // namespace restorert::channel_attention
