// NAFNet's ops natively: how their CUDA kernels cut up the work, and TensorRT's part towards the
// plugins layer_norm_2d, simple_gate and simple_gate_mean: attributes, types, formats, sizes and,
// where there is a GPU, results beside the CPU ops'.
#include <cuda_runtime_api.h>

#include <array>
#include <cmath>

#include "core/dispatch.h"
#include "ops/layer_norm_2d/layer_norm_2d.h"
#include "ops/simple_gate/simple_gate.h"
#include "ops/simple_gate_mean/simple_gate_mean.h"
#include "picture.h"
#include "plugin_host.h"

namespace rr = restorert;
namespace ln = restorert::layer_norm_2d;
namespace sg = restorert::simple_gate;
namespace sgm = restorert::simple_gate_mean;
using nvinfer1::DataType;
using nvinfer1::TensorFormat;
using rr::test::desc_of;

namespace {

using Sizes = std::vector<std::int64_t>;

void test_partition() {
  for (const bool vectors : {true, false}) {
    for (std::int64_t channels = 1; channels < 5000; ++channels) {
      const ln::PlaneTile tile = ln::tile_planes(channels, vectors);
      const int threads = tile.lanes * tile.rows;
      CHECK(threads == rr::kThreads || threads == ln::kMaxPlaneThreads);
      CHECK((tile.lanes & (tile.lanes - 1)) == 0 && (tile.rows & (tile.rows - 1)) == 0);
      CHECK(tile.lanes >= (vectors ? 4 : 32));
      // What a kernel's shared memory is made for.
      CHECK(tile.resident == (channels <= (vectors ? 1024 : 256)));
      if (threads == rr::kThreads) CHECK(tile.resident && channels <= 256);
      const std::int64_t groups = tile.lanes >= 32 ? tile.rows : threads / 32;
      CHECK(groups <= 32);
      CHECK(groups * tile.lanes <= (vectors && threads > rr::kThreads ? threads / 4 : threads));
    }
  }
  for (const int most : {4, 8}) {
    for (std::int64_t count = 1; count < 3000; ++count) {
      const ln::PixelTile tile = ln::tile_pixels(count, most);
      CHECK(tile.lanes <= 32 && (tile.lanes & (tile.lanes - 1)) == 0);
      CHECK(tile.packs == 0 ? count > 32 * most : tile.lanes * tile.packs >= count);
      CHECK(tile.packs <= most && (tile.packs & (tile.packs - 1)) == 0);
    }
  }
  for (const std::int64_t step : {8, 64, 2048}) {
    for (std::int64_t pixels = 1; pixels < 100'000'000; pixels = pixels * 3 + 1) {
      const std::int64_t slab = ln::slab_pixels(pixels, step);
      CHECK(slab % step == 0 && slab >= step && slab <= 8 * step);
    }
  }
  for (const std::int64_t item : {2, 4}) {
    std::int64_t before = 0;
    for (std::int64_t pixels = 1; pixels < 100'000'000; pixels += pixels / 7 + 1) {
      const rr::Split split = sgm::split_planes(pixels, item);
      CHECK(split.count >= before && split.count <= 512 && split.count * split.size >= pixels);
      CHECK(split.size % (rr::kVectorBytes / item) == 0);
      before = split.count;
    }
    for (const std::int64_t channels : {1, 3, 40, 64, 1024, 100'000}) {
      before = 0;
      for (std::int64_t pixels = 1; pixels < 100'000'000; pixels += pixels / 7 + 1) {
        const rr::Split split = sgm::split_pixels(pixels, channels, item);
        CHECK(split.count >= before && split.count <= 1024 && split.count * split.size >= pixels);
        before = split.count;
      }
    }
  }
}

bool is_dense_nhwc(DataType type, TensorFormat format, std::int64_t channels) {
  const bool half = type == DataType::kHALF || type == DataType::kBF16;
  return (format == TensorFormat::kHWC && type == DataType::kFLOAT) ||
         (format == TensorFormat::kHWC8 && half && channels > 0 && channels % 8 == 0);
}

constexpr std::array<DataType, 4> kTypes{DataType::kFLOAT, DataType::kHALF, DataType::kBF16,
                                         DataType::kINT8};

// Formats by a rule written out anew.
void test_norm_formats(nvinfer1::IPluginV3OneBuild* build) {
  int accepted = 0;
  for (const std::int64_t channels : {std::int64_t{6}, std::int64_t{64}, std::int64_t{-1}}) {
    for (int code = 0; code < 4 * 13 * 4 * 13; ++code) {
      const DataType type = kTypes[static_cast<std::size_t>(code % 4)];
      const auto format = static_cast<TensorFormat>(code / 4 % 13);
      const DataType other_type = kTypes[static_cast<std::size_t>(code / 52 % 4)];
      const auto other_format = static_cast<TensorFormat>(code / 208);
      const Sizes sizes{1, channels, 9, 7};
      auto tensors = rr::test::dynamic_of({desc_of(sizes, type, format),
                                           desc_of({channels}, other_type, other_format),
                                           desc_of({channels}, other_type, other_format),
                                           desc_of(sizes, other_type, other_format)});
      const auto ask = [&](std::int32_t position) {
        return build->supportsFormatCombination(position, tensors.data(), 3, 1);
      };
      const bool good = type != DataType::kINT8 &&
                        (format == TensorFormat::kLINEAR || is_dense_nhwc(type, format, channels));
      CHECK(ask(0) == good);
      if (!good) continue;
      const bool parameter = other_format == TensorFormat::kLINEAR &&
                             (other_type == DataType::kFLOAT || other_type == type);
      CHECK(ask(1) == parameter && ask(2) == parameter);
      CHECK(ask(3) == (other_format == format && other_type == type));
      CHECK(!ask(4) && !ask(-1));
      ++accepted;
    }
  }
  // Each of four types and 13 formats: linear for three numbers of channels and three types, kHWC
  // as often for one, kHWC8 for 64 channels and two.
  CHECK(accepted == 52 * (9 + 3 + 2));
}

void test_gate_formats(nvinfer1::IPluginV3OneBuild* build, bool with_mean) {
  const std::int32_t outputs = with_mean ? 2 : 1;
  int accepted = 0;
  for (const std::int64_t channels : {6, 12, 64, -1}) {
    const Sizes wide{1, channels < 0 ? -1 : 2 * channels, 9, 7};
    const Sizes narrow{1, channels, 9, 7};
    for (int code = 0; code < 4 * 13 * 4 * 13; ++code) {
      const DataType type = kTypes[static_cast<std::size_t>(code % 4)];
      const auto format = static_cast<TensorFormat>(code / 4 % 13);
      const DataType other_type = kTypes[static_cast<std::size_t>(code / 52 % 4)];
      const auto other_format = static_cast<TensorFormat>(code / 208);
      auto tensors = rr::test::dynamic_of({desc_of(wide, type, format),
                                           desc_of(narrow, other_type, other_format),
                                           desc_of({1, channels}, other_type, other_format)});
      const auto ask = [&](std::int32_t position) {
        return build->supportsFormatCombination(position, tensors.data(), 1, outputs);
      };
      const bool linear = format == TensorFormat::kLINEAR;
      const bool good = type != DataType::kINT8 && (linear || is_dense_nhwc(type, format, wide[1]));
      CHECK(ask(0) == good);
      if (!good) continue;
      // 24 channels are dense in kHWC8, their 12 products are not.
      const bool product = other_type == type && other_format == format &&
                           (linear || is_dense_nhwc(type, format, channels));
      CHECK(ask(1) == product);
      accepted += product ? 1 : 0;
      CHECK(ask(2) ==
            (with_mean && other_type == DataType::kFLOAT && other_format == TensorFormat::kLINEAR));
      CHECK(!ask(3) && !ask(-1));
    }
  }
  CHECK(accepted == 3 * 4 + 4 + 2);
}

// A builder's expressions: numbers.
class Expression final : public nvinfer1::IDimensionExpr, nvinfer1::apiv::VDimensionExpr {
 public:
  explicit Expression(std::int64_t number) : number_(number) { mImpl = this; }
  bool isConstant() const override { return true; }
  std::int64_t getConstantValue() const override { return number_; }
  bool isSizeTensor() const override { return false; }

 private:
  std::int64_t number_;
};

class NumberBuilder final : public nvinfer1::IExprBuilder, nvinfer1::apiv::VExprBuilder {
 public:
  NumberBuilder() { mImpl = this; }
  const nvinfer1::IDimensionExpr* constant(std::int64_t value) override {
    made_.push_back(std::make_unique<Expression>(value));
    return made_.back().get();
  }
  const nvinfer1::IDimensionExpr* operation(nvinfer1::DimensionOperation op,
                                            const nvinfer1::IDimensionExpr& first,
                                            const nvinfer1::IDimensionExpr& second) override {
    CHECK(op == nvinfer1::DimensionOperation::kFLOOR_DIV);
    return constant(static_cast<const Expression&>(first).getConstantValue() /
                    static_cast<const Expression&>(second).getConstantValue());
  }
  const nvinfer1::IDimensionExpr* declareSizeTensor(std::int32_t, const nvinfer1::IDimensionExpr&,
                                                    const nvinfer1::IDimensionExpr&) override {
    return nullptr;
  }

 private:
  std::vector<std::unique_ptr<Expression>> made_;
};

std::int64_t number_of(const nvinfer1::IDimensionExpr* expression) {
  return static_cast<const Expression*>(expression)->getConstantValue();
}

void test_norm(nvinfer1::IPluginCreatorV3One* creator) {
  rr::test::test_one_attribute(creator, ln::kName, "eps", 1e-6F, 1e-3F, -1.0F);
  rr::test::PluginPointer plugin = rr::test::create(creator, {});
  nvinfer1::IPluginV3OneBuild* build = rr::test::build_of(plugin.get());
  CHECK(build->getNbOutputs() == 1);
  const std::array<DataType, 3> types{DataType::kBF16, DataType::kFLOAT, DataType::kFLOAT};
  DataType type = DataType::kINT8;
  CHECK(build->getOutputDataTypes(&type, 1, types.data(), 3) == 0 && type == DataType::kBF16);
  CHECK(build->getOutputDataTypes(&type, 1, types.data(), 2) != 0);
  CHECK(rr::test::logged_one_line(ln::kName, "2 inputs"));
  std::array<nvinfer1::DimsExprs, 3> shapes{};
  shapes[0].nbDims = 4;
  nvinfer1::DimsExprs result{};
  rr::test::ExprBuilder builder;
  CHECK(build->getOutputShapes(shapes.data(), 3, nullptr, 0, &result, 1, builder) == 0);
  CHECK(result.nbDims == 4);
  CHECK(build->getWorkspaceSize(nullptr, 3, nullptr, 1) == 0);
  test_norm_formats(build);

  nvinfer1::IPluginV3OneRuntime* runtime = rr::test::runtime_of(plugin.get());
  const auto change = [&](const Sizes& x, const Sizes& weight, const Sizes& bias, const Sizes& out,
                          TensorFormat format = TensorFormat::kLINEAR) {
    const std::array<nvinfer1::PluginTensorDesc, 4> descs{
        desc_of(x, DataType::kHALF, format), desc_of(weight, DataType::kFLOAT),
        desc_of(bias, DataType::kFLOAT), desc_of(out, DataType::kHALF, format)};
    rr::test::g_finder.logger.last.clear();
    return runtime->onShapeChange(descs.data(), 3, &descs[3], 1);
  };
  const auto logged = [](const char* part) { return rr::test::logged_one_line(ln::kName, part); };
  const Sizes x{1, 16, 9, 7};
  CHECK(change(x, {16}, {16}, x) == 0);
  CHECK(change(x, {16}, {16}, x, TensorFormat::kHWC8) == 0);
  CHECK(change({0, 16, 9, 7}, {16}, {16}, {0, 16, 9, 7}) == 0);
  CHECK(change({1, 16, 9}, {16}, {16}, {1, 16, 9}) != 0 && logged("'x'"));
  CHECK(change({1, -1, 9, 7}, {16}, {16}, x) != 0 && logged("'x'"));
  CHECK(change({1, 12, 9, 7}, {12}, {12}, {1, 12, 9, 7}, TensorFormat::kHWC8) != 0 &&
        logged("'x'"));
  CHECK(change(x, {8}, {16}, x) != 0 && logged("'weight'"));
  CHECK(change(x, {16}, {1, 16}, x) != 0 && logged("'bias'"));
  CHECK(change(x, {16}, {16}, {1, 16, 9, 8}) != 0 && logged("'out'"));
}

void test_gate(nvinfer1::IPluginCreatorV3One* creator, const char* name, bool with_mean) {
  CHECK(std::strcmp(creator->getPluginVersion(), "1") == 0);
  CHECK(std::strcmp(creator->getPluginNamespace(), "") == 0);
  CHECK(creator->getFieldNames()->nbFields == 0);
  const float number = 1.0F;
  CHECK(rr::test::create(creator, {{"eps", &number, nvinfer1::PluginFieldType::kFLOAT32, 1}}) ==
        nullptr);
  CHECK(rr::test::logged_one_line(name, "unknown field 'eps'; expected none"));

  rr::test::PluginPointer first = rr::test::create(creator, {});
  CHECK(first != nullptr);
  if (first == nullptr) return;
  CHECK(rr::test::runtime_of(first.get())->getFieldsToSerialize()->nbFields == 0);
  rr::test::PluginPointer plugin(first->clone());
  first.reset();
  CHECK(std::strcmp(rr::test::core_of(plugin.get())->getPluginName(), name) == 0);
  nvinfer1::IPluginV3OneBuild* build = rr::test::build_of(plugin.get());
  const std::int32_t outputs = with_mean ? 2 : 1;
  CHECK(build->getNbOutputs() == outputs);
  const DataType half = DataType::kHALF;
  std::array<DataType, 2> types{DataType::kINT8, DataType::kFLOAT};
  CHECK(build->getOutputDataTypes(types.data(), outputs, &half, 1) == 0);
  CHECK(types[0] == DataType::kHALF && types[1] == DataType::kFLOAT);
  CHECK(build->getOutputDataTypes(types.data(), 3, &half, 1) != 0);
  CHECK(rr::test::logged_one_line(name, "3 outputs"));

  NumberBuilder builder;
  nvinfer1::DimsExprs shape{};
  shape.nbDims = 4;
  const std::array<std::int64_t, 4> sizes{2, 128, 9, 7};
  for (std::size_t i = 0; i < 4; ++i) shape.d[i] = builder.constant(sizes[i]);
  std::array<nvinfer1::DimsExprs, 2> results{};
  CHECK(build->getOutputShapes(&shape, 1, nullptr, 0, results.data(), outputs, builder) == 0);
  CHECK(results[0].nbDims == 4 && results[0].d[0] == shape.d[0] && results[0].d[2] == shape.d[2] &&
        results[0].d[3] == shape.d[3] && number_of(results[0].d[1]) == 64);
  if (with_mean) {
    CHECK(results[1].nbDims == 2 && results[1].d[0] == shape.d[0]);
    CHECK(number_of(results[1].d[1]) == 64);
  }
  test_gate_formats(build, with_mean);

  // The workspace for the largest shape is enough for every smaller one.
  for (const TensorFormat format : {TensorFormat::kLINEAR, TensorFormat::kHWC8}) {
    auto tensors = rr::test::dynamic_of({desc_of({-1, 128, -1, -1}, half, format)});
    tensors[0].max = rr::test::dims_of({4, 128, 720, 1280});
    const auto ask = [&] { return build->getWorkspaceSize(tensors.data(), 1, nullptr, outputs); };
    const std::size_t largest = ask();
    CHECK(with_mean ? largest > 0 && largest < (std::size_t{4} << 20) : largest == 0);
    for (std::int64_t images = 1; images <= 4; ++images) {
      for (std::int64_t height = 1; height <= 720; height = height * 3 + 1) {
        for (std::int64_t width = 1; width <= 1280; width = width * 2 + 3) {
          tensors[0].max = rr::test::dims_of({images, 128, height, width});
          CHECK(ask() <= largest);
        }
      }
    }
    for (const Sizes& none : {Sizes{0, 128, 720, 1280}, Sizes{1, 128, 0, 8}, Sizes{128}}) {
      tensors[0].max = rr::test::dims_of(none);
      CHECK(ask() == 0);
    }
  }

  nvinfer1::IPluginV3OneRuntime* runtime = rr::test::runtime_of(plugin.get());
  const auto change = [&](const Sizes& x, const Sizes& out, const Sizes& mean,
                          TensorFormat format = TensorFormat::kLINEAR) {
    const std::array<nvinfer1::PluginTensorDesc, 3> descs{
        desc_of(x, half, format), desc_of(out, half, format), desc_of(mean, DataType::kFLOAT)};
    rr::test::g_finder.logger.last.clear();
    return runtime->onShapeChange(descs.data(), 1, &descs[1], outputs);
  };
  const auto logged = [&](const char* part) { return rr::test::logged_one_line(name, part); };
  const Sizes x{1, 32, 9, 7};
  const Sizes out{1, 16, 9, 7};
  CHECK(change(x, out, {1, 16}) == 0);
  CHECK(change(x, out, {1, 16}, TensorFormat::kHWC8) == 0);
  CHECK(change({0, 32, 9, 7}, {0, 16, 9, 7}, {0, 16}) == 0);
  CHECK(change({1, 33, 9, 7}, out, {1, 16}) != 0 && logged("'x'"));
  CHECK(change({1, 32, 9}, out, {1, 16}) != 0 && logged("'x'"));
  CHECK(change(x, x, {1, 16}) != 0 && logged("'out'"));
  CHECK(change({1, 24, 9, 7}, {1, 12, 9, 7}, {1, 12}, TensorFormat::kHWC8) != 0 && logged("'out'"));
  if (with_mean) CHECK(change(x, out, {1, 32}) != 0 && logged("'mean'"));
}

// Runs a plugin as an execution context would, twice into memory full of NaN, with `inputs` first
// and zeros of the outputs' sizes behind them in `host`. Returns the outputs.
using Bytes = std::vector<unsigned char>;

std::vector<Bytes> run_on_gpu(nvinfer1::IPluginCreatorV3One* creator,
                              const std::vector<nvinfer1::PluginTensorDesc>& descs,
                              std::vector<Bytes> host, std::int32_t inputs) {
  rr::test::PluginPointer plugin = rr::test::create(creator, {});
  const auto outputs = static_cast<std::int32_t>(descs.size()) - inputs;
  const auto first = static_cast<std::size_t>(inputs);
  const auto tensors = rr::test::dynamic_of(descs);
  host.emplace_back(rr::test::build_of(plugin.get())
                        ->getWorkspaceSize(tensors.data(), inputs, &tensors[first], outputs));
  std::vector<void*> memory(host.size());
  for (std::size_t i = 0; i < host.size(); ++i) {
    CHECK(cudaMalloc(&memory[i], host[i].size() + 1) == cudaSuccess);
    CHECK(cudaMemcpy(memory[i], host[i].data(), host[i].size(), cudaMemcpyHostToDevice) ==
          cudaSuccess);
  }
  nvinfer1::IPluginV3OneRuntime* runtime = rr::test::runtime_of(plugin.get());
  CHECK(runtime->onShapeChange(descs.data(), inputs, &descs[first], outputs) == 0);
  std::vector<Bytes> found;
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = first; i < host.size(); ++i) {
      CHECK(cudaMemset(memory[i], 0xff, host[i].size()) == cudaSuccess);
    }
    CHECK(runtime->enqueue(descs.data(), &descs[first], memory.data(), &memory[first],
                           memory.back(), nullptr) == 0);
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    for (std::size_t i = first; i < descs.size(); ++i) {
      found.emplace_back(host[i].size());
      CHECK(cudaMemcpy(found.back().data(), memory[i], host[i].size(), cudaMemcpyDeviceToHost) ==
            cudaSuccess);
    }
  }
  for (void* block : memory) CHECK(cudaFree(block) == cudaSuccess);
  for (std::size_t i = 0; i < found.size() / 2; ++i) CHECK(found[i] == found[i + found.size() / 2]);
  found.resize(found.size() / 2);
  return found;
}

