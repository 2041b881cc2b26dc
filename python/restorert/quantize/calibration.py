"""Ranges of activations, observed on pictures as the runner feeds them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from restorert.errors import InputError, RunnerUnavailableError
from restorert.export import INPUT_NAME, OUTPUT_NAME
from restorert.files import replace_atomically
from restorert.progress import Progress
from restorert.quantize.qdq import LEVELS, Layer

if TYPE_CHECKING:
    import onnx

METHODS = ("minmax", "percentile", "entropy", "mse")
PERCENTILE = 99.99


@dataclass(frozen=True)
class Patches:
    """What the network is given for calibration, and what it should make of it.

    Attributes:
        inputs: [1, C, H, W] float32, sizes in the network's multiples.
        references: the pictures without noise, where noise was added; else None.
        pictures: file name -> hex SHA-256 of each picture they are from.
        noise: standard deviation of the noise that was added, in levels of 255.
    """

    inputs: tuple[NDArray[np.float32], ...]
    references: tuple[NDArray[np.float32], ...] | None
    pictures: dict[str, str]
    noise: float = 0.0


class Histogram:
    """Counts of magnitudes, in bins from 0 up; the range doubles when it is exceeded.

    The range is a power of two and doubling merges pairs of bins, so that the counts do not depend
    on the order in which values came.
    """

    BINS = 4096

    def __init__(self) -> None:
        self.counts = np.zeros(self.BINS, np.int64)
        self.limit = 2.0**-24  # what float16 takes for zero
        self.largest = 0.0

    def add(self, magnitudes: NDArray[Any], largest: float | None = None) -> None:
        """Count magnitudes; ``largest`` is that of all values, where these are a sample of them."""
        top = max(float(magnitudes.max(initial=0.0)), largest or 0.0)
        if not np.isfinite(top):
            raise InputError("an activation is not finite: the network overflows on these pictures")
        self.largest = max(self.largest, top)
        while top >= self.limit:
            half = self.BINS // 2
            self.counts[:half] = self.counts.reshape(half, 2).sum(axis=1)
            self.counts[half:] = 0
            self.limit *= 2
        bins = (magnitudes * (self.BINS / self.limit)).astype(np.int64)
        self.counts += np.bincount(bins, minlength=self.BINS)

    def range(self, method: str, percentile: float = PERCENTILE) -> float:
        """The magnitude that int8's 127 stands for, in (0, largest]; 0 where all are 0.

        Args:
            method: of `METHODS`. minmax: the largest. percentile: of the magnitudes. mse: the least
                mean squared error of the quantised values. entropy: the least Kullback-Leibler
                divergence of their distribution (Migacz, "8-bit Inference with TensorRT", 2017).
            percentile: in (0, 100].

        Raises:
            InputError: unknown method, or a percentile out of range.
        """
        if method not in METHODS:
            raise InputError(f"unknown method {method!r}; expected {', '.join(METHODS)}")
        if not 0 < percentile <= 100:
            raise InputError(f"percentile is {percentile}; it must be in (0, 100]")
        if method == "minmax" or self.largest == 0.0 or not self.counts.any():
            return self.largest
        find = {"percentile": self._percentile, "mse": self._mse, "entropy": self._entropy}[method]
        found = find(percentile) if method == "percentile" else find()  # type: ignore[operator]
        return min(float(found), self.largest)

    def _percentile(self, percentile: float) -> float:
        total = self.counts.cumsum()
        index = int(np.searchsorted(total, total[-1] * (percentile / 100.0)))
        return float((index + 1) * self.limit / self.BINS)

    def _mse(self) -> float:
        centres = (np.arange(self.BINS) + 0.5) * (self.limit / self.BINS)
        candidates = self.largest * np.arange(20, 129) / 128.0
        filled = self.counts > 0
        values, weights = centres[filled], self.counts[filled]
        errors = []
        for candidate in candidates:
            scale = candidate / LEVELS
            restored = np.minimum(np.rint(values / scale), LEVELS) * scale
            errors.append(float((weights * (values - restored) ** 2).sum()))
        # Of equal errors the larger range, which clips less of what is still to come.
        return float(candidates[::-1][int(np.argmin(errors[::-1]))])

    def _entropy(self) -> float:
        levels = LEVELS + 1
        counts = self.counts.astype(np.float64)
        last = int(np.flatnonzero(self.counts)[-1]) + 1
        best, best_bins = np.inf, last
        for bins in range(levels, last + 1, self.BINS // 256):
            reference = counts[:bins].copy()
            reference[-1] += counts[bins:].sum()
            edges = (np.arange(levels) * bins) // levels
            filled = counts[:bins] > 0
            sums = np.add.reduceat(counts[:bins], edges)
            members = np.add.reduceat(filled.astype(np.float64), edges)
            widths = np.diff([*edges, bins])
            mean = np.repeat(sums / np.maximum(members, 1), widths)
            approximated = np.where(filled, mean, 0.0)
            divergence = _divergence(reference, approximated)
            if divergence <= best:
                best, best_bins = divergence, bins
        return best_bins * self.limit / self.BINS


def _divergence(p: NDArray[Any], q: NDArray[Any]) -> float:
    """KL(p || q) of counts, smoothed where q has none."""
    if not q.any():
        return float("inf")
    p, q = p / p.sum(), q / q.sum()
    at = p > 0
    return float((p[at] * np.log(p[at] / np.maximum(q[at], 1e-9))).sum())


def onnx_session(model: onnx.ModelProto) -> Any:
    """An ONNX Runtime session that computes a model as it is written.

    Raises:
        RunnerUnavailableError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise RunnerUnavailableError(
            "calibration needs onnxruntime: pip install restorert[int8]"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    # Integer kernels would round differently on every CPU.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with local functions replaced by their bodies; tensors outside keep their names."""
    import onnx.inliner

    copy: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    return copy


# About as many values of each tensor are enough for its histogram.
_SAMPLES = 2**22
_STEPS = (1, 3, 7, 13, 31, 61, 127)  # coprime with the powers of two that widths are


def observe(
    wide: onnx.ModelProto,
    tensors: Collection[str],
    inputs: Sequence[NDArray[np.float32]],
    *,
    progress: Progress | None = None,
    state: Path | None = None,
) -> dict[str, Histogram]:
    """Histograms of tensors of a float32 model.

    The model itself takes the extremes and every n-th value of each tensor, so that no more memory
    is needed than to run it. The extremes are of all values.

    Args:
        wide: see `restorert.quantize.qdq.widen`.
        tensors: their names.
        inputs: [1, C, H, W] each.
        progress: called with what is being done and the share done.
        state: a file to continue from, where one of the same work is there, and to write to every
            few patches; it is removed at the end.
    """
    import onnx
    from onnx import TensorProto, helper

    names = sorted(set(tensors))
    tapped = onnx.ModelProto.FromString(wide.SerializeToString())
    graph = tapped.graph
    pixels = sum(x.shape[2] * x.shape[3] for x in inputs)
    step = next((s for s in _STEPS if pixels * 64 / s <= _SAMPLES), _STEPS[-1])
    for name, values in (("all", [-1]), ("from", [0]), ("to", [2**62]), ("step", [step])):
        graph.initializer.append(
            helper.make_tensor(f"observe_{name}", TensorProto.INT64, [1], values)
        )
    outputs: list[str] = []
    for index, name in enumerate(names):
        most, least, flat, sample = (
            f"observed_{index}_{part}" for part in ("max", "min", "f", "s")
        )
        graph.node.append(helper.make_node("ReduceMax", [name], [most], keepdims=0))
        graph.node.append(helper.make_node("ReduceMin", [name], [least], keepdims=0))
        graph.node.append(helper.make_node("Reshape", [name, "observe_all"], [flat]))
        taken = ["observe_from", "observe_to", "observe_from", "observe_step"]
        graph.node.append(helper.make_node("Slice", [flat, *taken], [sample]))
        outputs += [most, least, sample]
    graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    session = onnx_session(tapped)
    histograms = {name: Histogram() for name in names}
    key = _work_key(wide, names, inputs)
    done = _read_state(state, key, histograms) if state is not None else 0
    for index, x in enumerate(inputs):
        if index < done:
            continue
        if progress:
            progress("calibrating", index / len(inputs))
        found = session.run(outputs, {INPUT_NAME: x})
        for position, name in enumerate(names):
            most, least, sample = found[3 * position : 3 * position + 3]
            largest = max(abs(float(most)), abs(float(least)))
            if np.isnan(largest):
                largest = np.inf
            histograms[name].add(np.abs(sample), largest)
        if state is not None and (index + 1) % 8 == 0:
            _write_state(state, key, histograms, index + 1)
    if state is not None:
        state.unlink(missing_ok=True)
    if progress:
        progress("calibrating", 1.0)
    return histograms


def _work_key(
    wide: onnx.ModelProto, names: Sequence[str], inputs: Sequence[NDArray[np.float32]]
) -> str:
    digest = hashlib.sha256(wide.SerializeToString(deterministic=True))
    digest.update("\0".join(names).encode())
    for x in inputs:
        digest.update(x.tobytes())
    return digest.hexdigest()


def _write_state(path: Path, key: str, histograms: dict[str, Histogram], done: int) -> None:
    try:
        with replace_atomically(path) as temporary, open(temporary, "wb") as stream:
            np.savez(
                stream,
                key=np.array(key),
                done=np.array(done),
                counts=np.stack([h.counts for h in histograms.values()]),
                limits=np.array([[h.limit, h.largest] for h in histograms.values()]),
            )
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _read_state(path: Path, key: str, histograms: dict[str, Histogram]) -> int:
    """Patches already observed; 0 where the file is of other work or damaged."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["key"]) != key:
                return 0
            counts, limits, done = saved["counts"], saved["limits"], int(saved["done"])
    except (OSError, ValueError, KeyError, EOFError):
        return 0
    except Exception:  # zipfile and zlib raise their own
        return 0
    if counts.shape != (len(histograms), Histogram.BINS) or limits.shape != (len(histograms), 2):
        return 0
    for histogram, own, (limit, largest) in zip(histograms.values(), counts, limits, strict=True):
        histogram.counts, histogram.limit, histogram.largest = own, float(limit), float(largest)
    return done


def count_macs(
    wide: onnx.ModelProto, layers: Iterable[Layer], x: NDArray[np.float32]
) -> tuple[dict[str, int], int]:
    """Multiply-accumulates of each layer for the input ``x``, and of all products of the model."""
    import onnx
    from onnx import helper

    tapped = onnx.ModelProto.FromString(wide.SerializeToString())
    products = [
        node
        for node in tapped.graph.node
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm") and not node.domain
    ]
    del tapped.graph.output[:]
    shapes: list[str] = []
    wanted = {n.input[0] for n in products} | {n.input[1] for n in products}
    for index, name in enumerate(sorted(wanted | {n.output[0] for n in products})):
        tapped.graph.node.append(helper.make_node("Shape", [name], [f"shape_{index}"]))
        tapped.graph.output.append(helper.make_empty_tensor_value_info(f"shape_{index}"))
        shapes.append(name)
    found = onnx_session(tapped).run(None, {INPUT_NAME: x})
    shape = {name: [int(s) for s in dims] for name, dims in zip(shapes, found, strict=True)}
    macs: dict[str, int] = {}
    for node in products:
        source, weight, result = (shape[n] for n in (*node.input[:2], node.output[0]))
        if node.op_type == "Conv":
            each = int(np.prod(result)) * int(np.prod(weight[1:]))
        elif node.op_type == "ConvTranspose":
            each = int(np.prod(source)) * int(np.prod(weight[1:]))
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            each = int(np.prod(result)) * source[-2 if transposed else -1]
        macs[node.output[0]] = each
    return {layer.name: macs[layer.output] for layer in layers}, sum(macs.values())


def run(session: Any, inputs: Iterable[NDArray[np.float32]], **more: Any) -> list[NDArray[Any]]:
    """The picture that a session makes of each input."""
    return [session.run([OUTPUT_NAME], {INPUT_NAME: x, **more})[0] for x in inputs]
