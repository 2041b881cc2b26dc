"""SRN-Deblur: Scale-recurrent Network for Deep Image Deblurring.

Tao, Gao, Shen, Wang, Jia. CVPR 2018. One encoder-decoder of residual blocks (section 3.2) runs at a
quarter, half and the full size with the same weights (section 3.1); each scale is given the blurred
picture and the last scale's result, the recurrent variant also the state of a convolutional LSTM.

The modules here follow TensorFlow 1, which the authors' code uses: SAME padding, which for a stride
of 2 is one pixel before and two after, and a bilinear resize that aligns the corners' coordinates
and not the pixels' centres. Parameter names are those of the authors' variables without
the scope ``g_net``: ``g_net/enc2_1/weights`` is ``enc2_1.weight``, ``g_net/dec3_3/conv1/biases`` is
``dec3_3.conv1.bias``, ``g_net/convLSTM/LSTM_conv/weights`` is ``convLSTM.LSTM_conv.weight``.

What the authors' test does with a picture, and what is done here:

- It feeds a placeholder of 720x1280 (or another fixed size), grown from the picture by repeating
  its last row and column. Here a picture grows only to the next multiples of 16; pixels near the
  lower and right border of a picture that needs padding therefore differ a little.
- A picture larger than the placeholder is shrunk (bicubic), deblurred and enlarged again. Here
  every picture is deblurred at its own size.
- A portrait picture is transposed first and back afterwards. Here it is fed as it is; transpose it
  to have the authors' result, since the learned kernels are not symmetric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorert import ops
from restorert.errors import InputError
from restorert.networks.module import NetworkFamily, RestorationNetwork
from restorert.spec import MOTION_BLUR, NetworkConfig, NetworkSpec, by_name


@dataclass(frozen=True)
class SRNConfig(NetworkConfig):
    """Sizes of an SRN.

    Attributes:
        in_channels: channels of the picture, in and out.
        width: channels of the first level; the second and third have 2 and 4 times as many.
        per_channel: the network sees one channel at a time, as the authors' models trained on grey
            pictures do: a picture's channels become pictures of a batch. The weights do not say how
            many a picture has; reading them takes three.
        recurrent: with a convolutional LSTM between encoder and decoder, whose state goes from
            scale to scale.
    """

    width: int = 32
    per_channel: bool = False
    recurrent: bool = False

    def __post_init__(self) -> None:
        if self.width < 1 or self.in_channels < 1:
            raise InputError(
                f"SRN needs width >= 1 and in_channels >= 1, not width={self.width}, "
                f"in_channels={self.in_channels}"
            )

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this: two halvings at a quarter of the size."""
        return 16


def enlarge(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 2H, 2W], as TensorFlow 1's ``resize_images`` interpolates.

    Output pixel i lies at i / 2 of the input: even pixels are copies, odd ones the mean of their
    neighbours, and the last repeats. That is a resize with aligned corners of the picture with its
    last row and column repeated, without the last row and column of the result.
    """
    height, width = x.shape[-2:]
    grown = torch.cat([x, x[..., -1:, :]], dim=-2)
    grown = torch.cat([grown, grown[..., -1:]], dim=-1)
    size = (2 * height + 1, 2 * width + 1)
    resized = F.interpolate(grown, size=size, mode="bilinear", align_corners=True)
    return resized[..., :-1, :-1]


class ConvReLU(nn.Conv2d):
    """5x5 convolution and ReLU."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class DownConvReLU(nn.Conv2d):
    """5x5 convolution of stride 2 and ReLU, padded as TensorFlow's SAME pads even sizes."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 5, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        # Half the size needs three more pixels; SAME puts the odd one after the picture.
        return F.relu(super().forward(F.pad(x, (1, 2, 1, 2))))


class UpConvReLU(nn.ConvTranspose2d):
    """4x4 transposed convolution of stride 2 and ReLU; SAME cuts one pixel on each side."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.relu(super().forward(x, output_size))


