// Plays TensorRT's part for librestorert_plugins.so: loads it, finds creators, creates, clones,
// configures, serialises and, where there is a GPU, runs. No TensorRT library is needed.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "picture.h"
#include "plugin_host.h"

namespace rr = restorert;
namespace hin = restorert::half_instance_norm;
using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::TensorFormat;
using nvinfer1::TensorRTPhase;
using rr::test::build_of;
using rr::test::core_of;
using rr::test::create;
using rr::test::dims_of;
using rr::test::ExprBuilder;
using rr::test::g_finder;
using rr::test::PluginPointer;
using rr::test::runtime_of;

namespace {

bool logged_one_line(const char* part) {
  return rr::test::logged_one_line(hin::kName, part);
}

// The attributes that a plugin would write into an engine.
std::array<float, 2> attributes_of(nvinfer1::IPluginV3* plugin) {
  const nvinfer1::PluginFieldCollection* fields = runtime_of(plugin)->getFieldsToSerialize();
  std::array<float, 2> values{-1.0F, -1.0F};
  CHECK(fields->nbFields == 2);
  for (int i = 0; i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    CHECK(field.type == PluginFieldType::kFLOAT32 && field.length == 1 && field.data != nullptr);
    const bool eps = std::strcmp(field.name, "eps") == 0;
    CHECK(eps || std::strcmp(field.name, "negative_slope") == 0);
    std::memcpy(&values[eps ? 0 : 1], field.data, sizeof(float));
  }
  return values;
}

void test_creation(nvinfer1::IPluginCreatorV3One* creator) {
  CHECK(std::strcmp(creator->getPluginVersion(), "1") == 0);
  CHECK(std::strcmp(creator->getPluginNamespace(), "") == 0);
  const nvinfer1::PluginFieldCollection* names = creator->getFieldNames();
  CHECK(names->nbFields == 2);
  CHECK(std::strcmp(names->fields[0].name, "eps") == 0);
  CHECK(std::strcmp(names->fields[1].name, "negative_slope") == 0);

  const float eps = 1e-3F;
  const float slope = 0.1F;
  const PluginField good_eps("eps", &eps, PluginFieldType::kFLOAT32, 1);
  const PluginField good_slope("negative_slope", &slope, PluginFieldType::kFLOAT32, 1);
  PluginPointer plugin = create(creator, {good_slope, good_eps});
  CHECK(plugin != nullptr);
  if (plugin == nullptr) return;
  CHECK((attributes_of(plugin.get()) == std::array<float, 2>{eps, slope}));
  CHECK(std::strcmp(core_of(plugin.get())->getPluginName(), "half_instance_norm") == 0);
  CHECK(std::strcmp(core_of(plugin.get())->getPluginVersion(), "1") == 0);
  CHECK(std::strcmp(core_of(plugin.get())->getPluginNamespace(), "") == 0);

  // Defaults; a null collection is no fields.
  CHECK((attributes_of(create(creator, {}).get()) == std::array<float, 2>{1e-5F, 0.2F}));
  CHECK((attributes_of(create(creator, {good_slope}).get()) == std::array<float, 2>{1e-5F, slope}));
  CHECK(PluginPointer(creator->createPlugin("layer", nullptr, TensorRTPhase::kBUILD)) != nullptr);

  // A clone outlives what it came from, and so does one attached to a context.
  PluginPointer clone(plugin->clone());
  PluginPointer attached(runtime_of(plugin.get())->attachToContext(nullptr));
  // What goes into an engine comes back from it, at whatever alignment.
  const nvinfer1::PluginFieldCollection* saved = runtime_of(plugin.get())->getFieldsToSerialize();
  std::vector<char> bytes(1 + 2 * sizeof(float));
  std::vector<PluginField> restored;
  for (int i = 0; i < saved->nbFields; ++i) {
    char* at = bytes.data() + 1 + static_cast<std::size_t>(i) * sizeof(float);
    std::memcpy(at, saved->fields[i].data, sizeof(float));
    restored.emplace_back(saved->fields[i].name, at, saved->fields[i].type,
                          saved->fields[i].length);
  }
  PluginPointer again = create(creator, restored, TensorRTPhase::kRUNTIME);
  plugin.reset();
  for (const PluginPointer* other : {&clone, &attached, &again}) {
    CHECK((attributes_of(other->get()) == std::array<float, 2>{eps, slope}));
  }

  // Wrong fields: nullptr and one line that names the field.
  const double wide = 1e-5;
  const std::int32_t whole = 1;
  const float negative = -1.0F;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinite = std::numeric_limits<float>::infinity();
  const std::vector<std::pair<PluginField, const char*>> wrong{
      {PluginField("epsilon", &eps, PluginFieldType::kFLOAT32, 1), "'epsilon'"},
      {PluginField("", &eps, PluginFieldType::kFLOAT32, 1), "unknown field ''"},
      {PluginField(nullptr, &eps, PluginFieldType::kFLOAT32, 1), "unknown field ''"},
      {PluginField("eps", &wide, PluginFieldType::kFLOAT64, 1), "'eps'"},
      {PluginField("eps", &whole, PluginFieldType::kINT32, 1), "'eps'"},
      {PluginField("eps", &eps, PluginFieldType::kFLOAT32, 2), "'eps'"},
      {PluginField("eps", &eps, PluginFieldType::kFLOAT32, 0), "'eps'"},
      {PluginField("eps", &eps, PluginFieldType::kFLOAT32, -1), "'eps'"},
      {PluginField("eps", nullptr, PluginFieldType::kFLOAT32, 1), "'eps'"},
      {PluginField("eps", &negative, PluginFieldType::kFLOAT32, 1), "'eps'"},
      {PluginField("eps", &nan, PluginFieldType::kFLOAT32, 1), "'eps'"},
      {PluginField("eps", &infinite, PluginFieldType::kFLOAT32, 1), "'eps'"},
      {PluginField("negative_slope", &nan, PluginFieldType::kFLOAT32, 1), "'negative_slope'"}};
  for (const auto& [field, part] : wrong) {
    for (const TensorRTPhase phase : {TensorRTPhase::kBUILD, TensorRTPhase::kRUNTIME}) {
      CHECK(create(creator, {field}, phase) == nullptr);
      CHECK(logged_one_line(part));
    }
  }
  CHECK(create(creator, {good_eps, good_eps}) == nullptr);
  CHECK(logged_one_line("twice"));
  nvinfer1::PluginFieldCollection broken;
  broken.nbFields = -3;
  CHECK(creator->createPlugin("layer", &broken, TensorRTPhase::kBUILD) == nullptr);
  broken.nbFields = 1;
  CHECK(creator->createPlugin("layer", &broken, TensorRTPhase::kBUILD) == nullptr);
}

using Tensors = std::array<nvinfer1::DynamicPluginTensorDesc, 4>;  // x, weight, bias, out

Tensors tensors_of(const std::vector<std::int64_t>& shape, DataType type, TensorFormat format) {
  Tensors tensors{};
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const bool picture = i == 0 || i == 3;
    tensors[i].desc.dims = dims_of(picture ? shape : std::vector<std::int64_t>{shape[1] / 2});
    tensors[i].desc.type = type;
    tensors[i].desc.format = picture ? format : TensorFormat::kLINEAR;
    tensors[i].min = tensors[i].opt = tensors[i].max = tensors[i].desc.dims;
  }
  return tensors;
}

