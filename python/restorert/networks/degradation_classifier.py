"""DCPT's degradation classifier: which degradation a picture suffers from.

Hu, Jin, Yao, Lu. "Universal Image Restoration Pre-training via Degradation Classification", ICLR
2025. A restoration network is the encoder: features of its decoder levels, from full size down, go
through a small residual network that ends in one score per class (section 3.2). Parameter names are
the authors' own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from restorert.errors import CheckpointError, InputError
from restorert.networks.module import RestorationNetwork
from restorert.networks.nafnet import LayerNorm2d
from restorert.networks.registry import misfit

# The authors number classes by the order of the data sets in their training options, which are not
# published. These are the orders of the test options (five) and of the paper's table 16 (ten).
CLASSES: Mapping[int, tuple[str, ...]] = {
    5: ("rain", "noise", "haze", "motion blur", "low light"),
    10: (
        "noise",
        "motion blur",
        "defocus blur",
        "JPEG artefacts",
        "haze",
        "snow",
        "rain",
        "mosaic",
        "low light",
        "missing pixels",
    ),
}


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder that classifies.

    Attributes:
        feature_channels: of the features that it reads, from full size down.
        blocks: residual blocks at each size.
        classes: number of degradations.
        with_image: whether it also reads the picture, at half size, which features then start at.
    """

    feature_channels: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 2
    classes: int = 5
    with_image: bool = False

    def __post_init__(self) -> None:
        if not self.feature_channels or min(*self.feature_channels, self.blocks, self.classes) < 1:
            raise InputError(
                "a degradation classifier needs features of >= 1 channels, blocks >= 1 and "
                f"classes >= 1, not feature_channels={self.feature_channels}, "
                f"blocks={self.blocks}, classes={self.classes}"
            )

    @property
    def smallest(self) -> int:
        """The smallest height and width: one halving for each feature."""
        return int(2 ** (len(self.feature_channels) + self.with_image))


