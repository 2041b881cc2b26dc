// Plays TensorRT's part for the plugin memory_read: attributes, types, formats, sizes and, where
// there is a GPU, results beside the CPU op's.
#include <cuda_runtime_api.h>

#include <array>
#include <cmath>

#include "ops/memory_read/memory_read.h"
#include "picture.h"
#include "plugin_host.h"

namespace rr = restorert;
namespace mr = restorert::memory_read;
using nvinfer1::DataType;
using nvinfer1::TensorFormat;
using rr::test::desc_of;

namespace {

using Sizes = std::vector<std::int64_t>;
using Descs = std::array<nvinfer1::PluginTensorDesc, 7>;

Descs descs_of(const Sizes& x, DataType type, TensorFormat format) {
  const std::int64_t channels = x[1];
  return {desc_of(x, type, format),
          desc_of({100, channels}, DataType::kFLOAT),
          desc_of({20, channels}, DataType::kFLOAT),
          desc_of({10, channels}, DataType::kFLOAT),
          desc_of(x, type, format),
          desc_of(x, type, format),
          desc_of(x, type, format)};
}

void test_build(nvinfer1::IPluginCreatorV3One* creator) {
  rr::test::PluginPointer plugin = rr::test::create(creator, {});
  nvinfer1::IPluginV3OneBuild* build = rr::test::build_of(plugin.get());
  CHECK(build->getNbOutputs() == 3);
  const std::array<DataType, 4> inputs{DataType::kHALF, DataType::kFLOAT, DataType::kFLOAT,
                                       DataType::kFLOAT};
  std::array<DataType, 3> outputs{};
  CHECK(build->getOutputDataTypes(outputs.data(), 3, inputs.data(), 4) == 0);
  for (const DataType type : outputs) CHECK(type == DataType::kHALF);
  CHECK(build->getOutputDataTypes(outputs.data(), 3, inputs.data(), 3) != 0);
  CHECK(rr::test::logged_one_line(mr::kName, "3 inputs and 3 outputs; expected 4 and 3"));

  std::array<nvinfer1::DimsExprs, 4> shapes{};
  shapes[0].nbDims = 4;
  std::array<nvinfer1::DimsExprs, 3> results{};
  rr::test::ExprBuilder builder;
  CHECK(build->getOutputShapes(shapes.data(), 4, nullptr, 0, results.data(), 3, builder) == 0);
  for (const auto& result : results) CHECK(result.nbDims == 4);

  int accepted = 0;
  for (const std::int64_t channels : {3, 8}) {
    for (const DataType type :
         {DataType::kFLOAT, DataType::kHALF, DataType::kBF16, DataType::kINT8}) {
      for (int code = 0; code <= 12; ++code) {
        const auto format = static_cast<TensorFormat>(code);
        const Descs descs = descs_of({1, channels, 9, 7}, type, format);
        auto tensors = rr::test::dynamic_of({descs.begin(), descs.end()});
        const auto ask = [&](std::int32_t position) {
          return build->supportsFormatCombination(position, tensors.data(), 4, 3);
        };
        const bool half = type == DataType::kHALF || type == DataType::kBF16;
        const bool good = (format == TensorFormat::kLINEAR && (half || type == DataType::kFLOAT)) ||
                          (format == TensorFormat::kHWC && type == DataType::kFLOAT) ||
                          (format == TensorFormat::kHWC8 && half && channels == 8);
        CHECK(ask(0) == good);
        if (!good) continue;
        ++accepted;
        for (std::int32_t i = 1; i < 7; ++i) CHECK(ask(i));
        CHECK(!ask(7) && !ask(-1));
        for (std::size_t i = 1; i < 7; ++i) {
          tensors[i].desc.type = i < 4 ? DataType::kHALF : DataType::kINT8;
          CHECK(!ask(static_cast<std::int32_t>(i)));
          tensors[i].desc = descs[i];
          tensors[i].desc.format = TensorFormat::kCHW32;
          CHECK(!ask(static_cast<std::int32_t>(i)));
        }
      }
    }
  }
  CHECK(accepted == 2 * 4 + 2);
  CHECK(build->getWorkspaceSize(nullptr, 4, nullptr, 3) == 0);
}

void test_shape_change(nvinfer1::IPluginCreatorV3One* creator) {
  rr::test::PluginPointer plugin = rr::test::create(creator, {});
  nvinfer1::IPluginV3OneRuntime* runtime = rr::test::runtime_of(plugin.get());
  const auto change = [&](const Sizes& x, std::size_t position = 0, const Sizes& instead = {},
                          TensorFormat format = TensorFormat::kLINEAR) {
    Descs descs = descs_of(x, DataType::kHALF, format);
    if (position > 0) descs[position].dims = rr::test::dims_of(instead);
    rr::test::g_finder.logger.last.clear();
    return runtime->onShapeChange(descs.data(), 4, &descs[4], 3);
  };
  const auto logged = [](const char* part) { return rr::test::logged_one_line(mr::kName, part); };
  const Sizes good{2, 3, 9, 7};
  CHECK(change(good) == 0);
  CHECK(change({0, 3, 9, 7}) == 0);
  CHECK(change({2, 8, 9, 7}, 0, {}, TensorFormat::kHWC8) == 0);
  CHECK(change(good, 0, {}, TensorFormat::kHWC8) != 0 && logged("'x'"));
  CHECK(change({2, 17, 9, 7}) != 0 && logged("'x'"));
  CHECK(change({2, 3, 9}) != 0 && logged("'x'"));
  CHECK(change(good, 1, {100, 4}) != 0 && logged("'part'"));
  CHECK(change(good, 1, {513, 3}) != 0 && logged("'part'"));
  CHECK(change(good, 2, {0, 3}) != 0 && logged("'instance'"));
  CHECK(change(good, 3, {3}) != 0 && logged("'semantic'"));
  CHECK(change(good, 4, {2, 3, 9, 8}) != 0 && logged("'semantic_out'"));
  CHECK(change(good, 5, {2, 3, 9}) != 0 && logged("'instance_out'"));
  CHECK(change(good, 6, {1, 3, 9, 7}) != 0 && logged("'part_out'"));
}

// Runs the plugin as an execution context would, and the CPU op on the same numbers: in which order
// the three results come out shows here.
template <typename T>
double run_on_gpu(nvinfer1::IPluginCreatorV3One* creator, DataType type, rr::DType dtype,
                  const rr::test::Picture& picture) {
  const std::vector<T> x = rr::test::make_picture<T>(picture, 0.4F, 0.7F);
  const std::array<std::int64_t, 3> rows{100, 20, 10};
  std::array<std::vector<float>, 3> memories;
  std::array<std::vector<T>, 3> expected;  // semantic, instance, part, as the plugin's outputs
  mr::Problem problem;
  problem.images = picture.images;
  problem.channels = picture.channels;
  problem.pixels = picture.pixels();
  problem.dtype = dtype;
  problem.layout = picture.layout;
  problem.x = x.data();
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::int64_t k = 0; k < rows[i] * picture.channels; ++k) {
      memories[i].push_back(rr::test::noise(static_cast<std::uint64_t>(k) + 7919 * i));
    }
    expected[2 - i].resize(x.size());
    problem.stages[i] = {memories[i].data(), rows[i], expected[2 - i].data()};
  }
  mr::run_cpu(problem);

  const bool planes = picture.layout == rr::Layout::kNCHW;
  const TensorFormat format =
      planes ? TensorFormat::kLINEAR
             : (type == DataType::kFLOAT ? TensorFormat::kHWC : TensorFormat::kHWC8);
  const Descs descs =
      descs_of({picture.images, picture.channels, picture.height, picture.width}, type, format);
  std::array<void*, 7> memory{};
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const bool table = i >= 1 && i <= 3;
    const std::size_t bytes = table ? memories[i - 1].size() * sizeof(float) : x.size() * sizeof(T);
    CHECK(cudaMalloc(&memory[i], bytes) == cudaSuccess);
    CHECK(cudaMemset(memory[i], 0xff, bytes) == cudaSuccess);  // NaN where nothing is written
    if (i > 3) continue;
    const void* from = table ? static_cast<const void*>(memories[i - 1].data()) : x.data();
    CHECK(cudaMemcpy(memory[i], from, bytes, cudaMemcpyHostToDevice) == cudaSuccess);
  }
  rr::test::PluginPointer plugin = rr::test::create(creator, {});
  nvinfer1::IPluginV3OneRuntime* runtime = rr::test::runtime_of(plugin.get());
  CHECK(runtime->onShapeChange(descs.data(), 4, &descs[4], 3) == 0);
  const std::array<const void*, 4> inputs{memory[0], memory[1], memory[2], memory[3]};
  const std::array<void*, 3> outputs{memory[4], memory[5], memory[6]};
  CHECK(runtime->enqueue(descs.data(), &descs[4], inputs.data(), outputs.data(), nullptr,
                         nullptr) == 0);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  double worst = 0.0;
  for (std::size_t i = 0; i < 3; ++i) {
    std::vector<T> found(x.size());
    CHECK(cudaMemcpy(found.data(), memory[4 + i], x.size() * sizeof(T), cudaMemcpyDeviceToHost) ==
          cudaSuccess);
    std::vector<double> wanted;
    for (const T value : expected[i]) wanted.push_back(static_cast<double>(rr::to_float(value)));
    worst = std::fmax(worst, rr::test::worst_error(found, wanted));
  }
  for (void* block : memory) CHECK(cudaFree(block) == cudaSuccess);
  return worst;
}

