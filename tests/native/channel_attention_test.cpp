// How channel attention's CUDA kernels cut up the work, and its scalar mathematics.
#include <cmath>
#include <limits>

#include "check.h"
#include "ops/channel_attention/channel_attention.h"

namespace rr = restorert;
namespace ca = restorert::channel_attention;

namespace {

// Every pixel in exactly one slab, no slab that a smaller picture would not have had.
void test_splits() {
  for (const rr::Layout layout : {rr::Layout::kNCHW, rr::Layout::kNHWC}) {
    for (const std::int64_t item : {2, 4}) {
      for (const std::int64_t channels : {1, 3, 40, 80, 96, 512, 4096, 100'000}) {
        std::int64_t before = 0;
        for (std::int64_t pixels = 1; pixels < 40'000'000; pixels += pixels / 7 + 1) {
          const rr::Split split = ca::split(layout, pixels, channels, item);
          CHECK(split.count >= before && split.count >= 1 && split.count <= 256);
          CHECK(split.size >= 1 && split.count * split.size >= pixels);
          if (layout == rr::Layout::kNCHW) CHECK(split.size % (rr::kVectorBytes / item) == 0);
          before = split.count;
        }
      }
    }
  }
}

void test_workspace() {
  ca::Problem problem;
  CHECK(ca::cuda_workspace_size(problem) == 0);
  const float sums = 0.0F;
  for (const rr::Layout layout : {rr::Layout::kNCHW, rr::Layout::kNHWC}) {
    problem.layout = layout;
    problem.channels = 96;
    std::size_t before_images = 0;
    for (problem.images = 1; problem.images < 5; ++problem.images) {
      std::size_t before = 0;
      for (problem.pixels = 1; problem.pixels < 9'000'000; problem.pixels *= 3) {
        problem.sums = nullptr;
        const std::size_t size = ca::cuda_workspace_size(problem);
        CHECK(size >= before && size % sizeof(float) == 0);
        before = size;
        problem.sums = &sums;
        CHECK(ca::cuda_workspace_size(problem) < size);
      }
      CHECK(before > before_images);
      before_images = before;
    }
  }
}

void test_scalars() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinite = std::numeric_limits<float>::infinity();
  CHECK(ca::relu(-1.0F) == 0.0F && ca::relu(2.0F) == 2.0F && std::isnan(ca::relu(nan)));
  CHECK(ca::relu(-infinite) == 0.0F && ca::relu(infinite) == infinite);
  CHECK(ca::sigmoid(0.0F) == 0.5F && ca::sigmoid(200.0F) == 1.0F && ca::sigmoid(-200.0F) == 0.0F);
  CHECK(ca::sigmoid(infinite) == 1.0F && ca::sigmoid(-infinite) == 0.0F);
  CHECK(std::isnan(ca::sigmoid(nan)));
}

}  // namespace

int main() {
  test_splits();
  test_workspace();
  test_scalars();
  return rr::test::check_result();
}
