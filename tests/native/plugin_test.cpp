// Plays TensorRT's part for librestorert_plugins.so: loads it, finds creators, creates, clones,
// configures, serialises and, where there is a GPU, runs every plugin beside the CPU op. One table
// says what the ops' layers look like. No TensorRT library is needed.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "core/scalar.h"
#include "ops/channel_attention/channel_attention.h"
#include "ops/conv_lstm_gates/conv_lstm_gates.h"
#include "ops/half_instance_norm/half_instance_norm.h"
#include "ops/layer_norm_2d/layer_norm_2d.h"
#include "ops/memory_read/memory_read.h"
#include "ops/simple_gate_mean/simple_gate_mean.h"
#include "plugin_host.h"

namespace rr = restorert;
using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::TensorFormat;
using nvinfer1::TensorRTPhase;
using rr::test::build_of;
using rr::test::create;
using rr::test::dims_of;
using rr::test::PluginPointer;
using rr::test::runtime_of;

namespace {

using Sizes = std::vector<std::int64_t>;
using Desc = nvinfer1::PluginTensorDesc;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr std::array<DataType, 3> kFloating{DataType::kFLOAT, DataType::kHALF, DataType::kBF16};

// ---- what a layer of each op looks like ----

// What may come at an input or output of an op.
enum class Kind {
  kPicture,    // the first input
  kLike,       // its type and format
  kParameter,  // linear, fp32 or its type
  kFloat,      // linear, fp32
  kCell,       // its layout, fp32 or its type
  kHidden,     // its layout and type
  kNextCell,   // its layout, the type of the second input
};

struct Tensor {
  const char* name;
  Kind kind;
  Sizes (*sizes)(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w);
};

struct Attribute {
  const char* name;
  float standard;
  float good;
  float bad;  // a finite number that is refused, or NaN where there is none
};

// Sizes of one tensor that do not fit those of the others, at n, c, h, w = 2, 16, 9, 7.
struct Misfit {
  std::size_t position;
  Sizes sizes;
};

struct Op {
  const char* name;
  std::size_t inputs;
  std::vector<Tensor> tensors;  // inputs, then outputs
  std::vector<Attribute> attributes;
  const char* padded;  // what 12 channels cannot be in kHWC8
  bool has_workspace;
  std::vector<Misfit> misfits;
  // The CPU op on a layer; `channels` is c.
  void (*run)(rr::Picture picture, rr::DType parameters, const std::vector<const void*>& in,
              const std::vector<void*>& out);
  std::vector<std::array<std::int64_t, 4>> shapes;  // on the GPU
  double extra = 0.0;                               // over the usual limits there

