"""Runs a network in PyTorch, cast and laid out for its device."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from restorert.backends.torch import cpu_precision
from restorert.engine import device as devices
from restorert.engine.profile import ShapeProfile
from restorert.errors import RunnerUnavailableError, reason_of
from restorert.export.onnx_export import cast_network
from restorert.networks import RestorationNetwork
from restorert.precision import check_precision


class TorchRunner:
    """Runs a network in the requested precision, if the device supports it."""

    name = "torch"

    def __init__(
        self,
        network: RestorationNetwork,
        precision: str = "fp32",
        device: str | torch.device | None = None,
        *,
        channels_last: bool | None = None,
        compile_mode: str | None = None,
        deploy: bool = True,
    ) -> None:
        """Cast a copy of ``network``, move it to the device and set its memory format.

        Args:
            network: not changed.
            precision: fp32, fp16 or bf16; for a CPU see `cpu_precision`.
            device: default: the GPU if there is one.
            channels_last: None uses it for half precision, whose convolutions are faster with it.
            compile_mode: of torch.compile; None runs eagerly.
            deploy: run the network's deploy form.

        Raises:
            InputError: unknown precision, or a weight overflows it.
            RunnerUnavailableError: torch has no such device.
        """
        check_precision(precision)
        self.torch_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.precision = precision
        self.device = devices.cuda() or devices.cpu()
        if self.torch_device.type == "cpu":
            self.device = devices.cpu()
            self.precision = cpu_precision(precision)
        self.version = str(torch.__version__)
        self.profile: ShapeProfile | None = None
        if channels_last is None:
            channels_last = self.precision != "fp32"
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        if deploy:
            network = network.deploy(self.name)
        cast = cast_network(network, precision)  # raises if a weight overflows it
        if self.precision != precision:
            cast = cast_network(network, self.precision)
        try:
            module = copy.deepcopy(cast).to(self.torch_device).eval()
        except (AssertionError, RuntimeError) as error:
            raise RunnerUnavailableError(
                f"torch cannot use the device {self.torch_device} ({reason_of(error)})"
            ) from None
        module = module.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.network: Callable[[Tensor], Tensor] = module
        if compile_mode is not None:
            self.network = torch.compile(module, mode=compile_mode)

    def __call__(self, x: Tensor) -> Tensor:
        # Not inference_mode: its tensors cannot be changed in place, and results must allow that.
        with torch.no_grad():
            return self.network(x.contiguous(memory_format=self.memory_format)).contiguous()
