// Channel attention as a TensorRT plugin. Inputs r and x [N, C, H, W], w_down [R, C], w_up [C, R],
// b_down [R], b_up [C]; output like r. x, or both biases, or all three may be left out, and the
// number of inputs says which: 3 and 5 are without x, 3 and 4 without biases. (A function in an
// ONNX file has no optional inputs for TensorRT's parser.) No attributes.
#include "ops/channel_attention/channel_attention.h"
#include "tensorrt/formats.h"
#include "tensorrt/plugin.h"

namespace restorert::channel_attention {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;
using tensorrt::dtype_of;

// Positions of the inputs; 0 where there is none.
struct Positions {
  std::int32_t x, w_down, w_up, b_down, b_up;
};

constexpr Positions positions_of(std::int32_t inputs) {
  const std::int32_t x = inputs % 2 == 0 ? 1 : 0;
  const bool biases = inputs > 4;
  return {x, x + 1, x + 2, biases ? x + 3 : 0, biases ? x + 4 : 0};
}

// `dims` and not the dims of `desc`: a profile asks about its largest shape.
Problem describe(const PluginTensorDesc& desc, const nvinfer1::Dims& dims) {
  Problem problem;
  problem.images = dims.d[0];
  problem.channels = dims.d[1];
  problem.pixels = dims.d[2] * dims.d[3];
  problem.dtype = dtype_of(desc.type);
  problem.layout = desc.format == TensorFormat::kLINEAR ? Layout::kNCHW : Layout::kNHWC;
  return problem;
}

struct Op {
  static constexpr const char* kName = channel_attention::kName;
  static constexpr std::int32_t kInputs = 6;
  static constexpr std::int32_t kFewestInputs = 3;
  static constexpr std::int32_t kOutputs = 1;

  struct Attributes {};
  static constexpr std::array<tensorrt::FloatAttribute<Attributes>, 0> kAttributes{};

  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors,
                       std::int32_t inputs) {
    const PluginTensorDesc& desc = tensors[position].desc;
    const PluginTensorDesc& r = tensors[0].desc;
    const bool linear = desc.format == TensorFormat::kLINEAR;
    if (position == 0) {
      return dtype_of(r.type) != DType::kOther && (linear || tensorrt::is_nhwc(r));
    }
    if (position == positions_of(inputs).x || position == inputs) {  // x and the output
      return desc.format == r.format && desc.type == r.type;
    }
    return linear && (desc.type == DataType::kFLOAT || desc.type == r.type);
  }

  static void output_types(const DataType* inputs, DataType* outputs) { outputs[0] = inputs[0]; }

  static void output_shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs) {
    outputs[0] = inputs[0];
  }

  static Status check_shapes(const PluginTensorDesc* inputs, const PluginTensorDesc* outputs,
                             std::int32_t count) {
    const auto fail = [](const char* name, const char* expected) {
      return Status::invalid(std::string(channel_attention::kName) + ": argument '" + name +
                             "' has a wrong shape; expected " + expected);
    };
    const Positions at = positions_of(count);
    const nvinfer1::Dims& r = inputs[0].dims;
    if (!tensorrt::has_rank(r, 4)) return fail("r", "[N, C, H, W]");
    if (inputs[0].format != TensorFormat::kLINEAR && !tensorrt::is_nhwc(inputs[0])) {
      return fail("r", "C to be a multiple of 8 in format kHWC8");
    }
    const auto like_r = [&](const PluginTensorDesc& desc) {
      return tensorrt::has_sizes(desc.dims, {r.d[0], r.d[1], r.d[2], r.d[3]});
    };
    if (at.x != 0 && !like_r(inputs[at.x])) return fail("x", "the shape of 'r'");
    const nvinfer1::Dims& down = inputs[at.w_down].dims;
    if (!tensorrt::has_rank(down, 2) || down.d[0] < 1 || down.d[1] != r.d[1]) {
      return fail("w_down", "[R, C]");
    }
    if (!tensorrt::has_sizes(inputs[at.w_up].dims, {r.d[1], down.d[0]})) {
      return fail("w_up", "[C, R]");
    }
    if (at.b_down != 0) {
      if (!tensorrt::has_sizes(inputs[at.b_down].dims, {down.d[0]})) return fail("b_down", "[R]");
      if (!tensorrt::has_sizes(inputs[at.b_up].dims, {r.d[1]})) return fail("b_up", "[C]");
    }
    if (!like_r(outputs[0])) return fail("out", "the shape of 'r'");
    return {};
  }

  static std::size_t workspace_size(const DynamicPluginTensorDesc* inputs) {
    const nvinfer1::Dims& largest = inputs[0].max;
    if (!tensorrt::has_rank(largest, 4)) return 0;
    return cuda_workspace_size(describe(inputs[0].desc, largest));
  }

  static Status enqueue(const Attributes& /*attributes*/, const PluginTensorDesc* input_descs,
                        const PluginTensorDesc* output_descs, const void* const* inputs,
                        void* const* outputs, void* workspace, cudaStream_t stream,
                        std::int32_t count) {
    RESTORERT_RETURN_IF_ERROR(check_shapes(input_descs, output_descs, count));
    const Positions at = positions_of(count);
    const auto parameter = [&](std::int32_t position) {
      return Parameter{inputs[position], dtype_of(input_descs[position].type)};
    };
    Problem problem = describe(input_descs[0], input_descs[0].dims);
    problem.hidden = input_descs[at.w_down].dims.d[0];
    problem.r = inputs[0];
    if (at.x != 0) problem.x = inputs[at.x];
    problem.w_down = parameter(at.w_down);
    problem.w_up = parameter(at.w_up);
    if (at.b_down != 0) {
      problem.b_down = parameter(at.b_down);
      problem.b_up = parameter(at.b_up);
    }
    problem.out = outputs[0];
    // TensorRT allocated what workspace_size asked for at the profile's largest shape.
    return run_cuda(problem, workspace, cuda_workspace_size(problem), stream);
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static tensorrt::PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::channel_attention
