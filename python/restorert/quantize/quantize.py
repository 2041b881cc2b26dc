"""Network -> INT8 ONNX file."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from restorert.errors import CalibrationError, Cure, InputError, QualityError
from restorert.export import export_onnx
from restorert.export.onnx_file import set_metadata, write_model
from restorert.files import check_output
from restorert.networks import RestorationNetwork
from restorert.precision import DROP_LIMITS, check_limit
from restorert.progress import Progress, stage
from restorert.quantize.bias_correction import correct_biases
from restorert.quantize.calibration_file import CalibrationCache, figures
from restorert.quantize.graph import constants, widen
from restorert.quantize.histogram import PERCENTILE, check_method
from restorert.quantize.measure import Quality, check_quality, compare, quality_table
from restorert.quantize.patches import Patches
from restorert.quantize.qdq import (
    LARGEST,
    LEVELS,
    Layer,
    bias_of,
    find_layers,
    insert_qdq,
    representable,
)
from restorert.quantize.search import Search, Sensitivity
from restorert.quantize.session import count_macs, observe, onnx_session, run
from restorert.weights import weights_hash

if TYPE_CHECKING:
    import onnx

# A pass over the float32 model takes most of the time, and these need few patches.
_CORRECTION_PATCHES = 8
_SENSITIVITY_PATCHES = 4


@dataclass(frozen=True)
class QuantizationReport:
    """What a quantised file is; as text, what a user wants to know of it.

    Attributes:
        path: the file.
        calibration: what it was made with; reusable.
        int8_layers: names of the layers in INT8.
        kept: the other layers with constant weights -> why.
        int8_share: of all multiply-accumulates, matrix products of activations included.
        quality: by condition, measured on the file as it is written; empty without patches.
        sensitivity: where it was asked for.
    """

    path: Path
    calibration: CalibrationCache
    int8_layers: tuple[str, ...]
    kept: dict[str, str]
    int8_share: float
    quality: dict[str, Quality] = field(default_factory=dict)
    sensitivity: Sensitivity = field(default_factory=dict)

    def __str__(self) -> str:
        count = len(self.int8_layers)
        lines = [
            f"{self.calibration.network}: {self.int8_share:.1%} of the multiply-accumulates in "
            f"INT8, {count} of {count + len(self.kept)} layers"
        ]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.kept.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            lines.append(f"not in INT8, {reason}: {len(names)} ({shown})")
        if self.quality:
            lines += quality_table(self.quality)
        return "\n".join(lines)


class _Model:
    """An exported network: as it is written, and in float32 for measuring."""

    def __init__(
        self, network: RestorationNetwork, runner: str, deploy: bool, progress: Progress | None
    ) -> None:
        import onnx

        self.network, self.progress = network, progress
        with (
            stage("exporting to ONNX", progress),
            tempfile.TemporaryDirectory(prefix="restorert-") as folder,
        ):
            path = Path(folder) / "network.onnx"
            export_onnx(network, path, precision="fp16", deploy=deploy, runner=runner)
            self.half: onnx.ModelProto = onnx.load(path)
        self.wide = widen(self.half)
        self.layers = find_layers(self.half)
        self.default_kept = {
            layer.name: reason for layer in self.layers if (reason := layer.reason_to_keep())
        }

    def chosen(self, kept: Collection[str]) -> list[Layer]:
        """The layers that are not ``kept``."""
        return [layer for layer in self.layers if layer.name not in kept]

    def calibrate(
        self,
        patches: Patches,
        method: str,
        percentile: float,
        bias_correction: bool,
        state: str | os.PathLike[str] | None,
    ) -> CalibrationCache:
        """See the function of this name."""
        if not patches.inputs:
            raise InputError("no patches to calibrate with")
        histograms = observe(
            self.wide,
            {layer.source for layer in self.chosen(self.default_kept)},
            patches.inputs,
            progress=self.progress,
            state=Path(state) if state is not None else None,
        )
        calibration = CalibrationCache(
            network=self.network.spec.name,
            weights_sha256=weights_hash(self.network),
            method=method,
            patches=len(patches.inputs),
            pictures=patches.pictures,
            conditions=list(patches.by_condition()),
            scales={
                name: float(representable(np.array(histogram.range(method, percentile) / LEVELS)))
                for name, histogram in histograms.items()
            },
        )
        if not bias_correction:
            return calibration
        return self.corrected(calibration, self.default_kept, patches)

    def corrected(
        self, calibration: CalibrationCache, kept: Collection[str], patches: Patches
    ) -> CalibrationCache:
        """With corrections that fit this choice of layers."""
        some = patches.spread(_CORRECTION_PATCHES).inputs
        layers = self.chosen(kept)
        found = correct_biases(self.wide, layers, calibration.scales, some, self.progress)
        return replace(calibration, corrections=found)

    def share(self, layers: Collection[Layer]) -> float:
        """Of all multiply-accumulates, that of ``layers``."""
        example = np.zeros(self.network.spec.shape_for(64, 64), np.float32)
        macs, total = count_macs(self.wide, layers, example)
        return sum(macs.values()) / max(total, 1)

    def check_names(self, names: Collection[str]) -> None:
        """Refuse names that are not of a layer."""
        own = [layer.name for layer in self.layers]
        for name in names:
            if name not in own:
                near = difflib.get_close_matches(name, own, 3)
                known = ", ".join(near or own[:3])
                more = "" if near else f", ...: {len(own)} layers"
                network = self.network.spec.name
                raise InputError(f"{network} has no layer {name!r}; it has {known}{more}")

    def check(self, calibration: CalibrationCache) -> None:
        """Refuse scales and corrections that do not fit."""

        def refuse(what: str) -> CalibrationError:
            return CalibrationError(f"the calibration {what}", Cure.CALIBRATE)

        read = {layer.source for layer in self.layers}
        for name in calibration.scales:
            if name not in read:
                raise refuse(f"has a scale of {name!r}, which no layer reads")
        for layer in self.chosen({**self.default_kept, **calibration.keep}):
            if layer.source not in calibration.scales:
                raise refuse(f"has no scale of {layer.source!r}, which {layer.name} reads")
        layers = {layer.name: layer for layer in self.layers}
        tensors = constants(self.half)
        for name, channels in calibration.corrections.items():
            size = layers[name].out_channels if name in layers else None
            if size != channels.size:
                counted = f"{channels.size} channels of {name!r}, which has {size or 'none'}"
                raise refuse(f"corrects {counted}")
            if not (np.abs(bias_of(layers[name], tensors) + channels) <= LARGEST).all():
                raise refuse(f"corrects {name!r} to a bias that float16 cannot hold")


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

    Deterministic: the same network and pictures give the same calibration.

    Args:
        network: from `create_network` or `load_network`; stays as it is.
        patches: from `restorert.read_patches`.
        method: minmax, percentile, entropy or mse, see `Histogram.range`.
        percentile: for that method, in (0, 100].
        bias_correction: find what to add to the biases, see `correct_biases`.
        runner, deploy: as in `export_onnx`; `quantize_network` must be given the same.
        progress: called with what is being done and the share done.
        state: a file in which an interrupted calibration continues, see `observe`.

    Raises:
        InputError: no patches, an unknown method, or activations that are not finite.
        RunnerUnavailableError: onnxruntime, onnx or onnxscript is missing.
    """
    check_method(method, percentile)
    model = _Model(network, runner, deploy, progress)
    return model.calibrate(patches, method, percentile, bias_correction, state)


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
    reference: RestorationNetwork | None = None,
    progress: Progress | None = None,
    state: str | os.PathLike[str] | None = None,
    save_calibration: bool = False,
) -> QuantizationReport:
    """Write a network as one INT8 ONNX file for every runner.

    Input and output are float32 [N, C, H, W] of any batch, height and width. Convolutions and
    matrix products with constant weights are in INT8 (symmetric, zero point 0, one scale an output
    channel), except those that read or write the picture; the rest is in float16.

    Args:
        network: from `create_network` or `load_network`; stays as it is.
        path: replaced only when the new file is complete and good enough.
        patches: from `restorert.read_patches`: to calibrate on and, those kept out of that, to
            measure the quality on, in each condition.
        calibration: of an earlier run, instead of calibrating; with ``patches`` the quality is
            measured, too.
        method, percentile, bias_correction, runner, deploy, progress, state: see `calibrate`.
        keep_fp16: names of layers to leave in float16, or "auto" for the fewest that keep the drop
            within the limit.
        limit: most dB of PSNR that INT8 may cost in any condition, see `check_quality`; None is
            that of `DROP_LIMITS`.
        gate: refuse to write a file that costs more.
        sensitivity: rank the layers by the harm that each does alone.
        residuals: let residual sums read int8 tensors, too: fewer bytes, less precise.
        reference: the float32 network that INT8 is compared with; None is ``network``, another is
            the one that ``network`` was fine-tuned from for INT8.
        save_calibration: write the calibration to ``path``.json, or to ``path``.refused.json where
            the gate refuses it; ``state`` is ``path``.partial by default.

    Raises:
        CalibrationError: ``calibration`` is of another network or other weights.
        InputError: neither patches nor a calibration, an unknown layer, an unwritable path.
        QualityError: the drop is over the limit; ``path`` is as it was, and the error holds the
            calibration.
        RunnerUnavailableError: onnxruntime, onnx or onnxscript is missing.
    """
    target = Path(path)
    check_output(target, network.checkpoint.path if network.checkpoint else None)
    if save_calibration:
        check_output(f"{target}.json")
        state = state or f"{target}.partial"
    if patches is None and calibration is None:
        raise InputError("INT8 needs pictures to calibrate on, or an earlier calibration")
    if patches is None and (keep_fp16 == "auto" or sensitivity):
        raise InputError("ranking layers by their harm needs pictures")
    check_method(method, percentile)
    most = check_limit(DROP_LIMITS["int8"] if limit is None else limit)
    if calibration is not None:
        _check_owner(calibration, network)
    model = _Model(network, runner, deploy, progress)
    named = () if keep_fp16 == "auto" else keep_fp16
    model.check_names((*named, *(calibration.keep if calibration else ())))
    is_new = calibration is None
    if calibration is not None:
        model.check(calibration)
    else:
        assert patches is not None
        calibration = model.calibrate(patches, method, percentile, bias_correction, state)
    kept = {**model.default_kept, **calibration.keep}
    for name in named:
        kept.setdefault(name, "asked for")
    ranking: Sensitivity = {}
    if patches is not None and (sensitivity or keep_fp16 == "auto"):
        search = Search(
            model.wide,
            model.chosen(kept),
            calibration,
            reference or network,
            patches.judged.spread(_SENSITIVITY_PATCHES),
        )
        ranking = search.rank(progress)
        if keep_fp16 == "auto":
            harmful = search.fewest(ranking, most, progress)
            kept.update(dict.fromkeys(harmful, "harms most"))
            if harmful and calibration.corrections:
                calibration = model.corrected(calibration, kept, patches)
    calibration = replace(
        calibration, keep={k: v for k, v in kept.items() if k not in model.default_kept}
    )
    chosen = model.chosen(kept)
    quantized = insert_qdq(
        model.half, chosen, calibration.scales, calibration.corrections, residuals=residuals
    )
    share = model.share(chosen)
    set_metadata(
        quantized,
        {
            "precision": "int8",
            "calibration": calibration.method,
            "int8_layers": len(chosen),
            "int8_share": round(share, 4),
        },
    )
    quality: dict[str, Quality] = {}
    if patches is not None:
        try:
            with stage("measuring the quality", progress):
                judged = patches.judged
                found = run(onnx_session(quantized), judged.inputs)
                quality = compare(found, reference or network, judged)
            calibration = replace(calibration, quality=figures(quality))
            if gate:
                check_quality(quality, "int8", most)
        except QualityError as error:
            error.calibration = calibration
            if is_new and save_calibration:
                error.saved = Path(f"{target}.refused.json")
                calibration.write(error.saved)
            raise
    write_model(quantized, target)
    if save_calibration:
        calibration.write(f"{target}.json")
    return QuantizationReport(
        path=target,
        calibration=calibration,
        int8_layers=tuple(layer.name for layer in chosen),
        kept=kept,
        int8_share=share,
        quality=quality,
        sensitivity=ranking,
    )


def _check_owner(calibration: CalibrationCache, network: RestorationNetwork) -> None:
    """What can be told before the network is exported."""
    if calibration.network != network.spec.name:
        raise CalibrationError(
            f"the calibration is of {calibration.network}, not of {network.spec.name}",
            Cure.CALIBRATE,
        )
    if calibration.weights_sha256 != weights_hash(network):
        raise CalibrationError("the calibration is of other weights", Cure.CALIBRATE)