void test_build(nvinfer1::IPluginCreatorV3One* creator) {
  PluginPointer plugin = create(creator, {});
  nvinfer1::IPluginV3OneBuild* build = build_of(plugin.get());
  CHECK(build->getNbOutputs() == 1);
  CHECK(build->getTimingCacheID() != nullptr);

  for (const DataType type : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16}) {
    const std::array<DataType, 3> inputs{type, DataType::kFLOAT, DataType::kFLOAT};
    DataType output = DataType::kINT8;
    CHECK(build->getOutputDataTypes(&output, 1, inputs.data(), 3) == 0);
    CHECK(output == type);
    CHECK(build->getOutputDataTypes(&output, 1, inputs.data(), 2) != 0);
    CHECK(logged_one_line("2 inputs"));
  }

  // The output's sizes are the input's own expressions; a plugin does not look into them.
  std::array<nvinfer1::DimsExprs, 3> shapes{};
  shapes[0].nbDims = 4;
  std::array<char, 4> marks{};
  for (std::size_t i = 0; i < 4; ++i) {
    shapes[0].d[i] = reinterpret_cast<const nvinfer1::IDimensionExpr*>(&marks[i]);
  }
  nvinfer1::DimsExprs output{};
  ExprBuilder builder;
  CHECK(build->getOutputShapes(shapes.data(), 3, nullptr, 0, &output, 1, builder) == 0);
  CHECK(output.nbDims == 4 && std::memcmp(output.d, shapes[0].d, 4 * sizeof(void*)) == 0);
  CHECK(build->getOutputShapes(shapes.data(), 4, nullptr, 0, &output, 1, builder) != 0);

  // Every position with every type and format, against what the op can take.
  const std::array<DataType, 10> types{
      DataType::kFLOAT, DataType::kHALF,  DataType::kBF16, DataType::kINT8,  DataType::kINT32,
      DataType::kBOOL,  DataType::kUINT8, DataType::kFP8,  DataType::kINT64, DataType::kINT4};
  int accepted = 0;
  for (const std::int64_t channels : {64, 12, -1}) {
    for (const DataType x_type : types) {
      for (int x_format = 0; x_format <= 12; ++x_format) {
        Tensors tensors =
            tensors_of({1, channels, 24, 40}, x_type, static_cast<TensorFormat>(x_format));
        const bool linear = tensors[0].desc.format == TensorFormat::kLINEAR;
        const bool hwc8 = tensors[0].desc.format == TensorFormat::kHWC8 && channels == 64;
        const bool reduced = x_type == DataType::kHALF || x_type == DataType::kBF16;
        const bool x_good =
            (linear && (reduced || x_type == DataType::kFLOAT)) || (hwc8 && reduced);
        CHECK(build->supportsFormatCombination(0, tensors.data(), 3, 1) == x_good);
        if (!x_good) continue;
        for (std::int32_t position = 1; position < 4; ++position) {
          for (const DataType type : types) {
            for (int format = 0; format <= 12; ++format) {
              Tensors trial = tensors;
              auto& desc = trial[static_cast<std::size_t>(position)].desc;
              desc.type = type;
              desc.format = static_cast<TensorFormat>(format);
              const bool expected = position == 3
                                        ? type == x_type && desc.format == tensors[0].desc.format
                                        : desc.format == TensorFormat::kLINEAR &&
                                              (type == DataType::kFLOAT || type == x_type);
              CHECK(build->supportsFormatCombination(position, trial.data(), 3, 1) == expected);
              accepted += expected ? 1 : 0;
            }
          }
        }
        CHECK(!build->supportsFormatCombination(4, tensors.data(), 3, 1));
        CHECK(!build->supportsFormatCombination(-1, tensors.data(), 3, 1));
        CHECK(!build->supportsFormatCombination(0, tensors.data(), 2, 1));
      }
    }
  }
  CHECK(accepted > 0);

  for (const TensorFormat format : {TensorFormat::kLINEAR, TensorFormat::kHWC8}) {
    Tensors tensors = tensors_of({1, 64, 96, 128}, DataType::kHALF, format);
    CHECK(build->configurePlugin(tensors.data(), 3, &tensors[3], 1) == 0);
    CHECK(build->configurePlugin(tensors.data(), 2, &tensors[3], 1) != 0);
    // A dynamic profile: sizes unknown, the largest known. Enough for every smaller shape.
    tensors[0].desc.dims = dims_of({-1, 64, -1, -1});
    tensors[0].max = dims_of({4, 64, 720, 1280});
    const std::size_t largest = build->getWorkspaceSize(tensors.data(), 3, &tensors[3], 1);
    CHECK(largest > 0 && largest < (std::size_t{64} << 20));
    for (const std::int64_t images : {1, 3, 4}) {
      for (std::int64_t height = 1; height <= 720; height = height * 3 + 1) {
        for (std::int64_t width = 1; width <= 1280; width = width * 2 + 3) {
          tensors[0].max = dims_of({images, 64, height, width});
          CHECK(build->getWorkspaceSize(tensors.data(), 3, &tensors[3], 1) <= largest);
        }
      }
    }
    tensors[0].max = dims_of({0, 64, 720, 1280});
    CHECK(build->getWorkspaceSize(tensors.data(), 3, &tensors[3], 1) == 0);
    tensors[0].max = dims_of({64});
    CHECK(build->getWorkspaceSize(tensors.data(), 3, &tensors[3], 1) == 0);
  }
}