class NormalisedConv(nn.Conv2d):
    """A convolution without bias, followed by layer norm."""

    def __init__(self, in_channels: int, channels: int, kernel: int) -> None:
        super().__init__(in_channels, channels, kernel, padding=kernel // 2, bias=False)
        self.norm = LayerNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class Bottleneck(nn.Module):
    """ResNet's block of 1x1, 3x3 and 1x1 convolutions, here wider inside than outside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = NormalisedConv(channels, channels * 2, 1)
        self.conv2 = NormalisedConv(channels * 2, channels * 2, 3)
        self.conv3 = NormalisedConv(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return torch.relu(self.conv3(inner) + x)


class DegradationDecoder(nn.Module):
    """The authors' PromptIR_NoImg_DC, or PromptIR_DC with the picture. See `DecoderConfig`."""

    def __init__(self, config: DecoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DecoderConfig()
        channels = config.feature_channels

        def stage(width: int) -> nn.Sequential:
            return nn.Sequential(*(Bottleneck(width) for _ in range(config.blocks)))

        if config.with_image:
            embedding = nn.Conv2d(3, channels[0], 7, stride=2, padding=3)
            self.conv_embed = nn.Sequential(embedding, LayerNorm2d(channels[0]))
        self.bottleneck_layers = nn.ModuleList(stage(width) for width in channels)
        self.downsample_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, below, 1, bias=False), nn.MaxPool2d(2), nn.ReLU())
            for width, below in zip(channels, (*channels[1:], channels[-1]), strict=True)
        )
        self.last_stage = stage(channels[-1])
        self.mixing_weights = nn.Parameter(torch.ones(len(channels)))
        self.fc = nn.Linear(channels[-1], config.classes)

    def forward(self, image: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Score the classes.

        Args:
            image: [N, 3, H, W], the picture that the features were computed from.
            features: as many as ``config.feature_channels``, from full size (half size, if the
                picture is read) down: [N, C, h, w], or tokens [N, H * W, C]. Features larger than
                their level are subsampled: every second (fourth, ...) pixel.

        Returns:
            [N, classes], logits.

        Raises:
            InputError: features of other sizes than the decoder was made for, or a picture smaller
                than ``config.smallest``.
        """
        smallest = self.config.smallest
        if min(image.shape[2:]) < smallest:
            raise InputError(
                f"this classifier needs pictures of at least {smallest}x{smallest}, "
                f"not {image.shape[3]}x{image.shape[2]}"
            )
        expected = self.config.feature_channels
        pictures = [as_picture(feature, image) for feature in features]
        found = tuple(feature.shape[1] for feature in pictures)
        if found != expected:
            raise InputError(
                f"the classifier reads features of {', '.join(map(str, expected))} channels, "
                f"not {', '.join(map(str, found))}"
            )
        x = self.conv_embed(image) if self.config.with_image else torch.zeros_like(pictures[0])
        shares = torch.softmax(self.mixing_weights, dim=0)
        for level, feature in enumerate(pictures):
            height, width = x.shape[2:]
            step = feature.shape[2] // height
            reduced = feature[:, :, :: max(step, 1), :: max(step, 1)][:, :, :height, :width]
            if reduced.shape[2:] != x.shape[2:]:
                raise InputError(
                    f"the classifier reads its feature {level + 1} at {width}x{height}, not at "
                    f"{feature.shape[3]}x{feature.shape[2]}"
                )
            x = self.bottleneck_layers[level](x + shares[level] * reduced)
            x = self.downsample_layers[level](x)
        return self.fc(self.last_stage(x).mean(dim=(2, 3)))


def as_picture(feature: Tensor, image: Tensor) -> Tensor:
    """A feature [N, C, h, w] as it is, tokens [N, H * W, C] as [N, C, H, W] of the image's size."""
    if feature.ndim == 4:
        return feature
    n, _, channels = feature.shape
    return feature.transpose(1, 2).reshape(n, channels, *image.shape[2:])


class _AllSeenError(Exception):
    """Ends a forward pass when the remaining layers are not needed."""


def read_features(encoder: RestorationNetwork, image: Tensor) -> list[Tensor]:
    """The outputs of the encoder's `feature_modules`, from full size down; what follows is skipped.

    Returns:
        [N, C, h, w], or tokens [N, H * W, C], each.
    """
    names = encoder.feature_modules()
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        feature = output[-1] if isinstance(output, tuple) else output
        if encoder.features_channels_last:
            feature = feature.permute(0, 3, 1, 2)
        found.append(feature)
        if len(found) == len(names):
            raise _AllSeenError

    handles = [encoder.get_submodule(name).register_forward_hook(keep) for name in names]
    try:
        encoder(image)
    except _AllSeenError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found[::-1]


class DegradationClassifier(nn.Module):
    """An encoder and the decoder that classifies its features.

    Attributes:
        encoder: any network with `RestorationNetwork.feature_modules`.
        decoder: made for that encoder's features.
        classes: the name of each score.
    """

    def __init__(
        self,
        encoder: RestorationNetwork,
        decoder: DegradationDecoder,
        classes: Sequence[str] | None = None,
    ) -> None:
        """Join the two.

        Args:
            encoder, decoder: in float32, on one device.
            classes: names; None for `CLASSES`, or for numbers where it has none of that count.

        Raises:
            InputError: the decoder does not fit the encoder's features, or names are missing or
                repeated.
        """
        super().__init__()
        count = decoder.config.classes
        if classes is None:
            classes = CLASSES.get(count) or [f"class {number}" for number in range(count)]
        if len(classes) != count:
            raise InputError(
                f"{len(classes)} names for a classifier of {count} degradations: "
                f"{', '.join(classes)}"
            )
        if len(set(classes)) != count:
            raise InputError(f"two degradations have one name: {', '.join(classes)}")
        self.encoder = encoder
        self.decoder = decoder
        self.classes = tuple(classes)
        self._check_pair()

    def forward(self, image: Tensor) -> Tensor:
        """Classify [N, 3, H, W] in [0, 1]: logits [N, classes].

        H and W are multiples of ``encoder.spec.size_multiple``, >= ``decoder.config.smallest``.
        """
        return self.decoder(image, read_features(self.encoder, image))

    def _check_pair(self) -> None:
        """Run the pair on the meta device, which computes shapes only."""
        spec = self.encoder.spec
        if not self.encoder.feature_modules():
            raise InputError(f"{spec.name} has no features to classify")
        if spec.in_channels != 3:
            raise InputError(f"{spec.name} takes {spec.in_channels} channels; classifiers take 3")
        shadow = copy.copy(self)
        # copy.copy shares the table of submodules; the shadow needs its own.
        shadow._modules = dict(self._modules)
        shadow.encoder = copy.deepcopy(self.encoder).to("meta")
        shadow.decoder = copy.deepcopy(self.decoder).to("meta")
        smallest = self.decoder.config.smallest
        try:
            shadow(torch.empty(spec.shape_for(smallest, smallest), device="meta"))
        except InputError as error:
            raise InputError(f"the classifier was not trained with {spec.name}: {error}") from None


def decoder_from_state_dict(state_dict: Mapping[str, Tensor]) -> DegradationDecoder | None:
    """The decoder that these tensors belong to, in eval mode; None if they belong to no decoder.

    Raises:
        CheckpointError: it is one, but tensors are missing, extra or of other shapes.
    """
    config = _config(state_dict)
    if config is None:
        return None
    with torch.device("meta"):
        wrong = misfit(DegradationDecoder(config), state_dict)
    if wrong:
        raise CheckpointError(f"classifier tensors that do not fit together: {wrong}")
    with torch.random.fork_rng(devices=[]):
        decoder = DegradationDecoder(config)
    decoder.load_state_dict(dict(state_dict), strict=True)
    decoder.eval().requires_grad_(False)
    return decoder


def _config(state_dict: Mapping[str, Tensor]) -> DecoderConfig | None:
    weights, scores = state_dict.get("mixing_weights"), state_dict.get("fc.weight")
    if weights is None or weights.ndim != 1 or scores is None or scores.ndim != 2:
        return None
    first = [state_dict.get(f"downsample_layers.{level}.0.weight") for level in range(len(weights))]
    channels = [weight.shape[1] for weight in first if weight is not None and weight.ndim == 4]
    prefix, suffix = "last_stage.", ".conv1.weight"
    blocks = sum(name.startswith(prefix) and name.endswith(suffix) for name in state_dict)
    if len(channels) != len(weights):
        return None
    try:
        return DecoderConfig(
            feature_channels=tuple(channels),
            blocks=blocks,
            classes=scores.shape[0],
            with_image="conv_embed.0.weight" in state_dict,
        )
    except InputError:
        return None
