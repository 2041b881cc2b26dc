// MemoryNet's three reads as a TensorRT plugin. Inputs x [N, C, H, W] and the memories part,
// instance and semantic, [prototypes, C] in fp32; outputs semantic, instance and part, like x.
// Attribute shrink.
#include "ops/memory_read/memory_read.h"
#include "tensorrt/formats.h"
#include "tensorrt/plugin.h"

namespace restorert::memory_read {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;
using tensorrt::dtype_of;

struct Op {
  static constexpr const char* kName = memory_read::kName;
  static constexpr std::int32_t kInputs = 4;
  static constexpr std::int32_t kOutputs = 3;

  struct Attributes {
    float shrink = kDefaultShrink;
  };
  static constexpr std::array<tensorrt::FloatAttribute<Attributes>, 1> kAttributes{
      {{"shrink", &Attributes::shrink, 0.0F}}};

  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors) {
    const PluginTensorDesc& desc = tensors[position].desc;
    const PluginTensorDesc& x = tensors[0].desc;
    const bool linear = desc.format == TensorFormat::kLINEAR;
    if (position == 0) {
      return dtype_of(x.type) != DType::kOther && (linear || tensorrt::is_nhwc(x));
    }
    if (position < kInputs) return linear && desc.type == DataType::kFLOAT;
    return desc.format == x.format && desc.type == x.type;
  }

  static void output_types(const DataType* inputs, DataType* outputs) {
    for (std::int32_t i = 0; i < kOutputs; ++i) outputs[i] = inputs[0];
  }

  static void output_shapes(const nvinfer1::DimsExprs* inputs, nvinfer1::DimsExprs* outputs) {
    for (std::int32_t i = 0; i < kOutputs; ++i) outputs[i] = inputs[0];
  }

  static Status check_shapes(const PluginTensorDesc* inputs, const PluginTensorDesc* outputs) {
    const auto fail = [](const char* name, const std::string& expected) {
      return Status::invalid(std::string(memory_read::kName) + ": argument '" + name +
                             "' has a wrong shape; expected " + expected);
    };
    const nvinfer1::Dims& x = inputs[0].dims;
    if (!tensorrt::has_rank(x, 4) || x.d[1] < 1 || x.d[1] > kMaxChannels) {
      return fail("x", "[N, C, H, W] with C from 1 to " + std::to_string(kMaxChannels));
    }
    if (inputs[0].format != TensorFormat::kLINEAR && !tensorrt::is_nhwc(inputs[0])) {
      return fail("x", "C to be a multiple of 8 in format kHWC8");
    }
    constexpr std::array<const char*, 3> kMemories{"part", "instance", "semantic"};
    for (std::size_t i = 0; i < kMemories.size(); ++i) {
      const nvinfer1::Dims& memory = inputs[i + 1].dims;
      if (!tensorrt::has_rank(memory, 2) || memory.d[0] < 1 || memory.d[0] > kMaxPrototypes ||
          memory.d[1] != x.d[1]) {
        return fail(kMemories[i], "[1 to " + std::to_string(kMaxPrototypes) + ", C]");
      }
    }
    constexpr std::array<const char*, 3> kOutputNames{"semantic_out", "instance_out", "part_out"};
    for (std::size_t i = 0; i < kOutputNames.size(); ++i) {
      if (!tensorrt::has_sizes(outputs[i].dims, {x.d[0], x.d[1], x.d[2], x.d[3]})) {
        return fail(kOutputNames[i], "the shape of 'x'");
      }
    }
    return {};
  }

  static std::size_t workspace_size(const DynamicPluginTensorDesc* /*inputs*/) { return 0; }

  static Status enqueue(const Attributes& attributes, const PluginTensorDesc* input_descs,
                        const PluginTensorDesc* output_descs, const void* const* inputs,
                        void* const* outputs, void* /*workspace*/, cudaStream_t stream) {
    RESTORERT_RETURN_IF_ERROR(check_shapes(input_descs, output_descs));
    const PluginTensorDesc& x = input_descs[0];
    Problem problem;
    problem.images = x.dims.d[0];
    problem.channels = x.dims.d[1];
    problem.pixels = x.dims.d[2] * x.dims.d[3];
    problem.dtype = dtype_of(x.type);
    problem.layout = x.format == TensorFormat::kLINEAR ? Layout::kNCHW : Layout::kNHWC;
    problem.x = inputs[0];
    for (std::size_t i = 0; i < problem.stages.size(); ++i) {
      problem.stages[i] = {static_cast<const float*>(inputs[i + 1]), input_descs[i + 1].dims.d[0],
                           outputs[2 - i]};
    }
    problem.shrink = attributes.shrink;
    return run_cuda(problem, stream);
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static tensorrt::PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::memory_read
