// The gates of a convolutional LSTM, as in SRN-Deblur (Tao et al., "Scale-recurrent Network for
// Deep Image Deblurring", CVPR 2018, section 3.2; util/BasicConvLSTMCell.py of the authors' code):
//
//   i, j, f, o = split(gates, 4, axis = channels)
//   next_cell = cell * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
//   hidden    = tanh(next_cell) * sigmoid(o)
//
// gates is [N, 4C, H, W], the convolution of the input and the last hidden state; cell, next_cell
// and hidden are [N, C, H, W]. Arithmetic is fp32 whatever the dtypes, each result is rounded once,
// and `hidden` is computed from next_cell before that is rounded. The cell is a sum that runs over
// the steps: it is kept in fp32 even where the gates are not.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dispatch.h"
#include "core/exponential.h"
#include "core/macros.h"
#include "core/picture.h"
#include "core/status.h"

namespace restorert::conv_lstm_gates {

inline constexpr const char* kName = "conv_lstm_gates";
inline constexpr float kDefaultForgetBias = 1.0F;

struct Arguments {
  TensorView gates;      // [N, 4C, H, W]; fp32, fp16 or bf16; contiguous or channels_last
  TensorView cell;       // [N, C, H, W]; fp32 or the dtype of gates; the layout of gates
  TensorView hidden;     // [N, C, H, W]; the dtype and layout of gates; memory of its own
  TensorView next_cell;  // like cell; the same memory as cell or memory of its own
  double forget_bias = kDefaultForgetBias;  // any finite number
};

// Arguments that have been checked. The picture is the cell's, its dtype that of gates and hidden.
struct Problem : Picture {
  DType cell_dtype = DType::kFloat32;  // of cell and next_cell: dtype or fp32
  const void* gates = nullptr;
  const void* cell = nullptr;
  void* hidden = nullptr;
  void* next_cell = nullptr;
  float forget_bias = kDefaultForgetBias;

  // Both layouts are rows of four gates: an image in NCHW, a pixel in NHWC. Row r has i, j, f and o
  // one after the other at gates + 4 * r * columns, `columns` elements each, and the other tensors'
  // elements at r * columns.
  std::int64_t rows() const { return layout == Layout::kNCHW ? images : images * pixels; }
  std::int64_t columns() const { return layout == Layout::kNCHW ? channels * pixels : channels; }
};

// half_instance_norm.h says what each of these promises.
Status check(const Arguments& arguments, Problem* problem);
void run_cpu(const Problem& problem);
constexpr std::size_t cuda_workspace_size(const Problem& /*problem*/) {
  return 0;
}
Status run_cuda(const Problem& problem, void* workspace, std::size_t workspace_size, void* stream);

// ---- scalar mathematics shared by host and device ----

// Tanh and the sigmoid that it is multiplied with share one division.
RESTORERT_HD float tanh_times_sigmoid(float a, float b) {
  const Fraction tanh = tanh_fraction(a);
  return divide(tanh.numerator, tanh.denominator * sigmoid_denominator(b));
}

RESTORERT_HD float next_cell_of(float i, float j, float f, float cell, float forget_bias) {
  return divide(cell, sigmoid_denominator(f + forget_bias)) + tanh_times_sigmoid(j, i);
}

RESTORERT_HD float hidden_of(float o, float next_cell) {
  return tanh_times_sigmoid(next_cell, o);
}

}  // namespace restorert::conv_lstm_gates