void test_shape_change(nvinfer1::IPluginCreatorV3One* creator) {
  PluginPointer plugin = create(creator, {});
  nvinfer1::IPluginV3OneRuntime* runtime = runtime_of(plugin.get());
  CHECK(runtime->setTactic(0) == 0);
  const auto change = [&](const std::vector<std::int64_t>& x, std::int64_t weight,
                          std::int64_t bias, const std::vector<std::int64_t>& out,
                          TensorFormat format) {
    std::array<nvinfer1::PluginTensorDesc, 4> descs{};
    descs[0].dims = dims_of(x);
    descs[1].dims = dims_of({weight});
    descs[2].dims = dims_of({bias});
    descs[3].dims = dims_of(out);
    for (auto& desc : descs) desc.type = DataType::kHALF;
    descs[0].format = descs[3].format = format;
    g_finder.logger.last.clear();
    return runtime->onShapeChange(descs.data(), 3, &descs[3], 1);
  };
  constexpr TensorFormat kLinear = TensorFormat::kLINEAR;
  CHECK(change({1, 64, 9, 7}, 32, 32, {1, 64, 9, 7}, kLinear) == 0);
  CHECK(change({0, 64, 9, 7}, 32, 32, {0, 64, 9, 7}, kLinear) == 0);
  CHECK(change({1, 64, 9, 7}, 32, 32, {1, 64, 9, 7}, TensorFormat::kHWC8) == 0);
  CHECK(change({1, 63, 9, 7}, 31, 31, {1, 63, 9, 7}, kLinear) != 0 && logged_one_line("'x'"));
  CHECK(change({1, 64, 9}, 32, 32, {1, 64, 9}, kLinear) != 0 && logged_one_line("'x'"));
  CHECK(change({1, 12, 9, 7}, 6, 6, {1, 12, 9, 7}, TensorFormat::kHWC8) != 0 &&
        logged_one_line("'x'"));
  CHECK(change({1, 64, 9, 7}, 64, 32, {1, 64, 9, 7}, kLinear) != 0 && logged_one_line("'weight'"));
  CHECK(change({1, 64, 9, 7}, 32, 31, {1, 64, 9, 7}, kLinear) != 0 && logged_one_line("'bias'"));
  CHECK(change({1, 64, 9, 7}, 32, 32, {1, 64, 9, 8}, kLinear) != 0 && logged_one_line("'out'"));
}

