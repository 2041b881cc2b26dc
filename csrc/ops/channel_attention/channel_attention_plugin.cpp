// Channel attention as a TensorRT plugin. Inputs r and x [N, C, H, W], w_down [R, C], w_up [C, R],
// b_down [R], b_up [C]; output like r. x, or both biases, or all three may be left out, and the
// number of inputs says which: 3 and 5 are without x, 3 and 4 without biases. (A function in an
// ONNX file has no optional inputs for TensorRT's parser.) No attributes.
#include "ops/channel_attention/channel_attention.h"
#include "tensorrt/plugin.h"

namespace restorert::channel_attention {
namespace {

using namespace tensorrt;

// Positions of the inputs; 0 where there is none.
struct Positions {
  std::int32_t x, w_down, w_up, b_down, b_up;
};

constexpr Positions positions_of(std::int32_t inputs) {
  const std::int32_t x = inputs % 2 == 0 ? 1 : 0;
  const bool biases = inputs > 4;
  return {x, x + 1, x + 2, biases ? x + 3 : 0, biases ? x + 4 : 0};
}

struct Op : OpDefaults<Problem, 6, 1> {
  static constexpr const char* kName = channel_attention::kName;
  static constexpr std::int32_t kFewestInputs = 3;

  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors,
                       std::int32_t inputs) {
    const PluginTensorDesc& desc = tensors[position].desc;
    const PluginTensorDesc& r = tensors[0].desc;
    if (position == 0) return is_picture(r);
    const bool picture = position == positions_of(inputs).x || position == inputs;
    return picture ? is_like(desc, r) : is_parameter(desc, r);
  }

  static Status check_shapes(const PluginTensorDesc* in, const PluginTensorDesc* out,
                             std::int32_t inputs) {
    RESTORERT_RETURN_IF_ERROR(check_picture(kName, "r", in[0]));
    const Positions at = positions_of(inputs);
    const Dims& r = in[0].dims;
    if (at.x != 0 && !has_sizes_of(in[at.x].dims, r, r.d[1])) {
      return wrong_shape(kName, "x", "the shape of 'r'");
    }
    const Dims& down = in[at.w_down].dims;
    if (!has_rank(down, 2) || down.d[0] < 1 || down.d[1] != r.d[1]) {
      return wrong_shape(kName, "w_down", "[R, C]");
    }
    if (!has_sizes(in[at.w_up].dims, {r.d[1], down.d[0]})) {
      return wrong_shape(kName, "w_up", "[C, R]");
    }
    if (at.b_down != 0) {
      if (!has_sizes(in[at.b_down].dims, {down.d[0]})) return wrong_shape(kName, "b_down", "[R]");
      if (!has_sizes(in[at.b_up].dims, {r.d[1]})) return wrong_shape(kName, "b_up", "[C]");
    }
    if (!has_sizes_of(out[0].dims, r, r.d[1])) return wrong_shape(kName, "out", "the shape of 'r'");
    return {};
  }

  static void fill(Problem& problem, const Attributes& /*attributes*/,
                   const PluginTensorDesc* descs, const void* const* inputs, void* const* outputs,
                   std::int32_t input_count) {
    const Positions at = positions_of(input_count);
    const auto parameter = [&](std::int32_t position) {
      return Parameter{inputs[position], dtype_of(descs[position].type)};
    };
    problem.hidden = descs[at.w_down].dims.d[0];
    problem.r = inputs[0];
    if (at.x != 0) problem.x = inputs[at.x];
    problem.w_down = parameter(at.w_down);
    problem.w_up = parameter(at.w_up);
    if (at.b_down != 0) {
      problem.b_down = parameter(at.b_down);
      problem.b_up = parameter(at.b_up);
    }
    problem.out = outputs[0];
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::channel_attention
