"""What ONNX Runtime computes of a model: its picture, the ranges of its tensors, its MACs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from restorert.errors import RunnerUnavailableError
from restorert.export import INPUT_NAME, OUTPUT_NAME
from restorert.files import writing
from restorert.progress import Progress, counted
from restorert.quantize.graph import Editor, attribute
from restorert.quantize.histogram import Histogram
from restorert.quantize.qdq import Layer

if TYPE_CHECKING:
    import onnx


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


def run(session: Any, inputs: Iterable[NDArray[np.float32]], **more: Any) -> list[NDArray[Any]]:
    """The picture that a session makes of each input."""
    return [session.run([OUTPUT_NAME], {INPUT_NAME: x, **more})[0] for x in inputs]


# About as many values of each tensor are enough for its histogram.
_SAMPLES = 2**22
_STEPS = (1, 3, 7, 13, 31, 61, 127)  # coprime with the powers of two that widths are
_SAVED_EVERY = 8  # patches


def observe(
    wide: onnx.ModelProto,
    tensors: Collection[str],
    inputs: Sequence[NDArray[np.float32]],
    *,
    progress: Progress | None = None,
    state: Path | None = None,
) -> dict[str, Histogram]:
    """Histograms of tensors of a float32 model.

    The model itself finds each tensor's extremes and picks every n-th of its values, so that no
    more memory is needed than to run it.

    Args:
        wide: see `restorert.quantize.graph.widen`.
        tensors: their names.
        inputs: [1, C, H, W] each.
        progress: called with what is being done and the share done.
        state: a file written every few patches and removed at the end. Where one of the same
            model and inputs is there already, the work continues from it.

    Raises:
        InputError: a tensor holds NaN or infinity, or ``state`` cannot be written.
    """
    names = sorted(set(tensors))
    edit = Editor(wide)
    pixels = sum(x.shape[2] * x.shape[3] for x in inputs)
    step = next((s for s in _STEPS if pixels * 64 / s <= _SAMPLES), _STEPS[-1])
    all_of_it, start, end, every = (
        edit.constant(f"observe_{part}", np.array([value], np.int64))
        for part, value in (("all", -1), ("from", 0), ("to", 2**62), ("step", step))
    )
    outputs: list[str] = []
    for index, name in enumerate(names):
        stem = f"observed_{index}"
        flat = edit.add("Reshape", [name, all_of_it], f"{stem}_flat")
        outputs += [
            edit.tap("ReduceMax", [name], f"{stem}_max", keepdims=0),
            edit.tap("ReduceMin", [name], f"{stem}_min", keepdims=0),
            edit.tap("Slice", [flat, start, end, start, every], f"{stem}_sample"),
        ]
    session = onnx_session(edit.model)
    histograms = {name: Histogram() for name in names}
    key = _work_key(wide, names, inputs)
    done = _read_state(state, key, histograms) if state is not None else 0
    for index, x in enumerate(counted(inputs, "calibrating", progress, done), done + 1):
        found = session.run(outputs, {INPUT_NAME: x})
        for position, histogram in enumerate(histograms.values()):
            most, least, sample = found[3 * position : 3 * position + 3]
            largest = max(abs(float(most)), abs(float(least)))
            histogram.add(np.abs(sample), np.inf if np.isnan(largest) else largest)
        if state is not None and index % _SAVED_EVERY == 0:
            _write_state(state, key, histograms, index)
    if state is not None:
        state.unlink(missing_ok=True)
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
    with writing(path) as temporary, open(temporary, "wb") as stream:
        np.savez(
            stream,
            key=np.array(key),
            done=np.array(done),
            counts=np.stack([h.counts for h in histograms.values()]),
            limits=np.array([[h.limit, h.largest] for h in histograms.values()]),
        )


def _read_state(path: Path, key: str, histograms: dict[str, Histogram]) -> int:
    """Inputs already observed; 0 where the file is of other work, or damaged."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["key"]) != key:
                return 0
            counts = saved["counts"].reshape(len(histograms), Histogram.BINS)
            limits = saved["limits"].reshape(len(histograms), 2)
            done = int(saved["done"])
    except Exception:  # NumPy's, zipfile's and zlib's own among them
        return 0
    for histogram, own, (limit, largest) in zip(histograms.values(), counts, limits, strict=True):
        histogram.counts, histogram.limit, histogram.largest = own, float(limit), float(largest)
    return done


def count_macs(
    wide: onnx.ModelProto, layers: Iterable[Layer], x: NDArray[np.float32]
) -> tuple[dict[str, int], int]:
    """Multiply-accumulates for the input ``x``: by layer's name, and all of the model's products.

    Args:
        wide: see `restorert.quantize.graph.widen`.
        layers: of the model.
        x: [N, C, H, W].
    """
    edit = Editor(wide)
    del edit.graph.output[:]
    products = [
        node
        for node in wide.graph.node
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm") and not node.domain
    ]
    names = sorted({name for n in products for name in (*n.input[:2], n.output[0])})
    for index, name in enumerate(names):
        edit.tap("Shape", [name], f"shape_{index}")
    found = onnx_session(edit.model).run(None, {INPUT_NAME: x})
    shape = {name: [int(size) for size in dims] for name, dims in zip(names, found, strict=True)}
    macs: dict[str, int] = {}
    for node in products:
        source, weight, result = (shape[n] for n in (*node.input[:2], node.output[0]))
        if node.op_type == "Conv":
            each = int(np.prod(result)) * int(np.prod(weight[1:]))
        elif node.op_type == "ConvTranspose":
            each = int(np.prod(source)) * int(np.prod(weight[1:]))
        else:
            each = int(np.prod(result)) * source[-2 if attribute(node, "transA", 0) else -1]
        macs[node.output[0]] = each
    return {layer.name: macs[layer.output] for layer in layers}, sum(macs.values())
