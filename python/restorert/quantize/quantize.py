"""Network -> INT8 ONNX file."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from restorert.errors import CalibrationError, InputError, QualityError
from restorert.export import export_onnx
from restorert.export.onnx_export import cast_network
from restorert.export.onnx_file import set_metadata, write_model
from restorert.files import check_output
from restorert.networks import RestorationNetwork
from restorert.precision import DROP_LIMITS, check_limit
from restorert.progress import Progress
from restorert.quantize.bias_correction import correct_biases
from restorert.quantize.calibration import (
    PERCENTILE,
    Histogram,
    Patches,
    count_macs,
    inlined,
    observe,
    onnx_session,
    run,
)
from restorert.quantize.calibration_file import LARGEST, CalibrationCache
from restorert.quantize.measure import TYPICAL_PSNR, Quality, check_quality, measure_quality
from restorert.quantize.qdq import LEVELS, Layer, find_layers, insert_qdq, representable, widen
from restorert.quantize.simulation import Simulation
from restorert.weights import weights_hash

if TYPE_CHECKING:
    import onnx

Sensitivity = dict[str, float]
"""Layer -> error of the residual where that layer alone is in INT8, largest first."""

# Passes over the float32 model cost most of the time, and these need few pictures.
_CORRECTION_PATCHES = 8
_QUALITY_PATCHES = 8
_SENSITIVITY_PATCHES = 4


@dataclass(frozen=True)
class QuantizationReport:
    """What a quantised file is.

    Attributes:
        path: the file.
        calibration: what it was made with; reusable.
        int8_layers: names of the layers in INT8.
        kept: the other layers with constant weights -> why.
        int8_share: of all multiply-accumulates, matrix products of activations included.
        quality: measured on the file as it is written; None where there were no patches.
        sensitivity: where it was asked for.
    """

    path: Path
    calibration: CalibrationCache
    int8_layers: tuple[str, ...]
    kept: dict[str, str]
    int8_share: float
    quality: Quality | None = None
    sensitivity: Sensitivity = field(default_factory=dict)


class _Model:
    """The exported network: as it is written, and in float32 for measuring."""

    def __init__(
        self,
        network: RestorationNetwork,
        runner: str,
        deploy: bool,
        progress: Progress | None,
    ) -> None:
        import onnx

        if progress:
            progress("exporting to ONNX", 0.0)
        with tempfile.TemporaryDirectory(prefix="restorert-") as folder:
            path = Path(folder) / "network.onnx"
            export_onnx(network, path, precision="fp16", deploy=deploy, runner=runner)
            self.half: onnx.ModelProto = onnx.load(path)
        if progress:
            progress("exporting to ONNX", 1.0)
        self.wide = inlined(widen(self.half))
        self.layers = find_layers(self.half)
        self.default_kept = {
            layer.name: reason for layer in self.layers if (reason := layer.reason_to_keep())
        }

    def bias_of(self, layer: Layer) -> NDArray[np.float64]:
        """Of a layer that has none: zeros."""
        from onnx import numpy_helper

        for tensor in self.half.graph.initializer:
            if tensor.name == layer.bias:
                return numpy_helper.to_array(tensor).astype(np.float64)
        return np.zeros(layer.out_channels)

    def chosen(self, kept: Collection[str]) -> list[Layer]:
        """The layers that are not ``kept``."""
        return [layer for layer in self.layers if layer.name not in kept]


def calibrate(
    network: RestorationNetwork,
    patches: Patches,
    *,
    method: str = "mse",
    percentile: float = PERCENTILE,
    bias_correction: bool = True,
    runner: str = "tensorrt",
    deploy: bool = True,
    progress: Progress | None = None,
    state: str | os.PathLike[str] | None = None,
) -> CalibrationCache:
    """Find the INT8 scales of a network's activations on pictures.

    Deterministic: the same network and pictures give the same file.

    Args:
        network: from `create_network` or `load_network`; stays as it is.
        patches: from `restorert.read_patches`.
        method: of the ranges: minmax, percentile, entropy or mse, see `Histogram.range`.
        percentile: of that method, in (0, 100].
        bias_correction: find what to add to the biases, see `correct_biases`.
        runner, deploy: as in `export_onnx`; `quantize_network` must be given the same.
        progress: called with what is being done and the share done.
        state: a file to continue an interrupted calibration from.

    Raises:
        InputError: no patches, an unknown method, or activations that are not finite.
        RunnerUnavailableError: onnxruntime, onnx or onnxscript is missing.
    """
    Histogram().range(method, percentile)
    model = _Model(network, runner, deploy, progress)
    return _calibrate(model, network, patches, method, percentile, bias_correction, progress, state)


def _calibrate(
    model: _Model,
    network: RestorationNetwork,
    patches: Patches,
    method: str,
    percentile: float,
    bias_correction: bool,
    progress: Progress | None,
    state: str | os.PathLike[str] | None,
) -> CalibrationCache:
    if not patches.inputs:
        raise InputError("no patches to calibrate with")
    chosen = model.chosen(model.default_kept)
    tensors = {layer.source for layer in chosen}
    histograms = observe(
        model.wide,
        tensors,
        patches.inputs,
        progress=progress,
        state=Path(state) if state is not None else None,
    )
    scales = {
        name: float(representable(np.array(histogram.range(method, percentile) / LEVELS)))
        for name, histogram in histograms.items()
    }
    corrections = {}
    if bias_correction:
        some = spread(patches.inputs, _CORRECTION_PATCHES)
        corrections = correct_biases(model.wide, chosen, scales, some, progress)
    return CalibrationCache(
        network=network.spec.name,
        weights_sha256=weights_hash(network),
        method=method,
        patches=len(patches.inputs),
        pictures=patches.pictures,
        noise=patches.noise,
        scales=scales,
        corrections=corrections,
    )


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most ``most`` of the items, evenly spread over them."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def quantize_network(
    network: RestorationNetwork,
    path: str | os.PathLike[str],
    patches: Patches | None = None,
    *,
    calibration: CalibrationCache | None = None,
    method: str = "mse",
    percentile: float = PERCENTILE,
    bias_correction: bool = True,
    keep_fp16: Collection[str] | Literal["auto"] = (),
    limit: float | None = None,
    gate: bool = True,
    sensitivity: bool = False,
    runner: str = "tensorrt",
    deploy: bool = True,
    residuals: bool = False,
    progress: Progress | None = None,
    state: str | os.PathLike[str] | None = None,
) -> QuantizationReport:
    """Write a network as one INT8 ONNX file for every runner.

    Input and output are float32 [N, C, H, W], of any batch, height and width. Convolutions and
    matrix products with constant weights are in INT8 (symmetric, zero point 0, a scale an output
    channel), but for those that read or write the picture; the rest is in float16.

    Args:
        network: from `create_network` or `load_network`; stays as it is.
        path: replaced only when the new file is complete and good enough.
        patches: from `restorert.read_patches`: to calibrate on, and to measure the quality on.
        calibration: of an earlier run, instead of calibrating; the quality is measured where
            there are patches, too.
        method, percentile, bias_correction, runner, deploy, progress, state: see `calibrate`.
        keep_fp16: names of layers to leave in float16, or "auto" for the fewest with which the
            drop is within the limit.
        limit: most dB of PSNR that INT8 may cost; None is `DROP_LIMITS`'s.
        gate: refuse to write a file that costs more.
        sensitivity: rank the layers by the harm that each does alone.
        residuals: let residual sums read int8 tensors, too: fewer bytes, less precise.

    Raises:
        CalibrationError: ``calibration`` is of another network or other weights.
        InputError: neither patches nor a calibration, an unknown layer, an unwritable path.
        QualityError: the drop is over the limit; nothing was written, and the error holds the
            calibration.
        RunnerUnavailableError: onnxruntime, onnx or onnxscript is missing.
    """
    target = Path(path)
    check_output(target, network.checkpoint.path if network.checkpoint else None)
    if patches is None and calibration is None:
        raise InputError("INT8 needs pictures to calibrate on, or an earlier calibration")
    if patches is None and (keep_fp16 == "auto" or sensitivity):
        raise InputError("ranking layers by their harm needs pictures")
    Histogram().range(method, percentile)
    if limit is not None:
        check_limit(limit)
    if calibration is not None:
        _check_owner(calibration, network)
    model = _Model(network, runner, deploy, progress)
    named = () if keep_fp16 == "auto" else keep_fp16
    _check_layers((*named, *(calibration.keep if calibration else ())), model, network)
    if calibration is None:
        assert patches is not None
        calibration = _calibrate(
            model, network, patches, method, percentile, bias_correction, progress, state
        )
    else:
        _check_calibration(calibration, model)
    kept = {**model.default_kept, **calibration.keep}
    for name in named:
        kept.setdefault(name, "asked for")
    ranking: Sensitivity = {}
    if patches is not None and (sensitivity or keep_fp16 == "auto"):
        search = _Search(model, network, calibration, patches, kept)
        ranking = search.rank(progress)
        if keep_fp16 == "auto":
            harmful = search.fewest(ranking, limit, progress)
            kept.update(dict.fromkeys(harmful, "harms most"))
            if harmful and calibration.corrections:
                some = spread(patches.inputs, _CORRECTION_PATCHES)
                chosen = model.chosen(kept)
                corrections = correct_biases(model.wide, chosen, calibration.scales, some, progress)
                calibration = replace(calibration, corrections=corrections)
    calibration = replace(
        calibration, keep={k: v for k, v in kept.items() if k not in model.default_kept}
    )
    chosen = model.chosen(kept)
    quantized = insert_qdq(
        model.half, chosen, calibration.scales, calibration.corrections, residuals=residuals
    )
    example = np.zeros(network.spec.shape_for(64, 64), np.float32)
    macs, total = count_macs(model.wide, model.layers, example)
    share = sum(macs[layer.name] for layer in chosen) / max(total, 1)
    set_metadata(
        quantized,
        {
            "precision": "int8",
            "calibration": calibration.method,
            "int8_layers": len(chosen),
            "int8_share": round(share, 4),
        },
    )
    quality = None
    if patches is not None:
        if progress:
            progress("measuring the quality", 0.0)
        try:
            quality = _quality(quantized, network, patches)
            if progress:
                progress("measuring the quality", 1.0)
            if gate:
                check_quality(quality, "int8", limit)
        except QualityError as error:
            error.calibration = calibration
            raise
    write_model(quantized, target)
    return QuantizationReport(
        path=target,
        calibration=calibration,
        int8_layers=tuple(layer.name for layer in chosen),
        kept=kept,
        int8_share=share,
        quality=quality,
        sensitivity=ranking,
    )


_CURE = "calibrate again with: restorert calibrate"


def _check_owner(calibration: CalibrationCache, network: RestorationNetwork) -> None:
    """What can be told before the network is exported."""
    if calibration.network != network.spec.name:
        raise CalibrationError(
            f"the calibration is of {calibration.network}, not of {network.spec.name}; {_CURE}"
        )
    if calibration.weights_sha256 != weights_hash(network):
        raise CalibrationError(f"the calibration is of other weights; {_CURE}")


def _check_layers(asked: Collection[str], model: _Model, network: RestorationNetwork) -> None:
    """Refuse names of no layer."""
    names = [layer.name for layer in model.layers]
    for name in asked:
        if name not in names:
            near = difflib.get_close_matches(name, names, 3)
            known = ", ".join(near or names[:3])
            more = "" if near else f", ...: {len(names)} layers"
            raise InputError(f"{network.spec.name} has no layer {name!r}; it has {known}{more}")


def _check_calibration(calibration: CalibrationCache, model: _Model) -> None:
    read = {layer.source for layer in model.layers}
    for name in calibration.scales:
        if name not in read:
            raise CalibrationError(
                f"the calibration has a scale of {name!r}, which no layer reads; {_CURE}"
            )
    for layer in model.chosen({**model.default_kept, **calibration.keep}):
        if layer.source not in calibration.scales:
            raise CalibrationError(
                f"the calibration has no scale of {layer.source!r}, "
                f"which {layer.name} reads; {_CURE}"
            )
    layers = {layer.name: layer for layer in model.layers}
    for name, channels in calibration.corrections.items():
        size = layers[name].out_channels if name in layers else None
        if size != channels.size:
            raise CalibrationError(
                f"the calibration corrects {channels.size} channels of {name!r}, "
                f"which has {size or 'none'}; {_CURE}"
            )
        bias = model.bias_of(layers[name])
        if not (np.abs(bias + channels) <= LARGEST).all():
            raise CalibrationError(
                f"the calibration corrects {name!r} to a bias that float16 cannot hold; {_CURE}"
            )


def reference_pictures(
    network: RestorationNetwork, inputs: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """What the network itself makes of each input, in float32."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            device = next((p.device for p in network.parameters()), torch.device("cpu"))
            return [network(torch.from_numpy(x).to(device)).cpu().numpy() for x in inputs]
    finally:
        network.train(training)


