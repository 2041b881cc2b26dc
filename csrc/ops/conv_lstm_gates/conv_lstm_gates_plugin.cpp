// The gates of a convolutional LSTM as a TensorRT plugin. Inputs gates [N, 4C, H, W] and cell
// [N, C, H, W]; outputs hidden, in the type of gates, and the next cell, in the type of cell.
// Attribute forget_bias.
#include <limits>

#include "ops/conv_lstm_gates/conv_lstm_gates.h"
#include "tensorrt/formats.h"
#include "tensorrt/plugin.h"

namespace restorert::conv_lstm_gates {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;
using tensorrt::dtype_of;

struct Op {
  static constexpr const char* kName = conv_lstm_gates::kName;
  static constexpr std::int32_t kInputs = 2;
  static constexpr std::int32_t kOutputs = 2;

  struct Attributes {
    float forget_bias = kDefaultForgetBias;
  };
  static constexpr std::array<tensorrt::FloatAttribute<Attributes>, 1> kAttributes{
      {{"forget_bias", &Attributes::forget_bias, -std::numeric_limits<float>::infinity()}}};

  // All linear, or all dense NHWC: there an fp32 cell is kHWC beside gates in kHWC8.
  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors) {
    const PluginTensorDesc& desc = tensors[position].desc;
    const PluginTensorDesc& gates = tensors[0].desc;
    const PluginTensorDesc& cell = tensors[1].desc;
    const bool linear = desc.format == TensorFormat::kLINEAR;
    if (position == 0) {
      return dtype_of(gates.type) != DType::kOther && (linear || tensorrt::is_nhwc(gates));
    }
    const bool one_layout =
        gates.format == TensorFormat::kLINEAR ? linear : tensorrt::is_nhwc(desc);
    if (position == 1) {
      return one_layout && (desc.type == DataType::kFLOAT || desc.type == gates.type);
    }
    return one_layout && desc.type == (position == 2 ? gates.type : cell.type);
  }

  static void output_types(const DataType* inputs, DataType* outputs) {
    outputs[0] = inputs[0];
    outputs[1] = inputs[1];
  }

  static void output_shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs) {
    outputs[0] = inputs[1];
    outputs[1] = inputs[1];
  }

  static Status check_shapes(const PluginTensorDesc* inputs, const PluginTensorDesc* outputs) {
    const auto fail = [](const char* name, const char* expected) {
      return Status::invalid(std::string(conv_lstm_gates::kName) + ": argument '" + name +
                             "' has a wrong shape; expected " + expected);
    };
    const nvinfer1::Dims& gates = inputs[0].dims;
    if (!tensorrt::has_rank(gates, 4) || gates.d[1] % 4 != 0) {
      return fail("gates", "[N, 4C, H, W]");
    }
    const bool linear = inputs[0].format == TensorFormat::kLINEAR;
    const std::array<const PluginTensorDesc*, 4> descs{&inputs[0], &inputs[1], &outputs[0],
                                                       &outputs[1]};
    constexpr std::array<const char*, 4> kNames{"gates", "cell", "hidden", "next_cell"};
    for (std::size_t i = 0; i < descs.size(); ++i) {
      if (i > 0 && !tensorrt::has_sizes(descs[i]->dims,
                                        {gates.d[0], gates.d[1] / 4, gates.d[2], gates.d[3]})) {
        return fail(kNames[i], "a quarter of the channels of 'gates'");
      }
      if (!linear && !tensorrt::is_nhwc(*descs[i])) {
        return fail(kNames[i], "C to be a multiple of 8 in format kHWC8");
      }
    }
    return {};
  }

  static std::size_t workspace_size(const DynamicPluginTensorDesc* /*inputs*/) { return 0; }

  static Status enqueue(const Attributes& attributes, const PluginTensorDesc* input_descs,
                        const PluginTensorDesc* output_descs, const void* const* inputs,
                        void* const* outputs, void* /*workspace*/, cudaStream_t stream) {
    RESTORERT_RETURN_IF_ERROR(check_shapes(input_descs, output_descs));
    const nvinfer1::Dims& cell = input_descs[1].dims;
    const bool linear = input_descs[0].format == TensorFormat::kLINEAR;
    Problem problem;
    problem.rows = linear ? cell.d[0] : cell.d[0] * cell.d[2] * cell.d[3];
    problem.columns = linear ? cell.d[1] * cell.d[2] * cell.d[3] : cell.d[1];
    problem.dtype = dtype_of(input_descs[0].type);
    problem.cell_dtype = dtype_of(input_descs[1].type);
    problem.gates = inputs[0];
    problem.cell = inputs[1];
    problem.hidden = outputs[0];
    problem.next_cell = outputs[1];
    problem.forget_bias = attributes.forget_bias;
    return run_cuda(problem, stream);
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static tensorrt::PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::conv_lstm_gates
