// The simple gate with its mean as a TensorRT plugin. Input x [N, 2C, H, W]; outputs [N, C, H, W]
// in its type and the mean [N, C] in fp32. No attributes.
#include "ops/simple_gate_mean/simple_gate_mean.h"
#include "tensorrt/plugin.h"

namespace restorert::simple_gate_mean {
namespace {

using namespace tensorrt;

struct Op : OpDefaults<Problem, 1, 2> {
  static constexpr const char* kName = simple_gate_mean::kName;

  // x and out linear, or both dense NHWC; the mean linear.
  static bool supports(std::int32_t position, const DynamicPluginTensorDesc* tensors,
                       std::int32_t /*inputs*/) {
    const PluginTensorDesc& desc = tensors[position].desc;
    if (position == 2) return is_linear(desc) && desc.type == DataType::kFLOAT;
    return is_picture(desc) && is_like(desc, tensors[0].desc);
  }

  static void output_types(const DataType* in, DataType* out) {
    out[0] = in[0];
    out[1] = DataType::kFLOAT;
  }

  static void output_shapes(const DimsExprs* in, DimsExprs* out, IExprBuilder& builder) {
    out[0] = in[0];
    out[0].d[1] = builder.operation(nvinfer1::DimensionOperation::kFLOOR_DIV, *in[0].d[1],
                                    *builder.constant(2));
    out[1].nbDims = 2;
    out[1].d[0] = in[0].d[0];
    out[1].d[1] = out[0].d[1];
  }

  static Status check_shapes(const PluginTensorDesc* in, const PluginTensorDesc* out,
                             std::int32_t /*inputs*/) {
    RESTORERT_RETURN_IF_ERROR(check_picture(kName, "x", in[0]));
    const Dims& x = in[0].dims;
    if (x.d[1] % 2 != 0) return wrong_shape(kName, "x", "[N, 2C, H, W]");
    if (!has_sizes_of(out[0].dims, x, x.d[1] / 2)) {
      return wrong_shape(kName, "out", "half of the channels of 'x'");
    }
    RESTORERT_RETURN_IF_ERROR(check_picture(kName, "out", out[0]));
    if (!has_sizes(out[1].dims, {x.d[0], x.d[1] / 2})) return wrong_shape(kName, "mean", "[N, C]");
    return {};
  }

  static Problem describe(const PluginTensorDesc& x, const Dims& dims) {
    return {gated(picture_of(x, dims))};
  }

  static void fill(Problem& problem, const Attributes& /*attributes*/,
                   const PluginTensorDesc* /*descs*/, const void* const* inputs,
                   void* const* outputs, std::int32_t /*input_count*/) {
    problem.x = inputs[0];
    problem.out = outputs[0];
    problem.mean = static_cast<float*>(outputs[1]);
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* plugin_creator() {
  static PluginCreator<Op> creator;
  return &creator;
}

}  // namespace restorert::simple_gate_mean