// Runs the plugin on the GPU as an execution context would, against the double-precision formula.
template <typename T>
double run_on_gpu(nvinfer1::IPluginCreatorV3One* creator, const rr::test::Picture& picture,
                  DataType type, float mean) {
  const std::vector<T> x = rr::test::make_picture<T>(picture, mean, 1.0F);
  std::vector<float> weight(static_cast<std::size_t>(picture.channels / 2));
  std::vector<float> bias(weight.size());
  for (std::size_t i = 0; i < weight.size(); ++i) {
    weight[i] = 1.0F + 0.5F * rr::test::noise(i);
    bias[i] = rr::test::noise(i + 1000);
  }
  PluginPointer built = create(creator, {});
  PluginPointer plugin(runtime_of(built.get())->attachToContext(nullptr));
  const TensorFormat format =
      picture.layout == rr::Layout::kNHWC ? TensorFormat::kHWC8 : TensorFormat::kLINEAR;
  Tensors tensors =
      tensors_of({picture.images, picture.channels, picture.height, picture.width}, type, format);
  tensors[1].desc.type = tensors[2].desc.type = DataType::kFLOAT;
  const std::size_t workspace_size =
      build_of(built.get())->getWorkspaceSize(tensors.data(), 3, &tensors[3], 1);

  std::array<void*, 5> memory{};
  const std::array<std::size_t, 5> sizes{x.size() * sizeof(T), weight.size() * sizeof(float),
                                         bias.size() * sizeof(float), x.size() * sizeof(T),
                                         workspace_size};
  for (std::size_t i = 0; i < memory.size(); ++i) {
    CHECK(cudaMalloc(&memory[i], sizes[i]) == cudaSuccess);
    CHECK(cudaMemset(memory[i], 0xff, sizes[i]) == cudaSuccess);  // NaN where nothing is written
  }
  const auto upload = [&](std::size_t i, const void* from) {
    CHECK(cudaMemcpy(memory[i], from, sizes[i], cudaMemcpyHostToDevice) == cudaSuccess);
  };
  upload(0, x.data());
  upload(1, weight.data());
  upload(2, bias.data());
  std::array<nvinfer1::PluginTensorDesc, 4> descs{};
  for (std::size_t i = 0; i < 4; ++i) descs[i] = tensors[i].desc;
  const std::array<const void*, 3> inputs{memory[0], memory[1], memory[2]};
  const std::array<void*, 1> outputs{memory[3]};
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreate(&stream) == cudaSuccess);
  CHECK(runtime_of(plugin.get())->onShapeChange(descs.data(), 3, &descs[3], 1) == 0);
  std::vector<T> first(x.size());
  std::vector<T> out(x.size());
  for (std::vector<T>* result : {&first, &out}) {
    CHECK(runtime_of(plugin.get())
              ->enqueue(descs.data(), &descs[3], inputs.data(), outputs.data(), memory[4],
                        stream) == 0);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(cudaMemcpy(result->data(), memory[3], sizes[3], cudaMemcpyDeviceToHost) == cudaSuccess);
  }
  CHECK(std::memcmp(first.data(), out.data(), sizes[3]) == 0);  // bit for bit
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  for (void* block : memory) CHECK(cudaFree(block) == cudaSuccess);
  return rr::test::worst_error(out, rr::test::reference(picture, x, weight, bias, 1e-5, 0.2));
}