  std::int32_t input_count() const { return static_cast<std::int32_t>(inputs); }
  std::int32_t output_count() const { return static_cast<std::int32_t>(tensors.size() - inputs); }
};

Sizes picture(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return {n, c, h, w};
}

template <std::int64_t factor>
Sizes wide(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return {n, c < 0 ? c : factor * c, h, w};
}

template <std::int64_t divisor>
Sizes vector(std::int64_t, std::int64_t c, std::int64_t, std::int64_t) {
  return {c < 0 ? c : c / divisor};
}

Sizes mean(std::int64_t n, std::int64_t c, std::int64_t, std::int64_t) {
  return {n, c};
}

template <std::int64_t rows>
Sizes memory(std::int64_t, std::int64_t c, std::int64_t, std::int64_t) {
  return {rows, c};
}

constexpr std::int64_t kReduced = 4;  // R of channel attention

Sizes up(std::int64_t, std::int64_t c, std::int64_t, std::int64_t) {
  return {c, kReduced};
}

Sizes reduced(std::int64_t, std::int64_t, std::int64_t, std::int64_t) {
  return {kReduced};
}

// The form of channel attention with so many inputs.
template <int inputs>
void run_channel_attention(rr::Picture picture, rr::DType parameters,
                           const std::vector<const void*>& in, const std::vector<void*>& out) {
  rr::channel_attention::Problem problem{picture};
  std::size_t at = 0;
  problem.hidden = kReduced;
  problem.r = in[at++];
  if (inputs % 2 == 0) problem.x = in[at++];
  problem.w_down = {in[at++], parameters};
  problem.w_up = {in[at++], parameters};
  if (inputs > 4) problem.b_down = {in[at++], parameters};
  if (inputs > 4) problem.b_up = {in[at++], parameters};
  problem.out = out[0];
  run_cpu(problem);
}

template <int inputs>
Op channel_attention_of() {
  Op op{rr::channel_attention::kName,
        inputs,
        {{"r", Kind::kPicture, picture}},
        {},
        "r",
        true,
        {},
        run_channel_attention<inputs>,
        {{2, 24, 1, 1}, {2, 24, 24, 24}, {2, 24, 400, 400}}};
  if (inputs % 2 == 0) {
    op.misfits.push_back({op.tensors.size(), {1, 16, 9, 7}});
    op.tensors.push_back({"x", Kind::kLike, picture});
  }
  op.misfits.insert(op.misfits.end(), {{op.tensors.size(), {kReduced, 15}},
                                       {op.tensors.size(), {0, 16}},
                                       {op.tensors.size() + 1, {kReduced, 16}}});
  op.tensors.push_back({"w_down", Kind::kParameter, memory<kReduced>});
  op.tensors.push_back({"w_up", Kind::kParameter, up});
  if (inputs > 4) {
    op.misfits.insert(op.misfits.end(),
                      {{op.tensors.size(), {16}}, {op.tensors.size() + 1, {kReduced}}});
    op.tensors.push_back({"b_down", Kind::kParameter, reduced});
    op.tensors.push_back({"b_up", Kind::kParameter, vector<1>});
  }
  op.misfits.push_back({op.tensors.size(), {2, 16, 9, 8}});
  op.tensors.push_back({"out", Kind::kLike, picture});
  return op;
}

template <typename Problem>
void run_norm(rr::Picture picture, rr::DType parameters, const std::vector<const void*>& in,
              const std::vector<void*>& out) {
  Problem problem{picture};
  problem.x = in[0];
  problem.weight = in[1];
  problem.bias = in[2];
  problem.weight_dtype = problem.bias_dtype = parameters;
  problem.out = out[0];
  run_cpu(problem);
}

const std::vector<Op>& ops() {
  static const std::vector<Op> all{
      {"half_instance_norm",
       3,
       {{"x", Kind::kPicture, picture},
        {"weight", Kind::kParameter, vector<2>},
        {"bias", Kind::kParameter, vector<2>},
        {"out", Kind::kLike, picture}},
       {{"eps", 1e-5F, 1e-3F, -1.0F}, {"negative_slope", 0.2F, -0.5F, kNan}},
       "x",
       true,
       {{0, {2, 15, 9, 7}}, {1, {16}}, {2, {7}}, {3, {2, 16, 9, 8}}},
       run_norm<rr::half_instance_norm::Problem>,
       {{1, 8, 1, 1}, {2, 64, 17, 23}, {1, 24, 64, 80}, {2, 16, 300, 301}, {1, 64, 720, 1280}}},
      channel_attention_of<3>(),
      channel_attention_of<4>(),
      channel_attention_of<5>(),
      channel_attention_of<6>(),
      {"conv_lstm_gates",
       2,
       {{"gates", Kind::kPicture, wide<4>},
        {"cell", Kind::kCell, picture},
        {"hidden", Kind::kHidden, picture},
        {"next_cell", Kind::kNextCell, picture}},
       {{"forget_bias", 1.0F, -2.5F, kNan}},
       "cell",
       false,
       {{0, {2, 62, 9, 7}}, {1, {2, 64, 9, 7}}, {2, {2, 16, 9, 8}}, {3, {1, 16, 9, 7}}},
       [](rr::Picture picture, rr::DType parameters, const std::vector<const void*>& in,
          const std::vector<void*>& out) {
         rr::conv_lstm_gates::Problem problem{picture};
         problem.cell_dtype = parameters;
         problem.gates = in[0];
         problem.cell = in[1];
         problem.hidden = out[0];
         problem.next_cell = out[1];
         run_cpu(problem);
       },
       {{1, 8, 1, 1}, {2, 16, 17, 23}, {1, 128, 45, 80}}},
      {"memory_read",
       4,
       {{"x", Kind::kPicture, picture},
        {"part", Kind::kFloat, memory<100>},
        {"instance", Kind::kFloat, memory<20>},
        {"semantic", Kind::kFloat, memory<10>},
        {"semantic_out", Kind::kLike, picture},
        {"instance_out", Kind::kLike, picture},
        {"part_out", Kind::kLike, picture}},
       {{"shrink", 0.0025F, 0.5F, -0.1F}},
       "x",
       false,
       {{0, {2, 17, 9, 7}},
        {1, {100, 15}},
        {1, {513, 16}},
        {2, {0, 16}},
        {3, {16}},
        {4, {2, 16, 9, 8}},
        {5, {2, 16, 9}},
        {6, {1, 16, 9, 7}}},
       [](rr::Picture picture, rr::DType, const std::vector<const void*>& in,
          const std::vector<void*>& out) {
         rr::memory_read::Problem problem{picture};
         problem.x = in[0];
         problem.stages = {{{static_cast<const float*>(in[1]), 100, out[2]},
                            {static_cast<const float*>(in[2]), 20, out[1]},
                            {static_cast<const float*>(in[3]), 10, out[0]}}};
         run_cpu(problem);
       },
       {{2, 3, 45, 61}, {2, 8, 45, 61}},
       8e-3},  // a weight on the shrink threshold moves a result by up to 0.006 here
      {"layer_norm_2d",
       3,
       {{"x", Kind::kPicture, picture},
        {"weight", Kind::kParameter, vector<1>},
        {"bias", Kind::kParameter, vector<1>},
        {"out", Kind::kLike, picture}},
       {{"eps", 1e-6F, 1e-3F, -1.0F}},
       "x",
       false,
       {{0, {2, -1, 9, 7}}, {1, {8}}, {2, {1, 16}}, {3, {2, 16, 9, 8}}},
       run_norm<rr::layer_norm_2d::Problem>,
       {{1, 16, 1, 1}, {2, 64, 17, 23}, {1, 512, 24, 40}, {2, 1024, 9, 16}, {1, 2064, 5, 8}}},
      {"simple_gate_mean",
       1,
       {{"x", Kind::kPicture, wide<2>},
        {"out", Kind::kLike, picture},
        {"mean", Kind::kFloat, mean}},
       {},
       "out",
       true,
       {{0, {2, 33, 9, 7}}, {1, {2, 32, 9, 7}}, {2, {2, 32}}},
       [](rr::Picture picture, rr::DType, const std::vector<const void*>& in,
          const std::vector<void*>& out) {
         rr::simple_gate_mean::Problem problem{picture};
         problem.x = in[0];
         problem.out = out[0];
         problem.mean = static_cast<float*>(out[1]);
         run_cpu(problem);
       },
       {{1, 8, 1, 1}, {2, 32, 17, 23}, {1, 64, 90, 160}, {1, 1032, 5, 8}}}};
  return all;
}

// The tensors of a layer. `parameters` is the type of what need not have the picture's; a cell that
// has another one is dense in a format of its own.
std::vector<Desc> descs_of(const Op& op, std::array<std::int64_t, 4> s, DataType type,
                           TensorFormat format = TensorFormat::kLINEAR,
                           DataType parameters = DataType::kFLOAT) {
  std::vector<Desc> descs;
  for (const Tensor& tensor : op.tensors) {
    const bool cell = tensor.kind == Kind::kCell || tensor.kind == Kind::kNextCell;
    const bool linear = tensor.kind == Kind::kParameter || tensor.kind == Kind::kFloat;
    const DataType own = tensor.kind == Kind::kFloat ? DataType::kFLOAT
                         : linear || cell            ? parameters
                                                     : type;
    const TensorFormat dense = own == type               ? format
                               : own == DataType::kFLOAT ? TensorFormat::kHWC
                                                         : TensorFormat::kHWC8;
    descs.push_back(rr::test::desc_of(
        tensor.sizes(s[0], s[1], s[2], s[3]), own,
        linear || format == TensorFormat::kLINEAR ? TensorFormat::kLINEAR : dense));
  }
  return descs;
}

bool logged(const Op& op, const std::string& part) {
  return rr::test::logged_one_line(op.name, part.c_str());
}

// ---- creators ----

std::vector<float> attributes_of(const Op& op, nvinfer1::IPluginV3* plugin) {
  const nvinfer1::PluginFieldCollection* fields = runtime_of(plugin)->getFieldsToSerialize();
  CHECK(static_cast<std::size_t>(fields->nbFields) == op.attributes.size());
  std::vector<float> values(op.attributes.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const PluginField& field = fields->fields[i];
    CHECK(std::strcmp(field.name, op.attributes[i].name) == 0);
    CHECK(field.type == PluginFieldType::kFLOAT32 && field.length == 1 && field.data != nullptr);
    std::memcpy(&values[i], field.data, sizeof(float));
  }
  return values;
}

void test_creation(const Op& op, nvinfer1::IPluginCreatorV3One* creator) {
  CHECK(std::strcmp(creator->getPluginVersion(), "1") == 0);
  CHECK(std::strcmp(creator->getPluginNamespace(), "") == 0);
  const nvinfer1::PluginFieldCollection* names = creator->getFieldNames();
  CHECK(static_cast<std::size_t>(names->nbFields) == op.attributes.size());
  std::vector<PluginField> fields;
  std::vector<float> standard;
  std::vector<float> good;
  for (std::size_t i = 0; i < op.attributes.size(); ++i) {
    const Attribute& attribute = op.attributes[i];
    CHECK(std::strcmp(names->fields[i].name, attribute.name) == 0);
    fields.emplace_back(attribute.name, &attribute.good, PluginFieldType::kFLOAT32, 1);
    standard.push_back(attribute.standard);
    good.push_back(attribute.good);
  }
  std::reverse(fields.begin(), fields.end());  // in any order
  PluginPointer plugin = create(creator, fields);
  CHECK(plugin != nullptr);
  if (plugin == nullptr) return;
  CHECK(attributes_of(op, plugin.get()) == good);
  CHECK(std::strcmp(rr::test::core_of(plugin.get())->getPluginName(), op.name) == 0);
  CHECK(std::strcmp(rr::test::core_of(plugin.get())->getPluginVersion(), "1") == 0);
  CHECK(std::strcmp(rr::test::core_of(plugin.get())->getPluginNamespace(), "") == 0);
  CHECK(attributes_of(op, create(creator, {}).get()) == standard);
  CHECK(PluginPointer(creator->createPlugin("layer", nullptr, TensorRTPhase::kBUILD)) != nullptr);

  // Clones outlive what they came from; what goes into an engine comes back at any alignment.
  PluginPointer clone(plugin->clone());
  PluginPointer attached(runtime_of(plugin.get())->attachToContext(nullptr));
  const nvinfer1::PluginFieldCollection* saved = runtime_of(plugin.get())->getFieldsToSerialize();
  std::vector<char> bytes(1 + op.attributes.size() * sizeof(float));
  std::vector<PluginField> restored;
  for (std::size_t i = 0; i < op.attributes.size(); ++i) {
    char* at = bytes.data() + 1 + i * sizeof(float);
    std::memcpy(at, saved->fields[i].data, sizeof(float));
    restored.emplace_back(saved->fields[i].name, at, saved->fields[i].type, 1);
  }
  PluginPointer again = create(creator, restored, TensorRTPhase::kRUNTIME);
  plugin.reset();
  for (const PluginPointer* other : {&clone, &attached, &again}) {
    CHECK(*other != nullptr && attributes_of(op, other->get()) == good);
  }
}

// Wrong fields: nullptr and one line that names the field.
void test_wrong_fields(const Op& op, nvinfer1::IPluginCreatorV3One* creator) {
  const auto refused = [&](const std::vector<PluginField>& fields, const std::string& part) {
    for (const TensorRTPhase phase : {TensorRTPhase::kBUILD, TensorRTPhase::kRUNTIME}) {
      CHECK(create(creator, fields, phase) == nullptr && logged(op, part));
    }
  };
  constexpr PluginFieldType kFloat = PluginFieldType::kFLOAT32;
  const float one = 1.0F;
  const double wide_one = 1.0;
  const std::int32_t whole = 1;
  const float infinite = std::numeric_limits<float>::infinity();
  refused({PluginField("other", &one, kFloat, 1)},
          op.attributes.empty() ? "unknown field 'other'; expected none" : "unknown field 'other'");
  refused({PluginField("", &one, kFloat, 1)}, "unknown field ''");
  refused({PluginField(nullptr, &one, kFloat, 1)}, "unknown field ''");
  for (const Attribute& attribute : op.attributes) {
    const auto field = [&](const void* data, PluginFieldType type, std::int32_t length) {
      return PluginField(attribute.name, data, type, length);
    };
    std::vector<PluginField> wrong{field(&wide_one, PluginFieldType::kFLOAT64, 1),
                                   field(&whole, PluginFieldType::kINT32, 1),
                                   field(&one, kFloat, 2),
                                   field(&one, kFloat, 0),
                                   field(&one, kFloat, -1),
                                   field(nullptr, kFloat, 1),
                                   field(&kNan, kFloat, 1),
                                   field(&infinite, kFloat, 1)};
    if (!std::isnan(attribute.bad)) wrong.push_back(field(&attribute.bad, kFloat, 1));
    for (const PluginField& each : wrong) refused({each}, attribute.name);
    const PluginField good = field(&attribute.good, kFloat, 1);
    refused({good, good}, "twice");
  }
  nvinfer1::PluginFieldCollection broken;
  for (const std::int32_t count : {-3, 1}) {
    broken.nbFields = count;
    CHECK(creator->createPlugin("layer", &broken, TensorRTPhase::kBUILD) == nullptr);
    CHECK(logged(op, "malformed"));
  }
}

// ---- building ----

bool is_dense_nhwc(const Desc& desc) {
  const bool half = desc.type == DataType::kHALF || desc.type == DataType::kBF16;
  const std::int64_t channels = desc.dims.d[1];
  return (desc.format == TensorFormat::kHWC && desc.type == DataType::kFLOAT) ||
         (desc.format == TensorFormat::kHWC8 && half && channels > 0 && channels % 8 == 0);
}

// The rule for types and formats, written out anew.
bool fits(Kind kind, const Desc& desc, const Desc& first, const Desc& second) {
  const bool linear = desc.format == TensorFormat::kLINEAR;
  const bool layout = first.format == TensorFormat::kLINEAR ? linear : is_dense_nhwc(desc);
  const bool fp32 = desc.type == DataType::kFLOAT;
  switch (kind) {
    case Kind::kPicture:
      return std::count(kFloating.begin(), kFloating.end(), desc.type) == 1 && layout;
    case Kind::kLike:
      return layout && desc.type == first.type && desc.format == first.format;
    case Kind::kParameter:
      return linear && (fp32 || desc.type == first.type);
    case Kind::kFloat:
      return linear && fp32;
    case Kind::kCell:
      return layout && (fp32 || desc.type == first.type);
    case Kind::kHidden:
      return layout && desc.type == first.type;
    case Kind::kNextCell:
      return layout && desc.type == second.type;
  }
  return false;
}

// Every tensor in every type and format, beside first inputs in all of those that are taken.
void test_formats(const Op& op, nvinfer1::IPluginV3OneBuild* build) {
  constexpr std::array<DataType, 10> kTypes{
      DataType::kFLOAT, DataType::kHALF,  DataType::kBF16, DataType::kINT8,  DataType::kINT32,
      DataType::kBOOL,  DataType::kUINT8, DataType::kFP8,  DataType::kINT64, DataType::kINT4};
  constexpr int kFormats = 13;
  std::vector<int> accepted(op.tensors.size());
  for (const std::int64_t channels : {6, 12, 16, -1}) {
    for (const DataType type : kTypes) {
      for (int format = 0; format < kFormats; ++format) {
        for (const DataType parameters : {DataType::kFLOAT, type}) {
          const auto tensors = rr::test::dynamic_of(descs_of(
              op, {1, channels, 9, 7}, type, static_cast<TensorFormat>(format), parameters));
          const auto ask = [&](std::int32_t position, const auto& given) {
            return build->supportsFormatCombination(position, given.data(), op.input_count(),
                                                    op.output_count());
          };
          const bool good = fits(Kind::kPicture, tensors[0].desc, tensors[0].desc, {});
          CHECK(ask(0, tensors) == good);
          if (!good) continue;
          ++accepted[0];
          for (std::size_t position = 1; position < tensors.size(); ++position) {
            for (const DataType other : kTypes) {
              for (int other_format = 0; other_format < kFormats; ++other_format) {
                auto trial = tensors;
                Desc& desc = trial[position].desc;
                desc.type = other;
                desc.format = static_cast<TensorFormat>(other_format);
                const bool expected =
                    fits(op.tensors[position].kind, desc, trial[0].desc, trial[1].desc);
                CHECK(ask(static_cast<std::int32_t>(position), trial) == expected);
                accepted[position] += expected ? 1 : 0;
              }
            }
          }
          CHECK(!ask(-1, tensors) && !ask(static_cast<std::int32_t>(tensors.size()), tensors));
        }
      }
    }
  }
  for (const int count : accepted) CHECK(count > 0);
}

void test_build(const Op& op, nvinfer1::IPluginCreatorV3One* creator) {
  PluginPointer plugin = create(creator, {});
  nvinfer1::IPluginV3OneBuild* build = build_of(plugin.get());
  const std::int32_t inputs = op.input_count();
  const std::int32_t outputs = op.output_count();
  CHECK(build->getNbOutputs() == outputs);
  CHECK(build->getTimingCacheID() != nullptr);

  for (const DataType type : kFloating) {
    const std::vector<Desc> descs = descs_of(op, {2, 16, 9, 7}, type);
    rr::test::NumberBuilder builder;
    std::vector<DataType> types(descs.size(), DataType::kINT8);
    std::vector<nvinfer1::DimsExprs> shapes(descs.size() + 1);
    for (std::size_t i = 0; i < op.inputs; ++i) {
      types[i] = descs[i].type;
      shapes[i] = builder.expressions(descs[i].dims);
    }
    CHECK(build->getOutputDataTypes(&types[op.inputs], outputs, types.data(), inputs) == 0);
    CHECK(build->getOutputShapes(shapes.data(), inputs, nullptr, 0, &shapes[op.inputs], outputs,
                                 builder) == 0);
    for (std::size_t i = op.inputs; i < descs.size(); ++i) {
      CHECK(types[i] == descs[i].type && shapes[i].nbDims == descs[i].dims.nbDims);
      for (int d = 0; d < shapes[i].nbDims; ++d) {
        CHECK(builder.number_of(shapes[i].d[d]) == descs[i].dims.d[d]);
      }
    }
    // Wrong numbers of inputs (7, because channel attention takes 3 to 6) and outputs.
    for (const auto& [in, out] : {std::pair{7, outputs}, std::pair{inputs, outputs + 1}}) {
      rr::test::g_finder.logger.last.clear();
      CHECK(build->getOutputDataTypes(&types[op.inputs], out, types.data(), in) != 0);
      CHECK(logged(op, std::to_string(in) + " inputs and " + std::to_string(out) + " outputs"));
      CHECK(build->getOutputShapes(shapes.data(), in, nullptr, 0, &shapes[op.inputs], out,
                                   builder) != 0);
      const auto tensors = rr::test::dynamic_of(descs);
      CHECK(build->configurePlugin(tensors.data(), in, &tensors[op.inputs], out) != 0);
      CHECK(!build->supportsFormatCombination(0, tensors.data(), in, out));
    }
  }
  test_formats(op, build);

  // A dynamic profile: sizes unknown, the largest known. Enough for every smaller shape.
  for (const TensorFormat format : {TensorFormat::kLINEAR, TensorFormat::kHWC8}) {
    auto tensors = rr::test::dynamic_of(descs_of(op, {-1, 64, -1, -1}, DataType::kHALF, format));
    CHECK(build->configurePlugin(tensors.data(), inputs, &tensors[op.inputs], outputs) == 0);
    const auto ask = [&](std::int64_t n, std::int64_t h, std::int64_t w) {
      tensors[0].max = dims_of(op.tensors[0].sizes(n, 64, h, w));
      return build->getWorkspaceSize(tensors.data(), inputs, &tensors[op.inputs], outputs);
    };
    const std::size_t largest = ask(4, 720, 1280);
    CHECK(op.has_workspace ? largest > 0 && largest < (std::size_t{64} << 20) : largest == 0);
    for (const std::int64_t images : {1, 3, 4}) {
      for (std::int64_t height = 1; height <= 720; height = height * 3 + 1) {
        for (std::int64_t width = 1; width <= 1280; width = width * 2 + 3) {
          CHECK(ask(images, height, width) <= largest);
        }
      }
    }
    CHECK(ask(0, 720, 1280) == 0 && ask(1, 0, 8) == 0);
    tensors[0].max = dims_of({64});
    CHECK(build->getWorkspaceSize(tensors.data(), inputs, &tensors[op.inputs], outputs) == 0);
  }
}

// ---- running ----

void test_shape_change(const Op& op, nvinfer1::IPluginCreatorV3One* creator) {
  PluginPointer plugin = create(creator, {});
  nvinfer1::IPluginV3OneRuntime* runtime = runtime_of(plugin.get());
  CHECK(runtime->setTactic(0) == 0);
  const auto change = [&](std::vector<Desc> descs) {
    rr::test::g_finder.logger.last.clear();
    return runtime->onShapeChange(descs.data(), op.input_count(), &descs[op.inputs],
                                  op.output_count());
  };
  if (std::strcmp(op.name, rr::channel_attention::kName) == 0) {
    // Before its shapes are known, the plugin does not know how many inputs it has.
    CHECK(runtime->enqueue(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr) != 0);
    CHECK(logged(op, "0 inputs"));
  }
  constexpr DataType kHalf = DataType::kHALF;
  constexpr TensorFormat kHWC8 = TensorFormat::kHWC8;
  CHECK(change(descs_of(op, {2, 16, 9, 7}, kHalf)) == 0);
  CHECK(change(descs_of(op, {0, 16, 9, 7}, kHalf)) == 0);
  CHECK(change(descs_of(op, {2, 16, 9, 7}, kHalf, kHWC8, kHalf)) == 0);
  CHECK(change(descs_of(op, {2, 12, 9, 7}, kHalf, kHWC8, kHalf)) != 0);
  CHECK(logged(op, "'" + std::string(op.padded) + "'"));
  std::vector<Misfit> misfits = op.misfits;
  misfits.push_back({0, {2, 16, 9}});
  for (const Misfit& misfit : misfits) {
    std::vector<Desc> descs = descs_of(op, {2, 16, 9, 7}, kHalf);
    descs[misfit.position].dims = dims_of(misfit.sizes);
    CHECK(change(descs) != 0);
    CHECK(logged(op, "'" + std::string(op.tensors[misfit.position].name) + "'"));
  }
}

using Bytes = std::vector<unsigned char>;

rr::DType dtype_of(DataType type) {
  return type == DataType::kFLOAT  ? rr::DType::kFloat32
         : type == DataType::kHALF ? rr::DType::kFloat16
                                   : rr::DType::kBFloat16;
}

// Calls `function` with a number of the type of `desc`.
template <typename Function>
void with_type(const Desc& desc, const Function& function) {
  if (desc.type == DataType::kFLOAT) return function(float{});
  if (desc.type == DataType::kHALF) return function(rr::Half{});
  function(rr::BFloat16{});
}

std::size_t count_of(const Desc& desc) {
  std::size_t count = 1;
  for (int d = 0; d < desc.dims.nbDims; ++d) count *= static_cast<std::size_t>(desc.dims.d[d]);
  return count;
}

// Reproducible numbers around `mean`.
Bytes numbers(const Desc& desc, std::uint64_t seed, float mean) {
  Bytes bytes(count_of(desc) * rr::item_size(dtype_of(desc.type)));
  with_type(desc, [&](auto number) {
    for (std::size_t i = 0; i < count_of(desc); ++i) {
      std::uint64_t z = (i + (seed << 40) + 1) * 0x9e3779b97f4a7c15ULL;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
      z ^= z >> 31;
      const float noise = static_cast<float>(z >> 40) / 8388608.0F - 1.0F;
      number = rr::from_float<decltype(number)>(mean + noise);
      std::memcpy(bytes.data() + i * sizeof(number), &number, sizeof(number));
    }
  });
  return bytes;
}

// The largest error, of results up to 1 absolute and beyond relative.
double worst_error(const Desc& desc, const Bytes& found, const Bytes& expected) {
  double worst = 0.0;
  with_type(desc, [&](auto number) {
    const auto value = [&](const Bytes& bytes, std::size_t i) {
      std::memcpy(&number, bytes.data() + i * sizeof(number), sizeof(number));
      return static_cast<double>(rr::to_float(number));
    };
    for (std::size_t i = 0; i < count_of(desc); ++i) {
      const double wanted = value(expected, i);
      const double error = std::abs(value(found, i) - wanted) / std::fmax(1.0, std::abs(wanted));
      worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::fmax(worst, error);
    }
  });
  return worst;
}

// Runs a clone of the plugin as an execution context would, twice into memory full of NaN, and the
// CPU op on the same numbers.
double run_on_gpu(const Op& op, nvinfer1::IPluginCreatorV3One* creator,
                  const std::vector<Desc>& descs, const rr::Picture& picture, DataType parameters) {
  std::vector<Bytes> host;
  std::vector<const void*> in;
  std::vector<void*> out;
  for (std::size_t i = 0; i < descs.size(); ++i) {
    host.push_back(numbers(descs[i], i, i == 0 ? 0.3F : 0.2F));
  }
  for (std::size_t i = 0; i < descs.size(); ++i) {
    if (i < op.inputs) {
      in.push_back(host[i].data());
    } else {
      out.push_back(host[i].data());
    }
  }
  op.run(picture, dtype_of(parameters), in, out);

  PluginPointer built = create(creator, {});
  const auto tensors = rr::test::dynamic_of(descs);
  const std::size_t workspace_size = build_of(built.get())
                                         ->getWorkspaceSize(tensors.data(), op.input_count(),
                                                            &tensors[op.inputs], op.output_count());
  PluginPointer plugin(runtime_of(built.get())->attachToContext(nullptr));
  nvinfer1::IPluginV3OneRuntime* runtime = runtime_of(plugin.get());
  std::vector<void*> memory(descs.size() + 1);
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const std::size_t size = i < host.size() ? host[i].size() : workspace_size;
    CHECK(cudaMalloc(&memory[i], size + 1) == cudaSuccess);
    if (i >= op.inputs) continue;
    CHECK(cudaMemcpy(memory[i], host[i].data(), size, cudaMemcpyHostToDevice) == cudaSuccess);
  }
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreate(&stream) == cudaSuccess);
  CHECK(runtime->onShapeChange(descs.data(), op.input_count(), &descs[op.inputs],
                               op.output_count()) == 0);
  std::array<std::vector<Bytes>, 2> found;
  for (std::vector<Bytes>& round : found) {
    for (std::size_t i = op.inputs; i < descs.size(); ++i) {
      CHECK(cudaMemset(memory[i], 0xff, host[i].size()) == cudaSuccess);
    }
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(runtime->enqueue(descs.data(), &descs[op.inputs], memory.data(), &memory[op.inputs],
                           memory.back(), stream) == 0);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    for (std::size_t i = op.inputs; i < descs.size(); ++i) {
      round.emplace_back(host[i].size());
      CHECK(cudaMemcpy(round.back().data(), memory[i], host[i].size(), cudaMemcpyDeviceToHost) ==
            cudaSuccess);
    }
  }
  CHECK(found[0] == found[1]);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  for (void* block : memory) CHECK(cudaFree(block) == cudaSuccess);
  double worst = 0.0;
  for (std::size_t i = op.inputs; i < descs.size(); ++i) {
    // In units of one in the last place or so, where the CPU and the GPU round differently.
    const double limit = descs[i].type == DataType::kFLOAT  ? 4e-6
                         : descs[i].type == DataType::kHALF ? 1e-3
                                                            : 8e-3;
    const double error = worst_error(descs[i], found[0][i - op.inputs], host[i]);
    CHECK(error < limit + op.extra);
    worst = std::fmax(worst, error);
  }
  return worst;
}

