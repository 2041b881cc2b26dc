// The three reads of MemoryNet's memory ("Memory augment is All You Need for image restoration",
// arXiv 2309.01377; class MemoryUnit in memory.py of the authors' code). For every pixel, whose C
// channels are the first query:
//
//   read(query, memory): a = softmax(memory . query)                   one weight a prototype
//                        a = a > shrink ? a : 0                        hard shrink
//                        y = memory^T . a / max(sum(a), 1e-12)         L1 norm, weighted sum
//   part = read(x, part memory); instance = read(part, instance memory);
//   semantic = read(instance, semantic memory)
//
// x and the results are [N, C, H, W], a memory is [prototypes, C]. Everything is fp32 inside, the
// queries of the second and third read too; a result is rounded once, when it is stored. No weight
// is stored: there are 130 a pixel.
//
// The authors write the hard shrink as relu(a - s) * a / (|a - s| + 1e-12). In fp32 that differs
// from the comparison only where a - s is below about 1e-5 of s, by less than rounding a
// differently would; in fp16 the 1e-12 is 0 and the formula 0 / 0. The division by the softmax's
// sum is left to the end, where it cancels: with e = exp(logit - largest), a > s means e > s *
// sum(e).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/dispatch.h"
#include "core/exponential.h"
#include "core/macros.h"
#include "core/picture.h"
#include "core/status.h"

namespace restorert::memory_read {

inline constexpr const char* kName = "memory_read";
inline constexpr float kDefaultShrink = 0.0025F;
inline constexpr std::int64_t kMaxChannels = 16;
inline constexpr std::int64_t kMaxPrototypes = 512;  // of each memory

struct Arguments {
  TensorView x;             // [N, C, H, W], C from 1 to 16; fp32, fp16 or bf16; either layout
  TensorView part;          // [P, C], fp32, contiguous; P from 1 to 512
  TensorView instance;      // [I, C], likewise
  TensorView semantic;      // [S, C], likewise
  TensorView semantic_out;  // like x, strides too; memory of its own, as the next two
  TensorView instance_out;
  TensorView part_out;
  double shrink = kDefaultShrink;  // >= 0; 0 shrinks nothing
};

// One read: its memory and where its result goes.
struct Stage {
  const float* memory = nullptr;  // [prototypes, C]
  std::int64_t prototypes = 0;
  void* out = nullptr;
};

// Arguments that have been checked. The picture is x.
struct Problem : Picture {
  const void* x = nullptr;
  std::array<Stage, 3> stages{};  // part, instance, semantic
  float shrink = kDefaultShrink;
};

// half_instance_norm.h says what each of these promises.
Status check(const Arguments& arguments, Problem* problem);
void run_cpu(const Problem& problem);
constexpr std::size_t cuda_workspace_size(const Problem& /*problem*/) {
  return 0;
}
Status run_cuda(const Problem& problem, void* workspace, std::size_t workspace_size, void* stream);

// ---- shared by host and device ----

// Kernels are compiled for these numbers of channels; fewer are filled up with zeros, which change
// no dot product.
constexpr int padded_channels(std::int64_t channels) {
  return channels <= 3 ? 3 : (channels <= 4 ? 4 : (channels <= 8 ? 8 : 16));
}

template <int C>
struct ChannelTag {
  static constexpr int value = C;
};

template <typename Result, typename Function>
Result dispatch_channels(std::int64_t channels, Function&& function) {
  switch (padded_channels(channels)) {
    case 3:
      return function(ChannelTag<3>{});
    case 4:
      return function(ChannelTag<4>{});
    case 8:
      return function(ChannelTag<8>{});
    default:
      return function(ChannelTag<16>{});
  }
}

// `weight` is e^(logit - largest), `limit` shrink times the sum of all of them.
RESTORERT_HD float hard_shrink(float weight, float limit) {
  return weight > limit ? weight : 0.0F;
}

// What the weighted sum is multiplied with. `kept` is the sum of what hard_shrink left, `sum` that
// of all weights. A NaN among the logits is lost in the comparison above and comes back through
// `sum`.
RESTORERT_HD float normalizer(float kept, float sum) {
  const float least = 1e-12F * sum;
  return divide(1.0F, kept > least ? kept : least);
}

}  // namespace restorert::memory_read
