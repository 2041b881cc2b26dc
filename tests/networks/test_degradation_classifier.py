"""DCPT's degradation classifier against the authors' figures, from files and from the shell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import official  # puts the recorders of figures on the path
import pytest
import torch
from nafnet_dcpt import DECODERS, PICTURES, seeded_features
from official import load_seeded, seeded_picture
from PIL import Image

import restorert as rr
from restorert.cli import main as cli
from restorert.networks import FAMILIES
from restorert.networks.degradation_classifier import (
    CLASSES,
    DecoderConfig,
    DegradationClassifier,
    DegradationDecoder,
    decoder_from_state_dict,
    read_features,
)

MINI = {"width": 4, "encoder_blocks": (1, 2), "middle_blocks": 1, "decoder_blocks": (1, 1)}
CONFIGS = {
    "encoder": DecoderConfig((64, 128, 256, 512)),
    "image": DecoderConfig((6, 12, 12), classes=4, with_image=True),
    "tokens": DecoderConfig((10, 10, 10), blocks=1, classes=4),
}


def _mini(seed: int = 0, classes: int = 5) -> DegradationClassifier:
    encoder = rr.create_network("nafnet-dcpt", seed=seed, **MINI)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = DegradationDecoder(DecoderConfig((4, 8), classes=classes))
    return DegradationClassifier(encoder, decoder).eval()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """An encoder's and a classifier's checkpoint, as BasicSR saves them."""
    classifier = _mini()
    torch.save({"params": classifier.encoder.state_dict()}, tmp_path / "net_g.pth")
    torch.save({"params": classifier.decoder.state_dict()}, tmp_path / "net_dc.pth")
    return tmp_path / "net_g.pth", tmp_path / "net_dc.pth"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "in[red].png"
    pixels = np.random.default_rng(0).integers(0, 256, (21, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.slow
def test_equals_the_official_code() -> None:
    encoder = load_seeded(rr.create_network("nafnet-dcpt"))
    decoder = load_seeded(DegradationDecoder(CONFIGS["encoder"]))
    classifier = DegradationClassifier(encoder, decoder).eval()
    with np.load(official.DATA / "nafnet_dcpt_official.npz") as recorded, torch.no_grad():
        names = recorded["classify/encoder/names"].tolist()
        assert sorted(decoder.state_dict()) == names
        for height, width in PICTURES:
            found = classifier(seeded_picture(height, width))
            expected = recorded[f"classify/encoder/{height}x{width}"]
            # measured worst: 1.6e-7 of the largest score, which is up to 4.3
            atol = 2e-6 * np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_decoders_equal_the_official_code(name: str) -> None:
    decoder = load_seeded(DegradationDecoder(CONFIGS[name]))
    features = seeded_features(DECODERS[name][2])
    with np.load(official.DATA / "nafnet_dcpt_official.npz") as recorded, torch.no_grad():
        assert sorted(decoder.state_dict()) == recorded[f"classify/{name}/names"].tolist()
        found = decoder(seeded_picture(32, 32, batch=2), features)
        expected = recorded[f"classify/{name}/32x32"]
        # measured worst: 2.4e-7 of the largest score, which is up to 4.4
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_sizes_are_read_off_the_tensors(config: DecoderConfig) -> None:
    state = DegradationDecoder(config).state_dict()
    decoder = decoder_from_state_dict(state)
    assert decoder is not None
    assert decoder.config == config
    assert all(torch.equal(state[name], value) for name, value in decoder.state_dict().items())


def test_hostile_tensors_are_no_classifier() -> None:
    state = dict(DegradationDecoder(CONFIGS["tokens"]).state_dict())
    for changed in (
        {"mixing_weights": torch.tensor(1.0)},
        {"mixing_weights": torch.zeros(0)},
        {"mixing_weights": torch.zeros(5)},
        {"fc.weight": torch.zeros(0, 10)},
        {"downsample_layers.0.0.weight": torch.zeros(2)},
        {"downsample_layers.0.0.weight": torch.zeros(2, 0, 1, 1)},
    ):
        assert decoder_from_state_dict({**state, **changed}) is None
    assert decoder_from_state_dict({}) is None
    with pytest.raises(rr.RestorertError, match="do not fit together: 1 of another shape"):
        decoder_from_state_dict({**state, "fc.bias": torch.zeros(7)})


def test_the_encoder_stops_at_the_last_feature() -> None:
    classifier = _mini()
    calls: list[str] = []
    classifier.encoder.ending.register_forward_hook(lambda *_: calls.append("ending"))
    x = seeded_picture(16, 24)
    features = read_features(classifier.encoder, x)
    assert [tuple(f.shape) for f in features] == [(1, 4, 16, 24), (1, 8, 8, 12)]
    assert calls == []
    assert classifier.encoder(x).shape == x.shape  # and runs to its end again
    assert calls == ["ending"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_features_of_every_family_are_there(family: rr.networks.NetworkFamily) -> None:
    """Each named module runs once, in the order named, on pictures or tokens of the picture."""
    name = next(iter(family.variants))
    net = rr.create_network(name, **family.small)
    names = net.feature_modules()
    if not names:
        pytest.skip("no classifier reads its features")
    found: list[str] = []
    for module in names:
        net.get_submodule(module).register_forward_hook(
            lambda m, i, o, module=module: found.append(module)
        )
    side = 4 * net.spec.size_multiple
    with torch.no_grad():
        net(seeded_picture(side, side))
    assert found == names


def test_wrong_pairs_are_one_line() -> None:
    encoder = rr.create_network("nafnet-dcpt", **MINI)
    for config, message in (
        (DecoderConfig((8, 16)), "reads features of 8, 16 channels, not 4, 8"),
        (DecoderConfig((4, 8, 16)), "reads features of 4, 8, 16 channels, not 4, 8"),
    ):
        with pytest.raises(rr.RestorertError, match=f"not trained with nafnet-dcpt.*{message}"):
            DegradationClassifier(encoder, DegradationDecoder(config))
    with_image = DegradationDecoder(DecoderConfig((4, 8), with_image=True))
    with_image(torch.zeros(1, 3, 8, 8), [torch.zeros(1, 4, 4, 4), torch.zeros(1, 8, 2, 2)])
    with pytest.raises(rr.RestorertError, match="needs pictures of at least 8x8, not 4x8"):
        with_image(torch.zeros(1, 3, 8, 4), [torch.zeros(1, 4, 4, 2), torch.zeros(1, 8, 2, 1)])
    with pytest.raises(rr.RestorertError, match="its feature 2 at 2x2, not at 1x1"):
        with_image(torch.zeros(1, 3, 8, 8), [torch.zeros(1, 4, 4, 4), torch.zeros(1, 8, 1, 1)])
    hinet = rr.create_network("hinet", width=4, depth=2)
    with pytest.raises(rr.RestorertError, match="hinet has no features"):
        DegradationClassifier(hinet, DegradationDecoder(DecoderConfig((4, 8))))
    grey = rr.create_network("nafnet-dcpt", **MINI, in_channels=1)
    with pytest.raises(rr.RestorertError, match="takes 1 channels; classifiers take 3"):
        DegradationClassifier(grey, DegradationDecoder(DecoderConfig((4, 8))))
    decoder = DegradationDecoder(DecoderConfig((4, 8)))
    with pytest.raises(rr.RestorertError, match="2 names for a classifier of 5"):
        DegradationClassifier(encoder, decoder, ["rain", "noise"])
    with pytest.raises(rr.RestorertError, match="two degradations have one name"):
        DegradationClassifier(encoder, decoder, ["a", "a", "b", "c", "d"])


def test_probabilities_of_a_picture(files: tuple[Path, Path], picture: Path) -> None:
    classifier = rr.load_classifier(*files)
    shares = rr.classify_image(picture, classifier)
    assert sorted(shares) == sorted(CLASSES[5])
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert abs(sum(shares.values()) - 1) < 1e-9  # measured: 0
    # By hand: reflected to multiples of 4.
    pixels = np.asarray(Image.open(picture)).astype(np.float32) / 255
    padded = np.pad(pixels, ((0, 3), (0, 2), (0, 0)), mode="reflect")
    with torch.no_grad():
        scores = classifier(torch.from_numpy(padded).permute(2, 0, 1)[None])[0]
    expected = dict(zip(CLASSES[5], torch.softmax(scores, 0).tolist(), strict=True))
    assert shares == pytest.approx(expected, abs=1e-7)  # measured: 9.2e-9


@pytest.mark.parametrize("pixels", [(1, 1, 3), (3, 50, 1), (40, 2, 3)])
def test_tiny_and_grey_pictures(pixels: tuple[int, int, int], tmp_path: Path) -> None:
    array = np.full(pixels, 90, np.uint8)
    Image.fromarray(array.squeeze(2) if pixels[2] == 1 else array).save(tmp_path / "a.png")
    shares = rr.classify_image(tmp_path / "a.png", _mini())
    assert sorted(shares) == sorted(CLASSES[5])
    assert abs(sum(shares.values()) - 1) < 1e-9  # measured: 0


def test_command_line(
    files: tuple[Path, Path], picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ["--weights", *map(str, files)]
    assert cli.main(["classify", str(picture), *weights]) == 0
    out, err = capsys.readouterr()
    expected = rr.classify_image(picture, rr.load_classifier(*files))
    assert out.splitlines() == [f"{share:.4f} {name}" for name, share in expected.items()]
    assert err.startswith("note: the authors do not publish the order of the classes")
    assert err.count("\n") == 1
    assert cli.main(["classify", str(picture), *weights, "--classes", "a, b,c,d,[red]"]) == 0
    out, err = capsys.readouterr()
    assert {line.split(" ", 1)[1] for line in out.splitlines()} == {"a", "b", "c", "d", "[red]"}
    assert err == ""


def test_other_counts_have_numbers(
    tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = _mini(classes=3)
    rr.save_network(classifier.encoder, tmp_path / "g.safetensors")
    rr.save_network(classifier.decoder, tmp_path / "dc.safetensors")
    weights = [str(tmp_path / "g.safetensors"), str(tmp_path / "dc.safetensors")]
    assert cli.main(["classify", str(picture), "--weights", *weights]) == 0
    out, err = capsys.readouterr()
    assert sorted(line.split(" ", 1)[1] for line in out.splitlines()) == [
        "class 0",
        "class 1",
        "class 2",
    ]
    assert err == ""


def test_command_line_errors_are_one_line(
    files: tuple[Path, Path], picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, decoder = map(str, files)
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(files[1].read_bytes()[:-500])
    torch.save({"params": {"a\x1b[31m": torch.zeros(1)}}, tmp_path / "other.pth")
    rr.save_network(rr.create_network("hinet", width=4, depth=2), tmp_path / "hinet.safetensors")
    wide = rr.create_network("nafnet-dcpt", **{**MINI, "width": 6})
    rr.save_network(wide, tmp_path / "wide.safetensors")
    here = str(picture)
    for arguments, message in (
        (["classify"], "the following arguments are required"),
        (["classify", here], "required: --weights"),
        (["classify", here, "--weights", encoder], "expected 2 arguments"),
        (["classify", "none.png", "--weights", encoder, decoder], "none.png: no such file"),
        (["classify", encoder, "--weights", encoder, decoder], "net_g.pth"),
        (["classify", here, "--weights", "none.pth", decoder], "none.pth"),
        (["classify", here, "--weights", encoder, "none.pth"], "none.pth"),
        (["classify", here, "--weights", decoder, encoder], "give the encoder first"),
        (["classify", here, "--weights", decoder, decoder], "no network that restorert knows"),
        (["classify", here, "--weights", encoder, str(damaged)], "damaged"),
        (
            ["classify", here, "--weights", encoder, str(tmp_path / "other.pth")],
            "1 tensors (first a?[31m) that are not a degradation classifier's",
        ),
        (
            ["classify", here, "--weights", str(tmp_path / "hinet.safetensors"), decoder],
            "hinet has no features",
        ),
        (
            ["classify", here, "--weights", str(tmp_path / "wide.safetensors"), decoder],
            "reads features of 4, 8 channels, not 6, 12",
        ),
        (
            ["classify", here, "--weights", encoder, decoder, "--model", "hinet"],
            "holds no hinet: its tensors are those of nafnet",
        ),
        (["classify", here, "--weights", encoder, decoder, "--classes", "a,b"], "2 names"),
        (["classify", here, "--weights", encoder, decoder, "--model", "nafnett"], "did you mean"),
    ):
        assert cli.main(arguments) == 2, arguments
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("restorert: error: ")
        assert err.count("\n") == 1
        assert message in err, err


@pytest.mark.parametrize("name", ["restormer-dcpt", "promptir-dcpt", "swinir-dcpt"])
def test_other_encoders(name: str) -> None:
    family = next(family for family in FAMILIES if name in family.variants)
    encoder = rr.create_network(name, **family.small)
    names = encoder.feature_modules()
    channels = []
    for module in names:
        axis = 3 if encoder.features_channels_last else 1
        encoder.get_submodule(module).register_forward_hook(
            lambda m, i, o, axis=axis: channels.append(o.shape[axis])
        )
    side = 4 * encoder.spec.size_multiple
    with torch.no_grad():
        encoder(seeded_picture(side, side))
    config = DecoderConfig(tuple(channels[::-1]), with_image=name == "promptir-dcpt")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = DegradationDecoder(config)
    classifier = DegradationClassifier(encoder, decoder).eval()
    with torch.no_grad():
        scores = classifier(seeded_picture(2 * side, 3 * side, 2))
    assert scores.shape == (2, config.classes)
    assert scores.isfinite().all()
