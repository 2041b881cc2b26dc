"""Quantisation-aware fine-tuning: a network trained as its INT8 file computes.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (CVPR 2018), with straight-through gradients; the steps of the activations are learned as
in Esser et al., "Learned Step Size Quantization" (ICLR 2020), those of the weights follow from the
weights, as in `restorert.quantize.qdq`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from restorert.errors import CalibrationError, Cure, InputError, reason_of
from restorert.networks import RestorationNetwork
from restorert.quantize import CalibrationCache, Patches, QuantizationReport, quantize_network
from restorert.quantize.calibration_file import LEARNED
from restorert.quantize.graph import constants
from restorert.quantize.qdq import find_layers
from restorert.training.recipes import QuantizedLayers
from restorert.weights import save_network, weights_hash

# Squared errors below it, of a quarter of a level, are not worth the training's attention.
_FLOOR = 2e-6
_SHIFT_WEIGHT = 20.0
# Of the logarithms of the scales, in units of the learning rate: a scale may change by half
# its value in a run that changes weights by hundredths of theirs.
_SCALES_RATE = 40.0


def read_quantized_layers(path: str | os.PathLike[str]) -> QuantizedLayers:
    """The layers of a file from `quantize_network`.

    Raises:
        InputError: it cannot be read, or nothing in it is quantised.
    """
    import onnx

    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's own among them
        raise InputError(f"{os.fspath(path)}: no ONNX file ({reason_of(error)})") from None
    made = {name: node for node in model.graph.node for name in node.output}
    values = constants(model)
    sources: dict[str, str] = {}
    scales: dict[str, float] = {}
    for node in model.graph.node:
        both = [made.get(name) for name in node.input[:2]]
        if any(each is None or each.op_type != "DequantizeLinear" for each in both) or not both:
            continue
        activation, weights = both
        assert activation is not None
        assert weights is not None
        if weights.input[0] not in values:
            continue
        layer = weights.output[0].removesuffix("_dequantized").removesuffix(".weight")
        source = activation.output[0].removesuffix("_dequantized")
        sources[layer] = source
        scales[source] = float(onnx.numpy_helper.to_array(values[activation.input[1]]))
    if not sources:
        raise InputError(f"{os.fspath(path)} has no layer in INT8", Cure.CALIBRATE)
    kept = [layer.name for layer in find_layers(model) if layer.reason_to_keep() is None]
    return QuantizedLayers(sources, scales, tuple(kept))


class FakeQuantized(nn.Module):
    """A network that computes as its INT8 file, and learns from itself in float32.

    Attributes:
        network: the student; its layers' inputs and weights are rounded as in the file.
        original: the network as it was, whose pictures are the targets beside the clean ones.
        steps: for each activation's scale the logarithm of its change, over `_SCALES_RATE`.
    """

    def __init__(self, network: RestorationNetwork, layers: QuantizedLayers) -> None:
        """Wrap a copy of a network.

        Args:
            network: with float32 weights; stays as it is.
            layers: of its INT8 file.

        Raises:
            CalibrationError: a layer that the network does not have in its published form.
        """
        super().__init__()
        self.network = copy.deepcopy(network)
        self.original = copy.deepcopy(network)
        self.layers = layers
        self.steps = nn.ParameterDict(
            {_key(name): nn.Parameter(torch.zeros(())) for name in layers.scales}
        )
        modules = dict(self.network.named_modules())
        for name, source in layers.sources.items():
            module = modules.get(name)
            if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                raise CalibrationError(
                    f"the INT8 file's layer {name!r} is not one module of {network.spec.name}: "
                    "calibrate the network as published (deploy=False); layers that are used more "
                    "than once cannot be fine-tuned"
                )
            axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0
            parametrize.register_parametrization(module, "weight", _RoundedWeights(axis))
            module.register_forward_pre_hook(self._rounding(source))

    def _scale(self, source: str) -> Tensor:
        return (self.steps[_key(source)] * _SCALES_RATE).exp() * self.layers.scales[source]

    def _rounding(self, source: str) -> Callable[..., Any]:
        def rounded(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return fake_quantize(inputs[0], self._scale(source)), *inputs[1:]

        return rounded

    def forward(self, image: Tensor) -> Tensor:
        """[N, C, H, W] in [0, 1] to the restored pictures, as `RestorationNetwork.forward`."""
        restored: Tensor = self.network(image)
        return restored

    def loss(self, degraded: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and the restored pictures.

        For each picture the PSNR that is lost against the original network (as the logarithm of the
        errors' ratio, so that every condition counts alike; a gain counts as none), plus the error
        to its picture and the shift of brightness, both in units of its own error.
        """
        with torch.no_grad():
            target = self.original(degraded)
        restored = self(degraded)

        def error(a: Tensor, b: Tensor) -> Tensor:
            return (a - b).float().square().mean(dim=(1, 2, 3))

        floor = error(target, clean) + _FLOOR
        lost = 0.5 * torch.log((error(restored, clean) + _FLOOR) / floor).clamp(min=0)
        shift = (restored - target).float().mean(dim=(2, 3)).square().mean(dim=1)
        loss = lost + error(restored, target) / floor + _SHIFT_WEIGHT * shift / floor
        return loss.mean(), restored

    def trained(self) -> RestorationNetwork:
        """A copy of the student with plain weights in float32."""
        made = copy.deepcopy(self.original)
        state = self.network.state_dict()
        rounded = ".parametrizations.weight.original"
        made.load_state_dict({k.replace(rounded, ".weight"): v for k, v in state.items()})
        # No longer what was read from a file.
        made.checkpoint = made.seeded = None
        return made.eval().requires_grad_(False)

    def scales(self) -> dict[str, float]:
        """The learned scales, which float16 holds exactly."""
        return {name: float(next_half(self._scale(name).detach())) for name in self.layers.scales}


