"""Run a network of your own on pictures, and export it.

python examples/own_network.py in.png out.png own.onnx
"""

import sys

import torch
from torch import Tensor, nn

import restorert as rr
from restorert.networks import NetworkConfig, RestorationNetwork


class OwnNetwork(RestorationNetwork):
    """Sharpens: adds half of what a blur takes away. In its place stands what you trained."""

    # What restorert must know of it. `config` has the channels and, for a network that halves the
    # picture, its `size_multiple`; pictures are padded to that by reflection and cropped again.
    spec = rr.NetworkSpec(
        name="own",
        family="own",
        task="sharpening",
        paper="none",
        weights_license="yours",
        config=NetworkConfig(in_channels=3),
    )

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(3, 3, 5, padding=2, padding_mode="replicate", groups=3, bias=False)
        nn.init.constant_(self.blur.weight, 1 / 25)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] to the restored picture, which need not be clamped."""
        return x + 0.5 * (x - self.blur(x))


source, target, onnx = sys.argv[1:]
# Trained weights: network.load_state_dict(torch.load("own.pth", weights_only=True))
network = OwnNetwork().eval().requires_grad_(False)
# In memory, in PyTorch. Engine files are for the networks of rr.list_networks().
engine = rr.build_engine(network, runner="cuda" if torch.cuda.is_available() else "torch")
rr.restore_image(source, target, engine)
# For trtexec, ONNX Runtime and OpenVINO: any batch, height and width.
rr.export_onnx(network, onnx)
print(engine.describe())
