// MemoryNet's three reads as a TensorRT plugin. Inputs x [N, C, H, W] and the memories part,
// instance and semantic, [prototypes, C] in fp32; outputs semantic, instance and part, like x.
// Attribute shrink.
#include "ops/memory_read/memory_read.h"
#include "tensorrt/plugin.h"

namespace restorert::memory_read {
namespace {

using namespace tensorrt;

struct Op : OpDefaults<Problem, 4, 3> {
  static constexpr const char* kName = memory_read::kName;

  struct Attributes {
    float shrink = kDefaultShrink;
  };
  static constexpr std::array<FloatAttribute<Attributes>, 1> kAttributes{
      {{"shrink", &Attributes::shrink, 0.0F}}};

  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors,
                       std::int32_t /*inputs*/) {
    const PluginTensorDesc& desc = tensors[position].desc;
    const PluginTensorDesc& x = tensors[0].desc;
    if (position == 0) return is_picture(x);
    return position < kInputs ? is_linear(desc) && desc.type == DataType::kFLOAT : is_like(desc, x);
  }

  static Status check_shapes(const PluginTensorDesc* in, const PluginTensorDesc* out,
                             std::int32_t /*inputs*/) {
    RESTORERT_RETURN_IF_ERROR(check_picture(kName, "x", in[0]));
    const Dims& x = in[0].dims;
    if (x.d[1] < 1 || x.d[1] > kMaxChannels) {
      return wrong_shape(kName, "x", "C from 1 to " + std::to_string(kMaxChannels));
    }
    constexpr std::array<const char*, 3> kMemories{"part", "instance", "semantic"};
    for (std::size_t i = 0; i < kMemories.size(); ++i) {
      const Dims& memory = in[i + 1].dims;
      if (!has_rank(memory, 2) || memory.d[0] < 1 || memory.d[0] > kMaxPrototypes ||
          memory.d[1] != x.d[1]) {
        return wrong_shape(kName, kMemories[i], "[1 to " + std::to_string(kMaxPrototypes) + ", C]");
      }
    }
    constexpr std::array<const char*, 3> kOutputNames{"semantic_out", "instance_out", "part_out"};
    for (std::size_t i = 0; i < kOutputNames.size(); ++i) {
      if (!has_sizes_of(out[i].dims, x, x.d[1])) {
        return wrong_shape(kName, kOutputNames[i], "the shape of 'x'");
      }
    }
    return {};
  }

  static void fill(Problem& problem, const Attributes& attributes, const PluginTensorDesc* descs,
                   const void* const* inputs, void* const* outputs, std::int32_t /*input_count*/) {
    problem.x = inputs[0];
    for (std::size_t i = 0; i < problem.stages.size(); ++i) {
      problem.stages[i] = {static_cast<const float*>(inputs[i + 1]), descs[i + 1].dims.d[0],
                           outputs[2 - i]};
    }
    problem.shrink = attributes.shrink;
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::memory_read