def _compare(
    found: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    network: RestorationNetwork,
    inputs: Sequence[NDArray[Any]],
    references: Sequence[NDArray[Any]] | None,
) -> Quality:
    published = network.spec.paper_psnr
    return measure_quality(
        found,
        expected,
        inputs,
        references,
        typical_psnr=published[1] if published else TYPICAL_PSNR,
    )


def quality_of(network: RestorationNetwork, precision: str, patches: Patches) -> Quality:
    """What a half precision costs: the network itself in it, in PyTorch, on some of the patches.

    Args:
        network: stays as it is.
        precision: fp32, fp16 or bf16.
        patches: from `restorert.read_patches`.

    Raises:
        InputError: another precision, or a weight that overflows it.
        QualityError: a picture holds NaN or infinity.
    """
    inputs = spread(patches.inputs, _QUALITY_PATCHES)
    references = spread(patches.references, _QUALITY_PATCHES) if patches.references else None
    found = reference_pictures(cast_network(network, precision), inputs)
    return _compare(found, reference_pictures(network, inputs), network, inputs, references)


def _quality(quantized: onnx.ModelProto, network: RestorationNetwork, patches: Patches) -> Quality:
    inputs = spread(patches.inputs, _QUALITY_PATCHES)
    references = spread(patches.references, _QUALITY_PATCHES) if patches.references else None
    found = run(onnx_session(quantized), inputs)
    return _compare(found, reference_pictures(network, inputs), network, inputs, references)


