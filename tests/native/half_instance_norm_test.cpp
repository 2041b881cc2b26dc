// The CPU op against the formula in double precision, for awkward shapes.
#include <array>
#include <cstdio>

#include "check.h"
#include "picture.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace rr = restorert;
namespace hin = restorert::half_instance_norm;

namespace {

rr::TensorView view_of(void* data, const rr::test::Picture& picture, rr::DType dtype,
                       const char* name) {
  rr::TensorView view;
  view.data = data;
  view.rank = 4;
  view.shape = {picture.images, picture.channels, picture.height, picture.width, 0};
  const std::int64_t c = picture.channels;
  const std::int64_t hw = picture.pixels();
  if (picture.layout == rr::Layout::kNCHW) {
    view.strides = {c * hw, hw, picture.width, 1, 0};
  } else {
    view.strides = {c * hw, 1, picture.width * c, c, 0};
  }
  view.dtype = dtype;
  view.dtype_name = name;
  view.device_name = "cpu";
  return view;
}

rr::TensorView vector_of(std::vector<float>& data) {
  rr::TensorView view;
  view.data = data.data();
  view.rank = 1;
  view.shape = {static_cast<std::int64_t>(data.size()), 0, 0, 0, 0};
  view.strides = {1, 0, 0, 0, 0};
  view.dtype = rr::DType::kFloat32;
  view.dtype_name = "float32";
  view.device_name = "cpu";
  return view;
}

template <typename T>
double run(const rr::test::Picture& picture, rr::DType dtype, const char* name, float mean,
           bool in_place) {
  std::vector<T> x = rr::test::make_picture<T>(picture, mean, 1.0F);
  const std::vector<T> kept = x;
  std::vector<T> out(x.size(), rr::from_float<T>(1e4F));
  std::vector<float> weight(static_cast<std::size_t>(picture.channels / 2));
  std::vector<float> bias(weight.size());
  for (std::size_t i = 0; i < weight.size(); ++i) {
    weight[i] = 1.0F + 0.5F * rr::test::noise(i);
    bias[i] = rr::test::noise(i + 1000);
  }
  hin::Arguments arguments{view_of(x.data(), picture, dtype, name), vector_of(weight),
                           vector_of(bias),
                           view_of(in_place ? x.data() : out.data(), picture, dtype, name)};
  hin::Problem problem;
  const rr::Status status = hin::check(arguments, &problem);
  if (!status.ok()) std::printf("%s\n", status.message().c_str());
  CHECK(status.ok());
  hin::run_cpu(problem);
  if (!in_place) CHECK(std::memcmp(x.data(), kept.data(), x.size() * sizeof(T)) == 0);
  return rr::test::worst_error(in_place ? x : out,
                               rr::test::reference(picture, kept, weight, bias, 1e-5, 0.2));
}

constexpr std::array<std::array<std::int64_t, 4>, 12> kShapes{{{1, 2, 1, 1},
                                                               {3, 6, 1, 1},
                                                               {2, 2, 1, 7},
                                                               {1, 6, 17, 23},
                                                               {2, 34, 5, 9},
                                                               {1, 64, 33, 40},
                                                               {1, 80, 12, 31},
                                                               {2, 96, 64, 65},
                                                               {1, 2, 700, 801},
                                                               {1, 1000, 3, 3},
                                                               {1, 5000, 2, 3},
                                                               {1, 36, 300, 301}}};

void test_shapes() {
  std::array<double, 3> worst{};
  std::array<double, 3> worst_far{};
  for (const auto& shape : kShapes) {
    for (const rr::Layout layout : {rr::Layout::kNCHW, rr::Layout::kNHWC}) {
      const rr::test::Picture picture{shape[0], shape[1], shape[2], shape[3], layout};
      for (const bool in_place : {false, true}) {
        using rr::DType;
        const std::array<double, 3> near{
            run<float>(picture, DType::kFloat32, "float32", 0.3F, in_place),
            run<rr::Half>(picture, DType::kFloat16, "float16", 0.3F, in_place),
            run<rr::BFloat16>(picture, DType::kBFloat16, "bfloat16", 0.3F, in_place)};
        const std::array<double, 3> far{
            run<float>(picture, DType::kFloat32, "float32", 1e4F, in_place),
            run<rr::Half>(picture, DType::kFloat16, "float16", 1e4F, in_place),
            run<rr::BFloat16>(picture, DType::kBFloat16, "bfloat16", 1e4F, in_place)};
        for (std::size_t i = 0; i < 3; ++i) {
          CHECK(!std::isnan(near[i]) && !std::isnan(far[i]));
          worst[i] = std::fmax(worst[i], near[i]);
          worst_far[i] = std::fmax(worst_far[i], far[i]);
        }
      }
    }
  }
  std::printf("worst error, fp32 fp16 bf16: mean 0.3: %.2e %.2e %.2e; mean 1e4: %.2e %.2e %.2e\n",
              worst[0], worst[1], worst[2], worst_far[0], worst_far[1], worst_far[2]);
  // Worst seen: 3.8e-7, 4.9e-4, 3.9e-3 and, around a mean of 1e4, 1.9e-6, 2.4e-4, 2.0e-3. For fp16
  // and bf16 that is the rounding of the result, half of 2^-10 and of 2^-7.
  constexpr std::array<double, 3> kLimits{1e-6, 5e-4, 4e-3};
  constexpr std::array<double, 3> kLimitsFar{4e-6, 5e-4, 4e-3};
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(worst[i] < kLimits[i]);
    CHECK(worst_far[i] < kLimitsFar[i]);
  }
}

// The same bits from any number of threads.
void test_threads() {
#if defined(_OPENMP)
  for (const rr::Layout layout : {rr::Layout::kNCHW, rr::Layout::kNHWC}) {
    const rr::test::Picture picture{1, 6, 800, 801, layout};
    const std::vector<float> x = rr::test::make_picture<float>(picture, 3.0F, 1.0F);
    const std::vector<float> ones(3, 1.0F);
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 3, 8}) {
      omp_set_num_threads(threads);
      std::vector<float> out(x.size());
      hin::Problem problem;
      problem.images = 1;
      problem.channels = 6;
      problem.pixels = picture.pixels();
      problem.layout = layout;
      problem.x = x.data();
      problem.weight = problem.bias = ones.data();
      problem.out = out.data();
      hin::run_cpu(problem);
      results.push_back(out);
    }
    for (const auto& result : results) {
      CHECK(std::memcmp(result.data(), results[0].data(), x.size() * sizeof(float)) == 0);
    }
  }
#endif
}

}  // namespace

int main() {
  test_shapes();
  test_threads();
  return rr::test::check_result();
}
