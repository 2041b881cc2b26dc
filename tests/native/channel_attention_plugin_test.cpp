// Plays TensorRT's part for the plugin channel_attention: numbers of inputs, types, formats, sizes
// and, where there is a GPU, results beside the CPU op's.
#include <cuda_runtime_api.h>

#include <array>
#include <cmath>

#include "ops/channel_attention/channel_attention.h"
#include "picture.h"
#include "plugin_host.h"

namespace rr = restorert;
namespace ca = restorert::channel_attention;
using nvinfer1::DataType;
using nvinfer1::TensorFormat;
using rr::test::desc_of;

namespace {

using Sizes = std::vector<std::int64_t>;
using Descs = std::vector<nvinfer1::PluginTensorDesc>;  // inputs, then the output

constexpr std::int64_t kHidden = 4;

// 3 to 6 inputs: r, x where the number is even, two weights, two biases from 5 on.
Descs descs_of(int inputs, const Sizes& r, DataType type,
               TensorFormat format = TensorFormat::kLINEAR, DataType weights = DataType::kFLOAT) {
  Descs descs{desc_of(r, type, format)};
  if (inputs % 2 == 0) descs.push_back(descs[0]);
  descs.push_back(desc_of({kHidden, r[1]}, weights));
  descs.push_back(desc_of({r[1], kHidden}, weights));
  if (inputs > 4) {
    descs.push_back(desc_of({kHidden}, weights));
    descs.push_back(desc_of({r[1]}, weights));
  }
  descs.push_back(descs[0]);
  return descs;
}

bool logged(const char* part) {
  return rr::test::logged_one_line(ca::kName, part);
}

void test_creation(nvinfer1::IPluginCreatorV3One* creator) {
  CHECK(std::strcmp(creator->getPluginVersion(), "1") == 0);
  CHECK(std::strcmp(creator->getPluginNamespace(), "") == 0);
  CHECK(creator->getFieldNames()->nbFields == 0);
  rr::test::PluginPointer plugin = rr::test::create(creator, {});
  CHECK(plugin != nullptr);
  CHECK(std::strcmp(rr::test::core_of(plugin.get())->getPluginName(), ca::kName) == 0);
  CHECK(rr::test::runtime_of(plugin.get())->getFieldsToSerialize()->nbFields == 0);
  const float value = 1.0F;
  const nvinfer1::PluginField field("eps", &value, nvinfer1::PluginFieldType::kFLOAT32, 1);
  CHECK(rr::test::create(creator, {field}) == nullptr);
  CHECK(logged("unknown field 'eps'; expected none"));
}

void test_build(nvinfer1::IPluginCreatorV3One* creator) {
  rr::test::PluginPointer plugin = rr::test::create(creator, {});
  nvinfer1::IPluginV3OneBuild* build = rr::test::build_of(plugin.get());
  CHECK(build->getNbOutputs() == 1);
  const std::array<DataType, 7> types{DataType::kHALF, DataType::kHALF, DataType::kFLOAT};
  std::array<nvinfer1::DimsExprs, 7> shapes{};
  shapes[0].nbDims = 4;
  rr::test::ExprBuilder builder;
  for (const int inputs : {2, 3, 4, 5, 6, 7}) {
    const bool good = inputs >= 3 && inputs <= 6;
    DataType type = DataType::kINT8;
    nvinfer1::DimsExprs shape{};
    rr::test::g_finder.logger.last.clear();
    CHECK((build->getOutputDataTypes(&type, 1, types.data(), inputs) == 0) == good);
    CHECK(good ? type == DataType::kHALF : logged("inputs and 1 outputs; expected 3 to 6 and 1"));
    CHECK((build->getOutputShapes(shapes.data(), inputs, nullptr, 0, &shape, 1, builder) == 0) ==
          good);
    CHECK(!good || shape.nbDims == 4);
  }

  for (const int inputs : {3, 4, 5, 6}) {
    for (const std::int64_t channels : {12, 64}) {
      for (const DataType type :
           {DataType::kFLOAT, DataType::kHALF, DataType::kBF16, DataType::kINT8}) {
        for (int code = 0; code <= 12; ++code) {
          const auto format = static_cast<TensorFormat>(code);
          const Descs descs = descs_of(inputs, {1, channels, 9, 7}, type, format);
          auto tensors = rr::test::dynamic_of(descs);
          const auto ask = [&](std::int32_t position) {
            return build->supportsFormatCombination(position, tensors.data(), inputs, 1);
          };
          const bool half = type == DataType::kHALF || type == DataType::kBF16;
          const bool good =
              (format == TensorFormat::kLINEAR && (half || type == DataType::kFLOAT)) ||
              (format == TensorFormat::kHWC && type == DataType::kFLOAT) ||
              (format == TensorFormat::kHWC8 && half && channels == 64);
          CHECK(ask(0) == good);
          if (!good) continue;
          CHECK(!ask(inputs + 1) && !ask(-1));
          for (std::int32_t i = 1; i <= inputs; ++i) {
            const auto at = static_cast<std::size_t>(i);
            const bool picture = i == inputs || (i == 1 && inputs % 2 == 0);
            CHECK(ask(i));
            tensors[at].desc.type = type;  // weights in the dtype of r, too
            CHECK(ask(i));
            tensors[at].desc.type = picture && type == DataType::kFLOAT ? DataType::kHALF
                                    : picture                           ? DataType::kFLOAT
                                                                        : DataType::kINT8;
            CHECK(!ask(i));
            tensors[at].desc = descs[at];
            tensors[at].desc.format = TensorFormat::kCHW32;
            CHECK(!ask(i));
            tensors[at].desc = descs[at];
          }
        }
      }
    }
  }

  for (const TensorFormat format : {TensorFormat::kLINEAR, TensorFormat::kHWC8}) {
    auto tensors = rr::test::dynamic_of(descs_of(4, {1, 64, 96, 128}, DataType::kHALF, format));
    CHECK(build->configurePlugin(tensors.data(), 4, &tensors[4], 1) == 0);
    CHECK(build->configurePlugin(tensors.data(), 7, &tensors[4], 1) != 0);
    tensors[0].desc.dims = rr::test::dims_of({-1, 64, -1, -1});
    tensors[0].max = rr::test::dims_of({4, 64, 720, 1280});
    const std::size_t largest = build->getWorkspaceSize(tensors.data(), 4, &tensors[4], 1);
    CHECK(largest > 0 && largest < (std::size_t{1} << 20));
    for (const std::int64_t images : {1, 3, 4}) {
      for (std::int64_t height = 1; height <= 720; height = height * 3 + 1) {
        for (std::int64_t width = 1; width <= 1280; width = width * 2 + 3) {
          tensors[0].max = rr::test::dims_of({images, 64, height, width});
          CHECK(build->getWorkspaceSize(tensors.data(), 4, &tensors[4], 1) <= largest);
        }
      }
    }
    tensors[0].max = rr::test::dims_of({0, 64, 720, 1280});
    CHECK(build->getWorkspaceSize(tensors.data(), 4, &tensors[4], 1) == 0);
    tensors[0].max = rr::test::dims_of({64});
    CHECK(build->getWorkspaceSize(tensors.data(), 4, &tensors[4], 1) == 0);
  }
}

void test_shape_change(nvinfer1::IPluginCreatorV3One* creator) {
  rr::test::PluginPointer plugin = rr::test::create(creator, {});
  nvinfer1::IPluginV3OneRuntime* runtime = rr::test::runtime_of(plugin.get());
  const auto change = [&](int inputs, const Sizes& r, std::size_t position = 99,
                          const Sizes& instead = {}, TensorFormat format = TensorFormat::kLINEAR) {
    Descs descs = descs_of(inputs, r, DataType::kHALF, format);
    if (position < descs.size()) descs[position].dims = rr::test::dims_of(instead);
    rr::test::g_finder.logger.last.clear();
    return runtime->onShapeChange(descs.data(), inputs, &descs.back(), 1);
  };
  const Sizes good{2, 12, 9, 7};
  // Before its shapes are known, the plugin does not know how many inputs it has.
  CHECK(runtime->enqueue(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr) != 0);
  CHECK(logged("0 inputs"));
  for (const int inputs : {3, 4, 5, 6}) {
    CHECK(change(inputs, good) == 0);
    CHECK(change(inputs, {0, 12, 9, 7}) == 0);
    CHECK(change(inputs, {2, 64, 9, 7}, 99, {}, TensorFormat::kHWC8) == 0);
    CHECK(change(inputs, good, 99, {}, TensorFormat::kHWC8) != 0 && logged("'r'"));
    CHECK(change(inputs, good, 0, {2, 12, 9}) != 0 && logged("'r'"));
    const std::size_t down = inputs % 2 == 0 ? 2 : 1;
    CHECK(change(inputs, good, down, {kHidden, 11}) != 0 && logged("'w_down'"));
    CHECK(change(inputs, good, down, {0, 12}) != 0 && logged("'w_down'"));
    CHECK(change(inputs, good, down + 1, {kHidden, 12}) != 0 && logged("'w_up'"));
    CHECK(change(inputs, good, static_cast<std::size_t>(inputs), {2, 12, 9, 8}) != 0 &&
          logged("'out'"));
    if (inputs % 2 == 0) CHECK(change(inputs, good, 1, {1, 12, 9, 7}) != 0 && logged("'x'"));
    if (inputs < 5) continue;
    CHECK(change(inputs, good, down + 2, {12}) != 0 && logged("'b_down'"));
    CHECK(change(inputs, good, down + 3, {kHidden}) != 0 && logged("'b_up'"));
  }
}

// Runs a clone of the plugin as an execution context would, and the CPU op on the same numbers.
template <typename T>
double run_on_gpu(nvinfer1::IPluginCreatorV3One* creator, int inputs, DataType type,
                  rr::DType dtype, const rr::test::Picture& picture) {
  const std::vector<T> r = rr::test::make_picture<T>(picture, 0.4F, 0.7F);
  const std::vector<T> x = rr::test::make_picture<T>(picture, -0.3F, 0.5F);
  const std::int64_t channels = picture.channels;
  std::array<std::vector<float>, 4> weights;  // w_down, w_up, b_down, b_up
  const std::array<std::int64_t, 4> sizes{kHidden * channels, kHidden * channels, kHidden,
                                          channels};
  for (std::size_t i = 0; i < weights.size(); ++i) {
    for (std::int64_t k = 0; k < sizes[i]; ++k) {
      weights[i].push_back(rr::test::noise(static_cast<std::uint64_t>(k) + 7919 * i));
    }
  }
  std::vector<T> expected(r.size());
  ca::Problem problem;
  problem.images = picture.images;
  problem.channels = channels;
  problem.hidden = kHidden;
  problem.pixels = picture.pixels();
  problem.dtype = dtype;
  problem.layout = picture.layout;
  problem.r = r.data();
  problem.x = inputs % 2 == 0 ? x.data() : nullptr;
  problem.w_down.data = weights[0].data();
  problem.w_up.data = weights[1].data();
  if (inputs > 4) problem.b_down.data = weights[2].data();
  if (inputs > 4) problem.b_up.data = weights[3].data();
  problem.out = expected.data();
  ca::run_cpu(problem);

  const bool planes = picture.layout == rr::Layout::kNCHW;
  const TensorFormat format =
      planes ? TensorFormat::kLINEAR
             : (type == DataType::kFLOAT ? TensorFormat::kHWC : TensorFormat::kHWC8);
  const Descs descs =
      descs_of(inputs, {picture.images, channels, picture.height, picture.width}, type, format);
  rr::test::PluginPointer built = rr::test::create(creator, {});
  auto tensors = rr::test::dynamic_of(descs);
  const std::size_t workspace_size =
      rr::test::build_of(built.get())->getWorkspaceSize(tensors.data(), inputs, &tensors.back(), 1);
  rr::test::PluginPointer plugin(rr::test::runtime_of(built.get())->attachToContext(nullptr));
  nvinfer1::IPluginV3OneRuntime* runtime = rr::test::runtime_of(plugin.get());
  std::vector<void*> memory;
  const auto place = [&](const void* from, std::size_t bytes) {
    void* block = nullptr;
    CHECK(cudaMalloc(&block, bytes) == cudaSuccess);
    CHECK(cudaMemset(block, 0xff, bytes) == cudaSuccess);  // NaN where nothing is written
    if (from != nullptr) {
      CHECK(cudaMemcpy(block, from, bytes, cudaMemcpyHostToDevice) == cudaSuccess);
    }
    memory.push_back(block);
    return block;
  };
  const std::size_t bytes = r.size() * sizeof(T);
  std::vector<const void*> sources{place(r.data(), bytes)};
  if (inputs % 2 == 0) sources.push_back(place(x.data(), bytes));
  for (std::size_t i = 0; i < (inputs > 4 ? 4 : 2); ++i) {
    sources.push_back(place(weights[i].data(), weights[i].size() * sizeof(float)));
  }
  const std::array<void*, 1> outputs{place(nullptr, bytes)};
  void* workspace = place(nullptr, workspace_size);
  CHECK(runtime->onShapeChange(descs.data(), inputs, &descs.back(), 1) == 0);
  std::vector<T> found(r.size());
  CHECK(runtime->enqueue(descs.data(), &descs.back(), sources.data(), outputs.data(), workspace,
                         nullptr) == 0);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(cudaMemcpy(found.data(), outputs[0], bytes, cudaMemcpyDeviceToHost) == cudaSuccess);
  for (void* block : memory) CHECK(cudaFree(block) == cudaSuccess);
  std::vector<double> wanted;
  for (const T value : expected) wanted.push_back(static_cast<double>(rr::to_float(value)));
  return rr::test::worst_error(found, wanted);
}

void test_gpu(nvinfer1::IPluginCreatorV3One* creator) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    rr::test::skip_gpu("there is no CUDA device: the plugin's kernels were not run");
    return;
  }
  for (const rr::Layout layout : {rr::Layout::kNCHW, rr::Layout::kNHWC}) {
    for (const int inputs : {3, 4, 5, 6}) {
      for (const std::int64_t side : {1, 24, 400}) {
        const rr::test::Picture picture{2, 24, side, side, layout};
        using rr::DType;
        CHECK(run_on_gpu<float>(creator, inputs, DataType::kFLOAT, DType::kFloat32, picture) <
              4e-6);
        // One unit in the last place, where both round differently.
        CHECK(run_on_gpu<rr::Half>(creator, inputs, DataType::kHALF, DType::kFloat16, picture) <
              1e-3);
        CHECK(run_on_gpu<rr::BFloat16>(creator, inputs, DataType::kBF16, DType::kBFloat16,
                                       picture) < 8e-3);
      }
    }
  }
}

}  // namespace

int main() {
  nvinfer1::IPluginCreatorV3One* creator = rr::test::load_creator(ca::kName);
  CHECK(creator != nullptr);
  if (creator != nullptr) {
    test_creation(creator);
    test_build(creator);
    test_shape_change(creator);
    test_gpu(creator);
  }
  return rr::test::check_result();
}