template <typename T>
Bytes bytes_of(const std::vector<T>& values) {
  Bytes bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

template <typename T>
double worst_error(const Bytes& found, const std::vector<T>& expected) {
  std::vector<T> values(expected.size());
  std::memcpy(values.data(), found.data(), found.size());
  std::vector<double> wide;
  for (const T value : expected) wide.push_back(static_cast<double>(rr::to_float(value)));
  return rr::test::worst_error(values, wide);
}

// All three plugins beside the CPU ops on the same numbers.
template <typename T>
void test_results(const std::array<nvinfer1::IPluginCreatorV3One*, 3>& creators,
                  const rr::test::Picture& picture, DataType type, rr::DType dtype, double limit) {
  const bool planes = picture.layout == rr::Layout::kNCHW;
  const TensorFormat format =
      planes ? TensorFormat::kLINEAR
             : (type == DataType::kFLOAT ? TensorFormat::kHWC : TensorFormat::kHWC8);
  const Sizes sizes{picture.images, picture.channels, picture.height, picture.width};
  const Sizes half_sizes{sizes[0], sizes[1] / 2, sizes[2], sizes[3]};
  const std::vector<T> x = rr::test::make_picture<T>(picture, 0.3F, 1.0F);
  std::vector<T> out(x.size());
  std::vector<float> parameters;
  for (std::size_t c = 0; c < static_cast<std::size_t>(picture.channels); ++c) {
    parameters.push_back(1.0F + 0.5F * rr::test::noise(c));
  }
  ln::Problem norm;
  norm.images = picture.images;
  norm.channels = picture.channels;
  norm.pixels = picture.pixels();
  norm.dtype = dtype;
  norm.layout = picture.layout;
  norm.x = x.data();
  norm.weight = norm.bias = parameters.data();
  norm.out = out.data();
  ln::run_cpu(norm);
  const nvinfer1::PluginTensorDesc vector = desc_of({sizes[1]}, DataType::kFLOAT);
  const nvinfer1::PluginTensorDesc whole = desc_of(sizes, type, format);
  std::vector<Bytes> found =
      run_on_gpu(creators[0], {whole, vector, vector, whole},
                 {bytes_of(x), bytes_of(parameters), bytes_of(parameters), bytes_of(out)}, 3);
  CHECK(worst_error(found[0], out) < limit);

  std::vector<T> product(x.size() / 2);
  std::vector<float> mean(static_cast<std::size_t>(sizes[0] * half_sizes[1]));
  sgm::Problem gate;
  gate.images = picture.images;
  gate.channels = half_sizes[1];
  gate.pixels = picture.pixels();
  gate.dtype = dtype;
  gate.layout = picture.layout;
  gate.x = x.data();
  gate.out = product.data();
  gate.mean = mean.data();
  sgm::run_cpu(gate);
  const nvinfer1::PluginTensorDesc half = desc_of(half_sizes, type, format);
  found = run_on_gpu(creators[1], {whole, half}, {bytes_of(x), bytes_of(product)}, 1);
  CHECK(found[0] == bytes_of(product));
  found =
      run_on_gpu(creators[2], {whole, half, desc_of({sizes[0], half_sizes[1]}, DataType::kFLOAT)},
                 {bytes_of(x), bytes_of(product), bytes_of(mean)}, 1);
  CHECK(found[0] == bytes_of(product));
  CHECK(worst_error(found[1], mean) < 2e-6);
}

void test_gpu(const std::array<nvinfer1::IPluginCreatorV3One*, 3>& creators) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    rr::test::skip_gpu("there is no CUDA device: the plugins' kernels were not run");
    return;
  }
  for (const rr::Layout layout : {rr::Layout::kNCHW, rr::Layout::kNHWC}) {
    for (const auto& s : std::vector<std::array<std::int64_t, 4>>{{1, 16, 1, 1},
                                                                  {2, 64, 17, 23},
                                                                  {1, 128, 90, 160},
                                                                  {1, 512, 24, 40},
                                                                  {2, 1024, 9, 16},
                                                                  {1, 2064, 5, 8}}) {
      const rr::test::Picture picture{s[0], s[1], s[2], s[3], layout};
      using rr::DType;
      test_results<float>(creators, picture, DataType::kFLOAT, DType::kFloat32, 4e-6);
      test_results<rr::Half>(creators, picture, DataType::kHALF, DType::kFloat16, 1e-3);
      test_results<rr::BFloat16>(creators, picture, DataType::kBF16, DType::kBFloat16, 8e-3);
    }
  }
}

}  // namespace

int main() {
  test_partition();
  const std::array<nvinfer1::IPluginCreatorV3One*, 3> creators{rr::test::load_creator(ln::kName),
                                                               rr::test::load_creator(sg::kName),
                                                               rr::test::load_creator(sgm::kName)};
  bool all = true;
  for (const auto* creator : creators) {
    CHECK(creator != nullptr);
    all = all && creator != nullptr;
  }
  if (all) {
    test_norm(creators[0]);
    test_gate(creators[1], sg::kName, false);
    test_gate(creators[2], sgm::kName, true);
    test_gpu(creators);
  }
  return rr::test::check_result();
}