void test_gpu(const Op& op, nvinfer1::IPluginCreatorV3One* creator) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    rr::test::skip_gpu("there is no CUDA device: the plugin's kernels were not run");
    return;
  }
  for (const DataType type : kFloating) {
    double worst = 0.0;
    for (const auto& shape : op.shapes) {
      for (const bool planes : {true, false}) {
        if (!planes && type != DataType::kFLOAT && shape[1] % 8 != 0) continue;  // padded
        for (const DataType parameters : {DataType::kFLOAT, type}) {
          rr::Picture picture;
          picture.images = shape[0];
          picture.channels = shape[1];
          picture.pixels = shape[2] * shape[3];
          picture.dtype = dtype_of(type);
          picture.layout = planes ? rr::Layout::kNCHW : rr::Layout::kNHWC;
          const TensorFormat format = planes                     ? TensorFormat::kLINEAR
                                      : type == DataType::kFLOAT ? TensorFormat::kHWC
                                                                 : TensorFormat::kHWC8;
          worst = std::fmax(
              worst, run_on_gpu(op, creator, descs_of(op, shape, type, format, parameters), picture,
                                parameters));
        }
      }
    }
    std::printf("GPU: %s, worst error of type %d: %.2e\n", op.name, static_cast<int>(type), worst);
  }
}

}  // namespace

int main() {
  const auto creators = rr::test::load_creators();
  CHECK(!creators.empty());
  for (nvinfer1::IPluginCreatorV3One* creator : creators) {
    int forms = 0;
    for (const Op& op : ops()) {
      if (std::strcmp(op.name, creator->getPluginName()) != 0) continue;
      ++forms;
      test_creation(op, creator);
      test_wrong_fields(op, creator);
      test_build(op, creator);
      test_shape_change(op, creator);
      test_gpu(op, creator);
    }
    CHECK(forms > 0);  // every plugin is in the table
  }
  return rr::test::check_result();
}