void test_gpu(nvinfer1::IPluginCreatorV3One* creator) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    rr::test::skip_gpu("there is no CUDA device: the plugin's kernels were not run");
    return;
  }
  std::array<double, 3> worst{};
  for (const auto& shape : std::vector<std::array<std::int64_t, 4>>{
           {1, 8, 1, 1}, {2, 64, 17, 23}, {1, 24, 64, 80}, {2, 16, 300, 301}, {1, 64, 720, 1280}}) {
    for (const float mean : {0.3F, 1e4F}) {
      rr::test::Picture picture{shape[0], shape[1], shape[2], shape[3], rr::Layout::kNCHW};
      worst[0] = std::fmax(worst[0], run_on_gpu<float>(creator, picture, DataType::kFLOAT, mean));
      for (const rr::Layout layout : {rr::Layout::kNCHW, rr::Layout::kNHWC}) {
        picture.layout = layout;
        worst[1] =
            std::fmax(worst[1], run_on_gpu<rr::Half>(creator, picture, DataType::kHALF, mean));
        worst[2] =
            std::fmax(worst[2], run_on_gpu<rr::BFloat16>(creator, picture, DataType::kBF16, mean));
      }
    }
  }
  std::printf("GPU: worst error, fp32 fp16 bf16: %.2e %.2e %.2e\n", worst[0], worst[1], worst[2]);
  CHECK(worst[0] < 5e-6);
  CHECK(worst[1] < 6e-4);
  CHECK(worst[2] < 5e-3);
}

}  // namespace

int main() {
  nvinfer1::IPluginCreatorV3One* creator = rr::test::load_creator(hin::kName);
  CHECK(creator != nullptr);
  if (creator != nullptr) {
    test_creation(creator);
    test_build(creator);
    test_shape_change(creator);
    test_gpu(creator);
  }
  return rr::test::check_result();
}
