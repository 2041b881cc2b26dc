// How the CUDA kernels cut up the work: every pixel in exactly one slab, within the limits that the
// kernels rely on, and workspaces that grow with the picture.
#include "core/partition.h"

#include <cmath>
#include <limits>

#include "check.h"
#include "ops/channel_attention/channel_attention.h"
#include "ops/half_instance_norm/half_instance_norm.h"
#include "ops/layer_norm_2d/layer_norm_2d.h"
#include "ops/simple_gate_mean/simple_gate_mean.h"

namespace rr = restorert;
namespace ca = restorert::channel_attention;
namespace hin = restorert::half_instance_norm;
namespace ln = restorert::layer_norm_2d;
namespace sgm = restorert::simple_gate_mean;

namespace {

// `split(pixels, channels, item_bytes)` makes at most `most` slabs; those of a plane begin on
// 16-byte boundaries.
template <typename Function>
void test_split(std::int64_t most, bool plane, const Function& split) {
  for (const std::int64_t item : {2, 4}) {
    for (const std::int64_t channels : {2, 3, 40, 64, 80, 96, 512, 1024, 4096, 100'000}) {
      std::int64_t before = 0;
      for (std::int64_t pixels = 1; pixels < 40'000'000; pixels += pixels / 7 + 1) {
        const rr::Split cut = split(pixels, channels, item);
        CHECK(cut.count >= 1 && cut.count <= most);
        CHECK(cut.size >= 1 && cut.count * cut.size >= pixels);
        if (plane) CHECK(cut.size % (rr::kVectorBytes / item) == 0);
        CHECK(cut.count >= before);  // a larger picture never needs a smaller workspace
        before = cut.count;
      }
    }
  }
}

void test_splits() {
  using Size = std::int64_t;
  test_split(rr::kThreads, true,
             [](Size pixels, Size, Size item) { return hin::split_plane(pixels, item); });
  test_split(2048, false, hin::split_pixels);
  test_split(256, true, ca::split_plane);
  test_split(256, false, ca::split_pixels);
  test_split(512, true,
             [](Size pixels, Size, Size item) { return sgm::split_planes(pixels, item); });
  test_split(1024, false, sgm::split_pixels);
}

void test_channel_tiles() {
  for (std::int64_t vectors = 1; vectors < 5000; ++vectors) {
    const rr::ChannelTile tile = rr::tile_channels(vectors);
    CHECK(tile.lanes >= 1 && tile.lanes <= 32);
    CHECK(tile.rows * tile.lanes <= rr::kThreads && tile.rows >= 8);
    CHECK(tile.blocks * tile.lanes >= vectors);
    CHECK((tile.blocks - 1) * tile.lanes < vectors);  // no block without work
  }
}

void test_layer_norm_tiles() {
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
}

// 0 for nothing; else never less for more pixels or images, and small beside the picture's 2 bytes
// an element.
template <typename Problem>
void test_workspace() {
  Problem problem;
  CHECK(cuda_workspace_size(problem) == 0);
  for (const rr::Layout layout : {rr::Layout::kNCHW, rr::Layout::kNHWC}) {
    for (const rr::DType dtype : {rr::DType::kFloat32, rr::DType::kFloat16}) {
      problem.layout = layout;
      problem.dtype = dtype;
      problem.channels = 96;
      std::size_t before_images = 0;
      for (problem.images = 1; problem.images < 5; ++problem.images) {
        std::size_t before = 0;
        for (problem.pixels = 1; problem.pixels < 9'000'000; problem.pixels *= 3) {
          const std::size_t size = cuda_workspace_size(problem);
          CHECK(size >= before && size > 0 && size % sizeof(float) == 0);
          CHECK(size < 4096U * 48U * 20U * static_cast<std::size_t>(problem.images));
          before = size;
        }
        CHECK(before > before_images);
        before_images = before;
      }
    }
  }
}

// Sums that are given need no room.
void test_workspace_with_sums() {
  ca::Problem problem;
  problem.images = problem.channels = problem.pixels = 96;
  const std::size_t size = ca::cuda_workspace_size(problem);
  const float sums = 0.0F;
  problem.sums = &sums;
  CHECK(ca::cuda_workspace_size(problem) < size);
}

void test_vectors() {
  alignas(16) const char bytes[32] = {};
  for (int shift = 0; shift < 16; ++shift) {
    for (const std::int64_t width : {8, 16}) {
      CHECK(rr::splits_into(width, 48, {bytes, bytes + shift}) == (shift % width == 0));
      CHECK(!rr::splits_into(width, 44, {bytes, bytes + shift}));
    }
  }
  CHECK(rr::splits_into(16, 32, {nullptr}));  // an argument that is left out
}

void test_channel_attention_scalars() {
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
  test_channel_tiles();
  test_layer_norm_tiles();
  test_workspace<hin::Problem>();
  test_workspace<ca::Problem>();
  test_workspace<sgm::Problem>();
  test_workspace_with_sums();
  test_vectors();
  test_channel_attention_scalars();
  return rr::test::check_result();
}
