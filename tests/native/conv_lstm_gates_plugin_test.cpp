// Plays TensorRT's part for the plugin conv_lstm_gates: attributes, types, formats, sizes and,
// where there is a GPU, results beside the CPU op's.
#include <cuda_runtime_api.h>

#include <array>
#include <cmath>

#include "core/dispatch.h"
#include "ops/conv_lstm_gates/conv_lstm_gates.h"
#include "picture.h"
#include "plugin_host.h"

namespace rr = restorert;
namespace clg = restorert::conv_lstm_gates;
using nvinfer1::DataType;
using nvinfer1::TensorFormat;
using rr::test::desc_of;

namespace {

void test_build(nvinfer1::IPluginCreatorV3One* creator) {
  rr::test::PluginPointer plugin = rr::test::create(creator, {});
  nvinfer1::IPluginV3OneBuild* build = rr::test::build_of(plugin.get());
  CHECK(build->getNbOutputs() == 2);
  const std::array<DataType, 2> inputs{DataType::kHALF, DataType::kFLOAT};
  std::array<DataType, 2> outputs{};
  CHECK(build->getOutputDataTypes(outputs.data(), 2, inputs.data(), 2) == 0);
  CHECK(outputs == inputs);
  CHECK(build->getOutputDataTypes(outputs.data(), 1, inputs.data(), 2) != 0);
  CHECK(rr::test::logged_one_line(clg::kName, "1 outputs; expected 2 and 2"));

  // Every output has the cell's own sizes.
  std::array<nvinfer1::DimsExprs, 2> shapes{};
  shapes[1].nbDims = 4;
  std::array<nvinfer1::DimsExprs, 2> results{};
  rr::test::ExprBuilder builder;
  CHECK(build->getOutputShapes(shapes.data(), 2, nullptr, 0, results.data(), 2, builder) == 0);
  CHECK(results[0].nbDims == 4 && results[1].nbDims == 4);

  // Formats, by a rule written out anew: all linear, or all dense with the channels last.
  int accepted = 0;
  const std::array<DataType, 4> types{DataType::kFLOAT, DataType::kHALF, DataType::kBF16,
                                      DataType::kINT8};
  for (const std::int64_t channels : {std::int64_t{6}, std::int64_t{64}, std::int64_t{-1}}) {
    const std::vector<std::int64_t> wide{1, channels < 0 ? -1 : 4 * channels, 9, 7};
    const std::vector<std::int64_t> narrow{1, channels, 9, 7};
    const auto dense = [&](std::size_t position, const nvinfer1::PluginTensorDesc& desc) {
      const std::int64_t c = position == 0 ? 4 * channels : channels;
      const bool eights = c > 0 && c % 8 == 0;
      const bool half = desc.type == DataType::kHALF || desc.type == DataType::kBF16;
      return (desc.format == TensorFormat::kHWC && desc.type == DataType::kFLOAT) ||
             (desc.format == TensorFormat::kHWC8 && half && eights);
    };
    for (int code = 0; code < 4 * 4 * 13 * 13; ++code) {
      const DataType gate_type = types[static_cast<std::size_t>(code % 4)];
      const DataType cell_type = types[static_cast<std::size_t>(code / 4 % 4)];
      const auto gate_format = static_cast<TensorFormat>(code / 16 % 13);
      const auto cell_format = static_cast<TensorFormat>(code / 208);
      auto tensors = rr::test::dynamic_of(
          {desc_of(wide, gate_type, gate_format), desc_of(narrow, cell_type, cell_format),
           desc_of(narrow, gate_type, gate_format), desc_of(narrow, cell_type, cell_format)});
      const auto ask = [&](std::int32_t position) {
        return build->supportsFormatCombination(position, tensors.data(), 2, 2);
      };
      const bool floating = gate_type != DataType::kINT8;
      const bool linear = gate_format == TensorFormat::kLINEAR;
      const bool good = floating && (linear || dense(0, tensors[0].desc));
      CHECK(ask(0) == good);
      if (!good) continue;
      const auto fits = [&](std::size_t position, TensorFormat format) {
        return linear ? format == TensorFormat::kLINEAR : dense(position, tensors[position].desc);
      };
      const bool cell_good =
          fits(1, cell_format) && (cell_type == DataType::kFLOAT || cell_type == gate_type);
      CHECK(ask(1) == cell_good);
      if (!cell_good) continue;
      CHECK(ask(2) == fits(2, gate_format));
      CHECK(ask(3));
      accepted += ask(2) ? 1 : 0;
      tensors[2].desc.type = gate_type == DataType::kFLOAT ? DataType::kHALF : DataType::kFLOAT;
      tensors[3].desc.type = DataType::kINT8;
      CHECK(!ask(2) && !ask(3) && !ask(4) && !ask(-1));
    }
  }
  // Linear for three kinds of gates and five pairs of types; with 64 channels NHWC as well.
  CHECK(accepted == 3 * 5 + 5 + 2 * 1);
  CHECK(build->getWorkspaceSize(nullptr, 2, nullptr, 2) == 0);
}

void test_shape_change(nvinfer1::IPluginCreatorV3One* creator) {
  rr::test::PluginPointer plugin = rr::test::create(creator, {});
  nvinfer1::IPluginV3OneRuntime* runtime = rr::test::runtime_of(plugin.get());
  using Sizes = std::vector<std::int64_t>;
  const auto change = [&](const Sizes& gates, const Sizes& cell, const Sizes& hidden,
                          const Sizes& next, TensorFormat format = TensorFormat::kLINEAR) {
    const std::array<nvinfer1::PluginTensorDesc, 4> descs{
        desc_of(gates, DataType::kHALF, format), desc_of(cell, DataType::kHALF, format),
        desc_of(hidden, DataType::kHALF, format), desc_of(next, DataType::kHALF, format)};
    rr::test::g_finder.logger.last.clear();
    return runtime->onShapeChange(descs.data(), 2, &descs[2], 2);
  };
  const Sizes good{1, 16, 9, 7};
  const Sizes gates{1, 64, 9, 7};
  CHECK(change(gates, good, good, good) == 0);
  CHECK(change(gates, good, good, good, TensorFormat::kHWC8) == 0);
  CHECK(change({0, 64, 9, 7}, {0, 16, 9, 7}, {0, 16, 9, 7}, {0, 16, 9, 7}) == 0);
  const auto logged = [](const char* part) { return rr::test::logged_one_line(clg::kName, part); };
  CHECK(change({1, 62, 9, 7}, good, good, good) != 0 && logged("'gates'"));
  CHECK(change({1, 64, 9}, good, good, good) != 0 && logged("'gates'"));
  CHECK(change(gates, gates, good, good) != 0 && logged("'cell'"));
  CHECK(change(gates, good, {1, 16, 9, 8}, good) != 0 && logged("'hidden'"));
  CHECK(change(gates, good, good, {2, 16, 9, 7}) != 0 && logged("'next_cell'"));
  CHECK(change({1, 48, 9, 7}, {1, 12, 9, 7}, {1, 12, 9, 7}, {1, 12, 9, 7}, TensorFormat::kHWC8) !=
            0 &&
        logged("'cell'"));
}

// Runs the plugin as an execution context would, twice, and the CPU op on the same numbers.
template <typename T, typename CellT>
double run_on_gpu(nvinfer1::IPluginCreatorV3One* creator, DataType type, DataType cell_type,
                  rr::DType dtype, rr::DType cell_dtype, const rr::test::Picture& cell_picture) {
  rr::test::Picture gate_picture = cell_picture;
  gate_picture.channels *= 4;
  const std::vector<T> gates = rr::test::make_picture<T>(gate_picture, 0.3F, 2.0F);
  const std::vector<CellT> cell = rr::test::make_picture<CellT>(cell_picture, 0.1F, 1.0F);
  std::vector<T> hidden(cell.size());
  std::vector<CellT> next_cell(cell.size());
  clg::Problem problem;
  const bool planes = cell_picture.layout == rr::Layout::kNCHW;
  problem.rows = cell_picture.images * (planes ? 1 : cell_picture.pixels());
  problem.columns = cell_picture.channels * (planes ? cell_picture.pixels() : 1);
  problem.dtype = dtype;
  problem.cell_dtype = cell_dtype;
  problem.gates = gates.data();
  problem.cell = cell.data();
  problem.hidden = hidden.data();
  problem.next_cell = next_cell.data();
  clg::run_cpu(problem);

  const auto format = [&](DataType kind) {
    return planes ? TensorFormat::kLINEAR
                  : (kind == DataType::kFLOAT ? TensorFormat::kHWC : TensorFormat::kHWC8);
  };
  const std::vector<std::int64_t> sizes{cell_picture.images, cell_picture.channels,
                                        cell_picture.height, cell_picture.width};
  const std::vector<std::int64_t> wide{sizes[0], 4 * sizes[1], sizes[2], sizes[3]};
  const std::array<nvinfer1::PluginTensorDesc, 4> descs{
      desc_of(wide, type, format(type)), desc_of(sizes, cell_type, format(cell_type)),
      desc_of(sizes, type, format(type)), desc_of(sizes, cell_type, format(cell_type))};
  const std::array<std::size_t, 4> bytes{gates.size() * sizeof(T), cell.size() * sizeof(CellT),
                                         hidden.size() * sizeof(T),
                                         next_cell.size() * sizeof(CellT)};
  std::array<void*, 4> memory{};
  for (std::size_t i = 0; i < memory.size(); ++i) {
    CHECK(cudaMalloc(&memory[i], bytes[i]) == cudaSuccess);
    CHECK(cudaMemset(memory[i], 0xff, bytes[i]) == cudaSuccess);  // NaN where nothing is written
  }
  CHECK(cudaMemcpy(memory[0], gates.data(), bytes[0], cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(cudaMemcpy(memory[1], cell.data(), bytes[1], cudaMemcpyHostToDevice) == cudaSuccess);
  rr::test::PluginPointer plugin = rr::test::create(creator, {});
  nvinfer1::IPluginV3OneRuntime* runtime = rr::test::runtime_of(plugin.get());
  CHECK(runtime->onShapeChange(descs.data(), 2, &descs[2], 2) == 0);
  const std::array<const void*, 2> inputs{memory[0], memory[1]};
  const std::array<void*, 2> outputs{memory[2], memory[3]};
  std::vector<T> gpu_hidden(hidden.size());
  std::vector<CellT> gpu_cell(cell.size());
  CHECK(runtime->enqueue(descs.data(), &descs[2], inputs.data(), outputs.data(), nullptr,
                         nullptr) == 0);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(cudaMemcpy(gpu_hidden.data(), memory[2], bytes[2], cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(cudaMemcpy(gpu_cell.data(), memory[3], bytes[3], cudaMemcpyDeviceToHost) == cudaSuccess);
  for (void* block : memory) CHECK(cudaFree(block) == cudaSuccess);
  const auto doubles = [](const auto& values) {
    std::vector<double> wider;
    for (const auto value : values) wider.push_back(static_cast<double>(rr::to_float(value)));
    return wider;
  };
  return std::fmax(rr::test::worst_error(gpu_hidden, doubles(hidden)),
                   rr::test::worst_error(gpu_cell, doubles(next_cell)));
}

void test_gpu(nvinfer1::IPluginCreatorV3One* creator) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    rr::test::skip_gpu("there is no CUDA device: the plugin's kernels were not run");
    return;
  }
  for (const rr::Layout layout : {rr::Layout::kNCHW, rr::Layout::kNHWC}) {
    for (const auto& s : std::vector<std::array<std::int64_t, 4>>{
             {1, 8, 1, 1}, {2, 16, 17, 23}, {1, 128, 45, 80}}) {
      const rr::test::Picture picture{s[0], s[1], s[2], s[3], layout};
      using rr::DType;
      CHECK((run_on_gpu<float, float>(creator, DataType::kFLOAT, DataType::kFLOAT, DType::kFloat32,
                                      DType::kFloat32, picture) < 2e-6));
      CHECK((run_on_gpu<rr::Half, float>(creator, DataType::kHALF, DataType::kFLOAT,
                                         DType::kFloat16, DType::kFloat32, picture) < 1e-3));
      CHECK((run_on_gpu<rr::Half, rr::Half>(creator, DataType::kHALF, DataType::kHALF,
                                            DType::kFloat16, DType::kFloat16, picture) < 1e-3));
      CHECK((run_on_gpu<rr::BFloat16, float>(creator, DataType::kBF16, DataType::kFLOAT,
                                             DType::kBFloat16, DType::kFloat32, picture) < 8e-3));
    }
  }
}

}  // namespace

int main() {
  nvinfer1::IPluginCreatorV3One* creator = rr::test::load_creator(clg::kName);
  CHECK(creator != nullptr);
  if (creator != nullptr) {
    rr::test::test_one_attribute(creator, clg::kName, "forget_bias", 1.0F, -2.5F,
                                 std::numeric_limits<float>::quiet_NaN());
    test_build(creator);
    test_shape_change(creator);
    test_gpu(creator);
  }
  return rr::test::check_result();
}
