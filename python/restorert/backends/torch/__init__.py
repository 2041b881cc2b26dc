"""PyTorch runs the network itself: the backend that always works."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from restorert.backends.base import Backend, Runner
from restorert.engine import device
from restorert.engine.device import Device
from restorert.precision import PRECISIONS

if TYPE_CHECKING:
    from restorert.networks import RestorationNetwork


def cpu_precision(precision: str) -> str:
    """The precision this CPU computes in when asked for fp32, fp16 or bf16.

    Without bfloat16 arithmetic, half precision would be emulated and slower than float32.
    """
    if precision == "fp32":
        return precision
    return "bf16" if device.cpu_has_bf16() else "fp32"


class TorchBackend(Backend):
    """Runs networks eagerly, on the GPU if there is one, else on the CPU."""

    name = "torch"
    takes: ClassVar[Literal["onnx", "network"]] = "network"
    precisions = PRECISIONS

    def version(self) -> str:
        import torch

        return str(torch.__version__)

    def device(self) -> Device:
        return device.cuda() or device.cpu()

    def arithmetic(self, precision: str) -> str:
        return cpu_precision(precision) if device.cuda() is None else precision

    def run(self, network: RestorationNetwork, precision: str, *, deploy: bool = True) -> Runner:
        from restorert.backends.torch.run import TorchRunner

        return TorchRunner(network, precision, deploy=deploy)