class _Search:
    """Which layers harm, and how few of them must stay in float16."""

    def __init__(
        self,
        model: _Model,
        network: RestorationNetwork,
        calibration: CalibrationCache,
        patches: Patches,
        kept: Collection[str],
    ) -> None:
        self.network = network
        self.inputs = spread(patches.inputs, _SENSITIVITY_PATCHES)
        self.references = (
            spread(patches.references, _SENSITIVITY_PATCHES) if patches.references else None
        )
        self.layers = model.chosen(kept)
        self.simulation = Simulation(
            model.wide, self.layers, calibration.scales, calibration.corrections
        )
        self.expected = reference_pictures(network, self.inputs)

    def quality(self, quantized: Collection[str]) -> Quality:
        """Where the layers of these names are in INT8."""
        found = self.simulation.run(self.inputs, quantized)
        return _compare(found, self.expected, self.network, self.inputs, self.references)

    def rank(self, progress: Progress | None) -> Sensitivity:
        """Each layer's harm alone, largest first."""
        harm: Sensitivity = {}
        for index, layer in enumerate(self.layers):
            if progress:
                progress("ranking layers", index / len(self.layers))
            harm[layer.name] = self.quality({layer.name}).residual_error
        if progress:
            progress("ranking layers", 1.0)
        return dict(sorted(harm.items(), key=lambda item: -item[1]))

    def fewest(
        self, ranking: Sensitivity, limit: float | None, progress: Progress | None
    ) -> list[str]:
        """The shortest beginning of the ranking without which the drop is within the limit."""
        most = DROP_LIMITS["int8"] if limit is None else limit
        names = list(ranking)
        low, high = -1, len(names)  # the drop is over the limit at low, and within it at high
        steps = len(names).bit_length() + 1
        step = 0
        while high - low > 1:
            # Most networks need nothing kept, or little.
            middle = 0 if low < 0 else (low + high) // 2
            if progress:
                progress("choosing layers", step / steps)
            step += 1
            if self.quality(names[middle:]).drop <= most:
                high = middle
            else:
                low = middle
        if progress:
            progress("choosing layers", 1.0)
        return names[:high]
