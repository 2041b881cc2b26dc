"""The network in PyTorch on a GPU, with the fused kernels and CUDA graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from restorert.backends.base import Runner
from restorert.backends.torch import TorchBackend
from restorert.engine import device
from restorert.errors import Cure, RunnerUnavailableError

if TYPE_CHECKING:
    from restorert.networks import RestorationNetwork


class CUDABackend(TorchBackend):
    """Runs networks on an NVIDIA GPU without launch overhead."""

    name = "cuda"

    def check_runnable(self) -> None:
        if device.cuda() is None:
            raise RunnerUnavailableError(
                "the cuda runner needs an NVIDIA GPU and torch sees none", Cure.OTHER_RUNNER
            )
        from restorert.ops.native_call import native

        if not native().build_info()["cuda"]:
            raise RunnerUnavailableError(
                "this build of restorert has no CUDA kernels; install nvcc, then reinstall: "
                "pip install . -C cmake.define.CUDA=ON"
            )

    def run(self, network: RestorationNetwork, precision: str, *, deploy: bool = True) -> Runner:
        from restorert.backends.cuda.run import CUDARunner

        self.check_runnable()
        return CUDARunner(network, precision, deploy=deploy)