class ResBlock(nn.Module):
    """Two 5x5 convolutions around a ReLU, added to the input (section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 5, padding=2)
        self.conv2 = nn.Conv2d(channels, channels, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(x))) + x


class ConvLSTM(nn.Module):
    """A convolutional LSTM of 3x3; the cell's state is float32 at every precision."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.LSTM_conv = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """(hidden, cell) of this step, from the state of the last scale, None at the first.

        The last state is enlarged to the size of ``x``. The hidden state is also the output.
        """
        if state is None:
            hidden = torch.zeros_like(x)
            cell = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        else:
            hidden, cell = enlarge(state[0]), enlarge(state[1])
        gates = self.LSTM_conv(torch.cat([x, hidden], dim=1))
        # The released weights were trained with 1 added to the forget gate in the graph.
        return ops.conv_lstm_gates(gates, cell, forget_bias=1.0)


class SRN(RestorationNetwork):
    """An SRN of any size. See `SRNConfig`."""

    def __init__(self, config: SRNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SRNConfig()
        channels = 1 if config.per_channel else config.in_channels
        one, two, four = (config.width * factor for factor in (1, 2, 4))

        # Names count levels, and blocks from the outside in: dec1_0 makes the picture.
        self.enc1_1 = ConvReLU(2 * channels, one)
        self.enc1_2, self.enc1_3, self.enc1_4 = (ResBlock(one) for _ in range(3))
        self.enc2_1 = DownConvReLU(one, two)
        self.enc2_2, self.enc2_3, self.enc2_4 = (ResBlock(two) for _ in range(3))
        self.enc3_1 = DownConvReLU(two, four)
        self.enc3_2, self.enc3_3, self.enc3_4 = (ResBlock(four) for _ in range(3))
        self.convLSTM = ConvLSTM(four) if config.recurrent else None
        self.dec3_3, self.dec3_2, self.dec3_1 = (ResBlock(four) for _ in range(3))
        self.dec2_4 = UpConvReLU(four, two)
        self.dec2_3, self.dec2_2, self.dec2_1 = (ResBlock(two) for _ in range(3))
        self.dec1_4 = UpConvReLU(two, one)
        self.dec1_3, self.dec1_2, self.dec1_1 = (ResBlock(one) for _ in range(3))
        self.dec1_0 = nn.Conv2d(one, channels, 5, padding=2)

    def stages(self, image: Tensor) -> list[Tensor]:
        """The pictures of three scales: [N, C, H/4, W/4], [N, C, H/2, W/2] and [N, C, H, W].

        All is computed in the weights' dtype: SRN adds nothing to the picture that it is given.
        """
        x = image.to(self.enc1_1.weight.dtype)
        if self.config.per_channel:
            x = x.flatten(0, 1).unsqueeze(1)
        state: tuple[Tensor, Tensor] | None = None
        pictures: list[Tensor] = []
        for step in (4, 2, 1):
            # Every second pixel, or fourth, is what TensorFlow 1's bilinear resize takes.
            blurred = x[..., ::step, ::step]
            # No gradient goes through the picture from scale to scale, only through the state.
            estimate = enlarge(pictures[-1].detach()) if pictures else blurred
            restored, state = self._scale(torch.cat([blurred, estimate], dim=1), state)
            pictures.append(restored)
        if self.config.per_channel:
            channels = image.shape[1]
            pictures = [picture.reshape(-1, channels, *picture.shape[2:]) for picture in pictures]
        return [picture.to(image.dtype) for picture in pictures]

    def _scale(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """One pass of the encoder-decoder: the picture, and the LSTM's state if there is one."""
        first = self.enc1_4(self.enc1_3(self.enc1_2(self.enc1_1(x))))
        second = self.enc2_4(self.enc2_3(self.enc2_2(self.enc2_1(first))))
        third = self.enc3_4(self.enc3_3(self.enc3_2(self.enc3_1(second))))
        if self.convLSTM is not None:
            state = self.convLSTM(third, state)
            third = state[0]
        third = self.dec3_1(self.dec3_2(self.dec3_3(third)))
        second = self.dec2_4(third) + second
        second = self.dec2_1(self.dec2_2(self.dec2_3(second)))
        first = self.dec1_4(second) + first
        first = self.dec1_1(self.dec1_2(self.dec1_3(first)))
        return self.dec1_0(first), state


def _read_config(state_dict: Mapping[str, Tensor]) -> SRNConfig | None:
    """Width, channels and recurrence, read from the tensors; None if it is not an SRN."""
    shape = state_dict["enc1_1.weight"].shape
    if shape[1] % 2:
        return None
    channels = shape[1] // 2
    return SRNConfig(
        in_channels=3 if channels == 1 else channels,
        width=shape[0],
        per_channel=channels == 1,
        recurrent="convLSTM.LSTM_conv.weight" in state_dict,
    )


# The authors' repository (jiangsutx/SRN-Deblur) is MIT-licensed and points to the weights. The dB
# are the paper's.
_variant = partial(
    NetworkSpec,
    family="srn",
    task="motion deblurring",
    conditions=MOTION_BLUR,
    paper="SRN-Deblur (Tao et al., CVPR 2018)",
    weights_license="MIT",
    padding_mode="edge",
    training_patch=256,
    rounding="truncate",
)

FAMILY = NetworkFamily(
    name="srn",
    variants=by_name(
        _variant("srn-color", config=SRNConfig(), paper_psnr=("GoPro", 30.26)),
        _variant("srn-gray", config=SRNConfig(per_channel=True)),
        _variant(
            "srn-lstm",
            config=SRNConfig(per_channel=True, recurrent=True),
            fp32_parts=("the cell state of the LSTM and its gates",),
        ),
    ),
    build=SRN,
    read_config=_read_config,
    marks=("enc1_1.weight", "enc3_4.conv2.weight", "dec2_4.weight", "dec1_0.weight"),
    small={"width": 4},
)