def _key(name: str) -> str:
    return name.replace(".", "_")  # what a ParameterDict takes


def next_half(scale: Tensor) -> Tensor:
    """The smallest float16 number that is >= ``scale``, as float32: `qdq.representable`."""
    half = scale.half()
    above = torch.nextafter(half, torch.full_like(half, torch.inf))
    found = torch.where(half.double() < scale.double(), above, half)
    return found.clamp(min=torch.finfo(torch.float16).smallest_normal * 2.0**-10).float()


def fake_quantize(x: Tensor, scale: Tensor) -> Tensor:
    """QuantizeLinear and DequantizeLinear with zero point 0; gradients pass where nothing clips.

    Args:
        x: any shape, float32.
        scale: one value; the gradient is that of Learned Step Size Quantization.
    """
    step = scale + (next_half(scale.detach()) - scale).detach()
    clipped = (x / step).clamp(-128, 127)
    return (clipped + (clipped.round() - clipped).detach()) * step


class _RoundedWeights(nn.Module):
    """int8 weights with one scale an output channel: `qdq.quantize_weights` of float16 weights."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, weight: Tensor) -> Tensor:
        """Rounded values, with the gradient of the weights themselves."""
        half = weight.detach().half().double()
        others = [i for i in range(weight.ndim) if i != self.axis]
        largest = half.abs().amax(others, keepdim=True)
        step = next_half(largest / 127).double()
        rounded = ((half / step).round().clamp(-127, 127) * step).float()
        return weight + (rounded - weight).detach()


def write_int8(
    module: FakeQuantized,
    folder: Path,
    patches: Patches | None,
    *,
    limit: float | None = None,
) -> tuple[list[Path], QuantizationReport]:
    """Write a fine-tuned network: its weights, its INT8 file and the calibration beside it.

    Args:
        module: trained.
        folder: that gets ``NAME.int8.safetensors``, ``NAME.int8.onnx`` and ``NAME.int8.onnx.json``.
        patches: to judge it on, against the original network.
        limit: see `quantize_network`.

    Raises:
        QualityError: it costs more than the limit; the weights are written all the same.
    """
    network = module.trained()
    stem = f"{network.spec.name}.int8"
    weights, path = folder / f"{stem}.safetensors", folder / f"{stem}.onnx"
    save_network(network.half(), weights)
    network = network.float()
    calibration = CalibrationCache(
        network=network.spec.name,
        weights_sha256=weights_hash(network),
        method=LEARNED,
        patches=0,
        pictures={},
        scales=module.scales(),
        conditions=list(network.spec.conditions),
        tuned_from=weights_hash(module.original),
        keep=dict.fromkeys(module.layers.kept, "not in INT8 before the fine-tuning"),
    )
    report = quantize_network(
        network,
        path,
        patches,
        calibration=calibration,
        reference=module.original.eval(),
        limit=limit,
        save_calibration=True,
    )
    return [weights, path, Path(f"{path}.json")], report
