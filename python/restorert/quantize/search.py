"""The layers that INT8 harms most, and how few of them must stay in float16."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from restorert.networks import RestorationNetwork
from restorert.progress import Progress, counted
from restorert.quantize.calibration_file import CalibrationCache
from restorert.quantize.measure import Quality, compare, reference_pictures
from restorert.quantize.patches import Patches
from restorert.quantize.qdq import Layer, Quantizer
from restorert.quantize.session import onnx_session, run

if TYPE_CHECKING:
    import onnx

Sensitivity = dict[str, float]
"""Layer -> the harm where that layer alone is in INT8, largest first: the drop, in units of what a
limit of 1 dB allows, in the condition where that is largest."""

SWITCHES = "quantized"
"""The input of a `switchable` model that says which layers run in INT8."""


class Search:
    """Measures choices of layers to run in INT8, on patches.

    Args:
        wide: see `restorert.quantize.graph.widen`.
        layers: of the model, to choose from.
        calibration: scales and corrections for the layers.
        network: what ``wide`` was exported from.
        patches: to measure on.
    """

    def __init__(
        self,
        wide: onnx.ModelProto,
        layers: Sequence[Layer],
        calibration: CalibrationCache,
        network: RestorationNetwork,
        patches: Patches,
    ) -> None:
        self.names = [layer.name for layer in layers]
        self.network, self.patches = network, patches
        edit = Quantizer(wide, calibration.scales, calibration.corrections)
        self._session = onnx_session(switchable(edit, layers))
        self._expected = reference_pictures(network, patches.inputs)

    def qualities(self, quantized: Collection[str]) -> dict[str, Quality]:
        """By condition, where the layers of these names are in INT8."""
        switches = np.array([name in quantized for name in self.names])
        found = run(self._session, self.patches.inputs, **{SWITCHES: switches})
        return compare(found, self.network, self.patches, self._expected)

    def excess(self, quantized: Collection[str], limit: float) -> float:
        """See `Quality.excess`, of the condition where it is largest."""
        return max(quality.excess(limit) for quality in self.qualities(quantized).values())

    def rank(self, progress: Progress | None = None) -> Sensitivity:
        """Each layer's harm alone, largest first."""
        harm = {
            name: max(q.drop / q.allowed(1.0) for q in self.qualities({name}).values())
            for name in counted(self.names, "ranking layers", progress)
        }
        return dict(sorted(harm.items(), key=lambda item: -item[1]))

    def fewest(
        self, ranking: Sensitivity, most: float, progress: Progress | None = None
    ) -> list[str]:
        """The fewest of the most harmful layers without which the limit ``most``, in dB, holds."""
        names = list(ranking)
        low, high = -1, len(names)  # the limit does not hold at low, and does at high
        steps = len(names).bit_length() + 1
        step = 0
        while high - low > 1:
            # Most networks need nothing kept, or little.
            middle = 0 if low < 0 else (low + high) // 2
            if progress:
                progress("choosing layers", step / steps)
            step += 1
            if self.excess(names[middle:], most) <= 1:
                high = middle
            else:
                low = middle
        if progress:
            progress("choosing layers", 1.0)
        return names[:high]


def switchable(edit: Quantizer, layers: Sequence[Layer]) -> onnx.ModelProto:
    """The model with the input `SWITCHES`: bool, one for each layer."""
    from onnx import TensorProto, helper

    switches = helper.make_tensor_value_info(SWITCHES, TensorProto.BOOL, [len(layers)])
    edit.graph.input.append(switches)
    by_output = {layer.output: (index, layer) for index, layer in enumerate(layers)}
    for node in edit.rebuild():
        index, layer = by_output.get(node.output[0], (0, None))
        if layer is not None:
            stem = f"switched_{index}"
            at = edit.constant(f"{stem}_index", np.array(index, np.int64))
            on = edit.add("Gather", [SWITCHES, at], f"{stem}_on")
            for i, quantized in enumerate(edit.inputs(layer)):
                if i == len(node.input):
                    zeros = np.zeros(layer.out_channels, np.float32)
                    node.input.append(edit.constant(f"{stem}_no_bias", zeros))
                if quantized != node.input[i]:
                    inputs = [on, quantized, node.input[i]]
                    node.input[i] = edit.add("Where", inputs, f"{stem}_{i}")
        edit.graph.node.append(node)
    return edit.model
