// The gates of a convolutional LSTM as a TensorRT plugin. Inputs gates [N, 4C, H, W] and cell
// [N, C, H, W]; outputs hidden, in the type of gates, and the next cell, in the type of cell.
// Attribute forget_bias.
#include <limits>
#include <utility>

#include "ops/conv_lstm_gates/conv_lstm_gates.h"
#include "tensorrt/plugin.h"

namespace restorert::conv_lstm_gates {
namespace {

using namespace tensorrt;

struct Op : OpDefaults<Problem, 2, 2> {
  static constexpr const char* kName = conv_lstm_gates::kName;

  struct Attributes {
    float forget_bias = kDefaultForgetBias;
  };
  static constexpr std::array<FloatAttribute<Attributes>, 1> kAttributes{
      {{"forget_bias", &Attributes::forget_bias, -std::numeric_limits<float>::infinity()}}};

  // All linear, or all dense NHWC: there an fp32 cell is kHWC beside gates in kHWC8.
  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors,
                       std::int32_t /*inputs*/) {
    const PluginTensorDesc& desc = tensors[position].desc;
    const PluginTensorDesc& gates = tensors[0].desc;
    if (position == 0) return is_picture(gates);
    if (!(is_linear(gates) ? is_linear(desc) : is_nhwc(desc))) return false;
    if (position == 1) return desc.type == DataType::kFLOAT || desc.type == gates.type;
    return desc.type == tensors[position - 2].desc.type;
  }

  static void output_types(const DataType* in, DataType* out) { std::copy_n(in, 2, out); }

  static void output_shapes(const DimsExprs* in, DimsExprs* out, IExprBuilder& /*builder*/) {
    out[0] = out[1] = in[1];
  }

  static Status check_shapes(const PluginTensorDesc* in, const PluginTensorDesc* out,
                             std::int32_t /*inputs*/) {
    RESTORERT_RETURN_IF_ERROR(check_picture(kName, "gates", in[0]));
    const Dims& gates = in[0].dims;
    if (gates.d[1] % 4 != 0) return wrong_shape(kName, "gates", "[N, 4C, H, W]");
    for (const auto& [name, desc] :
         {std::pair{"cell", in[1]}, std::pair{"hidden", out[0]}, std::pair{"next_cell", out[1]}}) {
      if (!has_sizes_of(desc.dims, gates, gates.d[1] / 4)) {
        return wrong_shape(kName, name, "a quarter of the channels of 'gates'");
      }
      if (!is_linear(in[0])) RESTORERT_RETURN_IF_ERROR(check_picture(kName, name, desc));
    }
    return {};
  }

  static Problem describe(const PluginTensorDesc& gates, const Dims& dims) {
    Problem problem{picture_of(gates, dims)};
    problem.channels /= 4;
    return problem;
  }

  static void fill(Problem& problem, const Attributes& attributes, const PluginTensorDesc* descs,
                   const void* const* inputs, void* const* outputs, std::int32_t /*input_count*/) {
    problem.cell_dtype = dtype_of(descs[1].type);
    problem.gates = inputs[0];
    problem.cell = inputs[1];
    problem.hidden = outputs[0];
    problem.next_cell = outputs[1];
    problem.forget_bias = attributes.forget_bias;
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::conv_lstm_gates
