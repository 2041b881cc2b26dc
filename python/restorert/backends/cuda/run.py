"""Networks as CUDA graphs, one per shape."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from restorert.backends.torch.run import TorchRunner
from restorert.networks import RestorationNetwork


class CUDARunner(TorchRunner):
    """Runs a network in channels_last layout, with one CUDA graph per shape.

    The graphs of the last few shapes are kept; each holds the memory of its activations.
    """

    name = "cuda"
    GRAPHS = 2
    """Number of shapes whose graphs are kept."""

    def __init__(
        self, network: RestorationNetwork, precision: str = "fp16", *, deploy: bool = True
    ) -> None:
        super().__init__(network, precision, "cuda", channels_last=True, deploy=deploy)
        self._graphs: OrderedDict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = (
            OrderedDict()
        )

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape not in self._graphs:
            while len(self._graphs) >= self.GRAPHS:
                self._graphs.popitem(last=False)
            self._graphs[x.shape] = self._record(x)
        self._graphs.move_to_end(x.shape)
        graph, graph_input, graph_output = self._graphs[x.shape]
        graph_input.copy_(x)
        graph.replay()
        return graph_output.clone()

    def _record(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        graph_input = x.clone()
        call = super().__call__
        # Not recorded: cuDNN benchmarks its algorithms, and libraries allocate their workspaces.
        side = torch.cuda.Stream(self.torch_device)
        side.wait_stream(torch.cuda.current_stream(self.torch_device))
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            with torch.cuda.stream(side):
                for _ in range(3):
                    call(graph_input)
            torch.cuda.current_stream(self.torch_device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                graph_output = call(graph_input)
        return graph, graph_input, graph_output