void test_gpu(nvinfer1::IPluginCreatorV3One* creator) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    rr::test::skip_gpu("there is no CUDA device: the plugin's kernels were not run");
    return;
  }
  // A weight on the shrink threshold moves a result by up to about 0.006 here (see memory_read.py).
  constexpr double kJump = 8e-3;
  for (const rr::Layout layout : {rr::Layout::kNCHW, rr::Layout::kNHWC}) {
    for (const std::int64_t channels : {3, 8}) {
      const rr::test::Picture picture{2, channels, 45, 61, layout};
      CHECK(run_on_gpu<float>(creator, DataType::kFLOAT, rr::DType::kFloat32, picture) <
            kJump + 1e-5);
      if (layout == rr::Layout::kNHWC && channels != 8) continue;  // kHWC8 would be padded
      CHECK(run_on_gpu<rr::Half>(creator, DataType::kHALF, rr::DType::kFloat16, picture) <
            kJump + 1e-3);
      CHECK(run_on_gpu<rr::BFloat16>(creator, DataType::kBF16, rr::DType::kBFloat16, picture) <
            kJump + 8e-3);
    }
  }
}

}  // namespace

int main() {
  nvinfer1::IPluginCreatorV3One* creator = rr::test::load_creator(mr::kName);
  CHECK(creator != nullptr);
  if (creator != nullptr) {
    rr::test::test_one_attribute(creator, mr::kName, "shrink", 0.0025F, 0.5F, -0.1F);
    test_build(creator);
    test_shape_change(creator);
    test_gpu(creator);
  }
  return rr::test::check_result();
}
