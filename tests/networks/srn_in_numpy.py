"""SRN-Deblur from first principles: TensorFlow 1's definitions as index arithmetic, in float64.

Nothing here is taken from the network's own file: pictures are [N, H, W, C], weights are in
TensorFlow's layouts, padding is counted, resizing interpolates by coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

Array = np.ndarray


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels (before, behind) that SAME adds; the odd one is behind."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def conv(x: Array, weights: Array, bias: Array, stride: int = 1) -> Array:
    """Convolution with SAME padding; weights are [kernel, kernel, in, out]."""
    kernel = weights.shape[0]
    rows, columns = (same_padding(size, kernel, stride) for size in x.shape[1:3])
    out_h, out_w = (math.ceil(size / stride) for size in x.shape[1:3])
    padded = np.pad(x, ((0, 0), rows, columns, (0, 0)))
    y = np.zeros((len(x), out_h, out_w, weights.shape[3])) + bias
    for i in range(kernel):
        for j in range(kernel):
            taken = padded[:, i : i + stride * out_h : stride, j : j + stride * out_w : stride]
            y += taken[:, :out_h, :out_w] @ weights[i, j]
    return y


def conv_transpose(x: Array, weights: Array, bias: Array, stride: int = 2) -> Array:
    """The transpose of a SAME convolution; weights are [kernel, kernel, out, in].

    Each input pixel is spread over the output pixels that the convolution would have read for it.
    """
    n, h, w, _ = x.shape
    kernel = weights.shape[0]
    (top, _), (left, _) = (same_padding(stride * size, kernel, stride) for size in (h, w))
    y = np.zeros((n, stride * h, stride * w, weights.shape[2])) + bias
    for row in range(h):
        for column in range(w):
            for i in range(kernel):
                for j in range(kernel):
                    r, c = stride * row + i - top, stride * column + j - left
                    if 0 <= r < stride * h and 0 <= c < stride * w:
                        y[:, r, c] += x[:, row, column] @ weights[i, j].T
    return y


def resize(x: Array, height: int, width: int) -> Array:
    """TensorFlow 1's bilinear resize_images, align_corners=False."""

    def lines(size: int, target: int) -> tuple[Array, Array, Array]:
        at = np.arange(target) * (size / target)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, size - 1), at - low

    top, bottom, down = lines(x.shape[1], height)
    left, right, across = lines(x.shape[2], width)
    across = across[:, None]
    upper = x[:, top][:, :, left] * (1 - across) + x[:, top][:, :, right] * across
    lower = x[:, bottom][:, :, left] * (1 - across) + x[:, bottom][:, :, right] * across
    return upper * (1 - down[:, None, None]) + lower * down[:, None, None]


def lstm_step(gates: Array, cell: Array) -> tuple[Array, Array]:
    """(hidden, cell): gates in the order input, new input, forget, output."""

    def sigmoid(v: Array) -> Array:
        return 1 / (1 + np.exp(-v))

    i, j, f, o = np.split(gates, 4, axis=3)
    cell = cell * sigmoid(f + 1.0) + sigmoid(i) * np.tanh(j)
    return np.tanh(cell) * sigmoid(o), cell


def srn(image: Array, state: Mapping[str, Array], recurrent: bool) -> list[Array]:
    """The pictures of the three scales of [N, H, W, C]; ``state`` has PyTorch's layouts."""

    def parameters(name: str) -> tuple[Array, Array]:
        # OIHW -> HWIO, IOHW -> HWOI
        weights = state[f"{name}.weight"].astype(np.float64).transpose(2, 3, 1, 0)
        return weights, state[f"{name}.bias"].astype(np.float64)

    def relu(x: Array) -> Array:
        return np.maximum(x, 0)

    def block(x: Array, name: str) -> Array:
        inner = relu(conv(x, *parameters(f"{name}.conv1")))
        return x + conv(inner, *parameters(f"{name}.conv2"))

    n, height, width, _ = image.shape
    channels = len(state["enc3_1.bias"])
    hidden = cell = np.zeros((n, height // 4, width // 4, channels))
    estimate, pictures = image, []
    for scale in (0.25, 0.5, 1.0):
        h, w = round(height * scale), round(width * scale)
        x = np.concatenate([resize(image, h, w), resize(estimate, h, w)], axis=3)
        skips = []
        for level in (1, 2, 3):
            x = relu(conv(x, *parameters(f"enc{level}_1"), stride=1 if level == 1 else 2))
            for number in (2, 3, 4):
                x = block(x, f"enc{level}_{number}")
            skips.append(x)
        if recurrent:
            hidden, cell = resize(hidden, h // 4, w // 4), resize(cell, h // 4, w // 4)
            both = np.concatenate([x, hidden], axis=3)
            hidden, cell = lstm_step(conv(both, *parameters("convLSTM.LSTM_conv")), cell)
            x = hidden
        for level in (3, 2, 1):
            if level < 3:
                x = relu(conv_transpose(x, *parameters(f"dec{level}_4"))) + skips[level - 1]
            for number in (3, 2, 1):
                x = block(x, f"dec{level}_{number}")
        estimate = conv(x, *parameters("dec1_0"))
        pictures.append(estimate)
    return pictures
