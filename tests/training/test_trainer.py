"""Training runs in miniature: they learn, they resume to the bit, they refuse in one line."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import restorert as rr
from restorert.errors import CheckpointError, InputError, RecipeError, RestorertError
from restorert.networks import FAMILIES, NetworkFamily
from restorert.pictures.degradations import GaussianNoise, Jpeg
from restorert.training import RECIPES, Phase, Recipe, Report, Trainer, export_run, recipe
from restorert.training.__main__ import main

MINI = Recipe(
    name="mini",
    network="hinet",
    config={"width": 4, "depth": 2, "hin_levels": (1, 1)},
    steps=12,
    phases=(Phase(0.5, 16, 2), Phase(1.0, 32, 1)),
    warmup=2,
    gradient_norm=1.0,
    degradations=((1.0, GaussianNoise((25, 25))), (2.0, Jpeg())),
    zeroed=("last", "sam12.conv2"),
    validation_steps=6,
)


def photograph(seed: int = 0, side: int = 96) -> np.ndarray:
    """Smooth shapes with edges, as photographs have."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    waves = np.stack([np.sin(8 * (rows * a + columns * b)) for a, b in rng.uniform(-1, 1, (3, 2))])
    edges = (rows + columns > rng.uniform(0.6, 1.4)) * 0.4
    return (
        np.rint(np.clip(0.5 + 0.3 * waves + edges, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    )


def trainer(out: Path, made: Recipe = MINI, **arguments: object) -> Trainer:
    validation = arguments.pop("validation", [photograph(9, 128)])
    return Trainer(made, [photograph(0), photograph(1)], out, validation=validation, **arguments)


def state(run: Trainer) -> dict[str, torch.Tensor]:
    moments = run.optimizer.state_dict()["state"]
    return {
        **run.module.state_dict(),
        **{f"mean {k}": v for k, v in run.mean.items()},
        **{f"{i} {k}": v for i, kept in moments.items() for k, v in kept.items()},
    }


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_training_learns_and_reports(tmp_path: Path) -> None:
    made = dataclasses.replace(
        MINI, steps=150, learning_rate=5e-3, ema=0.9, degradations=MINI.degradations[:1]
    )
    run = trainer(tmp_path, made)
    reports: list[Report] = []
    run.train(reports.append, report_every=0.0)
    assert run.step == 150
    assert [r.step for r in reports] == list(range(1, 151))
    assert reports[-1].loss < reports[0].loss
    found = reports[-1].validation
    # sigma 25 is 20.2 dB, a little more where clamping takes noise away: measured 20.52
    assert found["input 0"] == pytest.approx(20.2, abs=0.5)
    assert found["output 0"] > found["input 0"] + 2  # measured: 3.1
    assert reports[-1].seconds_left == 0
    assert reports[5].seconds_left > 0
    sheet = np.asarray(Image.open(tmp_path / "validation.png"))
    assert sheet.shape == (128, 3 * 128, 3)
    np.testing.assert_array_equal(sheet[:, 256:], photograph(9, 128))


def test_the_first_steps_output_is_its_input(tmp_path: Path) -> None:
    found = trainer(tmp_path).validate()
    for label in range(2):
        # measured: 1.9e-6 dB
        assert found[f"output {label}"] == pytest.approx(found[f"input {label}"], abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_reported_psnr_is_of_the_picture_that_the_network_returns(
    family: NetworkFamily, tmp_path: Path
) -> None:
    """Networks of several stages or scales make other pictures, too, of other quality."""
    objectives = {"mprnet": "charbonnier-edge", "memorynet": "charbonnier-edge"}
    made = dataclasses.replace(
        MINI,
        network=next(iter(family.variants)),
        config=family.small,
        objective=objectives.get(family.name, "multiscale" if family.name == "srn" else "psnr"),
        phases=(Phase(1.0, 32, 2),),
        zeroed=(),
    )
    run = trainer(tmp_path, made, validation=[])
    batch = run.pairs.batch(0, 2, 32)
    with torch.no_grad():
        restored = run.averaged()(batch.degraded)  # the weights of the start, in eval mode
    error = np.square(restored.numpy().astype(float) - batch.clean.numpy()).mean(axis=(1, 2, 3))
    reports: list[Report] = []
    run.train(reports.append, report_every=0.0, until=1)
    # measured worst: 0
    assert reports[0].quality == pytest.approx(-10 * np.log10(error).mean(), abs=1e-4)


def test_resumed_in_portions_equals_in_one_go(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.train()
    for until in (1, 5, 6, 7, 12):
        part = trainer(tmp_path / "parts")
        part.train(until=until)
        assert part.step == until
    assert equal(state(whole), state(part))
    again = trainer(tmp_path / "parts")
    again.train()
    assert equal(state(whole), state(again))


_SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import test_trainer
run = test_trainer.trainer(Path(sys.argv[2]))
def show(report):
    print(report.step, flush=True)
run.train(show, report_every=0.0, save_every=0.0)
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(Path(__file__).parent)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    killed = tmp_path / "killed"
    for kills, step in enumerate((b"2", b"7")):
        process = subprocess.Popen([*command, str(killed)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == step:
                break
        time.sleep(0.002 * kills)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    subprocess.run([*command, str(killed)], check=True, capture_output=True)
    states = [
        torch.load(folder / "checkpoint.pt", weights_only=True)
        for folder in (tmp_path / "whole", killed)
    ]
    assert states[0]["step"] == states[1]["step"] == 12
    for part in ("module", "mean"):
        assert equal(states[0][part], states[1][part])
    assert [p.name for p in killed.iterdir() if p.name.startswith(".checkpoint")] == []


def test_terminated_it_saves_and_leaves(tmp_path: Path) -> None:
    made = dataclasses.replace(MINI, steps=100_000)
    run = trainer(tmp_path, made)
    run.train(lambda report: os.kill(os.getpid(), signal.SIGTERM), report_every=0.0)
    assert run.stopped
    resumed = trainer(tmp_path, made)
    assert 0 < run.step == resumed.step < 100
    assert equal(state(run), state(resumed))


def test_the_schedule_is_a_function_of_the_step() -> None:
    made = dataclasses.replace(MINI, steps=100, warmup=10, learning_rate=1.0, final_rate=0.1)
    assert [made.rate(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert made.rate(10) == pytest.approx(1.0)
    assert made.rate(55) == pytest.approx(0.55)
    assert made.rate(100) == pytest.approx(0.1)
    assert [made.phase(step).patch for step in (0, 49, 50, 99)] == [16, 16, 32, 32]
    assert made.pixels(0) == 50 * 2 * 256 + 50 * 1024
    assert made.pixels(75) == 25 * 1024
    assert made.pixels(100) == 0


def test_exported_weights_load_into_the_float32_network(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.train()
    (path,), steps = export_run(tmp_path, tmp_path / "mini.safetensors")
    assert steps == 12
    loaded = rr.load_network(path)
    assert loaded.spec.config.width == 4
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, run.mean[name].half().float())
    started = trainer(tmp_path / "next", initial=path)
    assert torch.equal(started.module.state_dict()["last.weight"], loaded.last.weight)
    started.train(until=1)
    assert trainer(tmp_path / "next", initial=tmp_path / "gone.safetensors").step == 1
    wrong = dataclasses.replace(MINI, config={"width": 8, "depth": 2, "hin_levels": (1, 1)})
    with pytest.raises(CheckpointError, match="its hinet has other sizes than the one that recipe"):
        trainer(tmp_path / "wrong", wrong, initial=path)


def test_bfloat16_trains_float32_weights(tmp_path: Path) -> None:
    run = trainer(tmp_path, dataclasses.replace(MINI, precision="bf16"))
    run.train(until=2)
    assert all(value.dtype == torch.float32 for value in run.module.state_dict().values())
    assert not torch.equal(run.module.state_dict()["last.weight"], torch.zeros(3, 4, 3, 3))


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.train(until=2)
    run.module.last.weight.data.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(RestorertError, match=r"the loss is nan at step 2; .*checkpoint.pt is from"):
        run.train()
    assert trainer(tmp_path).step == 2


@pytest.mark.parametrize("until", [0, 2])
def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path, until: int) -> None:
    """The loss of the step that spoils them is still a number."""
    made = dataclasses.replace(MINI, steps=until + 1)
    if until:
        trainer(tmp_path, made).train(until=until)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run = trainer(tmp_path, made)
    step = run.optimizer.step

    def spoil() -> None:
        step()
        run.module.last.weight.data.fill_(float("inf"))  # type: ignore[union-attr]

    run.optimizer.step = spoil  # type: ignore[method-assign,assignment]
    kept = "checkpoint.pt is from before" if until else "nothing is saved"
    with pytest.raises(RestorertError, match=rf"not finite after step {until + 1}; .*{kept}"):
        run.train()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_weights_too_large_for_float16_are_not_exported(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.mean["last.bias"].fill_(1e5)
    run.save()
    target = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match=r"last\.bias is not finite in float16"):
        export_run(tmp_path, target)
    assert not target.exists()
    export_run(tmp_path, target, half=False)
    assert target.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html><html></html>", b"no checkpoint", {}, {"format": 1, "recipe": "[]"}],
)
def test_other_files_in_a_checkpoints_place(tmp_path: Path, content: bytes | dict) -> None:
    path = tmp_path / "checkpoint.pt"
    if isinstance(content, dict):
        torch.save({"step": 1, **content}, path)
    else:
        path.write_bytes(content)
    said = "is an empty file" if content == b"" else "is not the checkpoint of a training run, or"
    for act in (lambda: trainer(tmp_path), lambda: export_run(tmp_path, tmp_path / "a")):
        with pytest.raises(CheckpointError, match=rf"{re.escape(str(path))} {said}.*afresh$"):
            act()


def test_states_that_do_not_fit_the_recipe(tmp_path: Path) -> None:
    trainer(tmp_path).train(until=1)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    for key in ("module", "mean", "optimizer"):
        torch.save({**state, key: {}}, path)
        with pytest.raises(CheckpointError, match="is damaged; remove it to start afresh"):
            trainer(tmp_path)


def test_a_checkpoint_of_another_recipe_or_broken_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).train(until=1)
    with pytest.raises(CheckpointError, match=r"of another run \(seed 0\); train in another"):
        trainer(tmp_path, dataclasses.replace(MINI, seed=1))
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"is damaged; remove it to start afresh"):
        trainer(tmp_path)
    with pytest.raises(CheckpointError, match="holds no run"):
        export_run(tmp_path / "none", tmp_path / "a.safetensors")


def test_recipes_and_phases_that_are_none_are_refused() -> None:
    for phases in ((), (Phase(0.5, 16, 1),), (Phase(1.0, 16, 1), Phase(0.5, 16, 1))):
        with pytest.raises(RecipeError, match="phases must end at increasing shares up to 1"):
            dataclasses.replace(MINI, phases=phases)
    for field, value, needed in (
        ("ema", 1.0, "0 <= ema < 1"),
        ("darkened", (0.5, 1.5), "darkened = two numbers from 0 to 1"),
        ("steps", 0, r"1 <= steps < 2\*\*31"),
        ("steps", 10**400, r"1 <= steps < 2\*\*31"),
        ("learning_rate", 0.0, "0 < learning_rate <= 1"),
        ("learning_rate", 1e300, "0 < learning_rate <= 1"),
        ("learning_rate", float("inf"), "0 < learning_rate <= 1"),
        ("learning_rate", float("nan"), "0 < learning_rate <= 1"),
        ("seed", -1, r"0 <= seed < 2\*\*63"),
        ("seed", 2**63, r"0 <= seed < 2\*\*63"),
    ):
        with pytest.raises(RecipeError, match=f"needs {needed}, not ") as caught:
            dataclasses.replace(MINI, **{field: value})
        assert len(str(caught.value)) < 100
    with pytest.raises(InputError, match="no recipe 'hinet-tinny'; did you mean hinet-tiny"):
        recipe("hinet-tinny")


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_starts(name: str, tmp_path: Path) -> None:
    made = RECIPES[name]
    small = dataclasses.replace(made, phases=(Phase(1.0, 64, 2),), validation_steps=10**9)
    run = trainer(tmp_path, small, validation=[])
    run.train(until=1)
    assert (tmp_path / "checkpoint.pt").exists()


# ---- the command line ----------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(photograph(number, 160)).save(folder / f"{number}.png")
    return folder


def one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    printed, error = capsys.readouterr()
    assert printed == ""
    assert error.startswith("restorert.training: error: ")
    assert error.count("\n") == 1
    return error


def test_bad_commands_get_one_line(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = ("--out", str(tmp_path / "out"))
    tiny = ("--recipe", "hinet-tiny", *out)
    pictures = ("--images", str(images))
    assert "did you mean hinet-tiny" in one_line(capsys, "--recipe", "hinet-tini", *pictures)
    assert "one of the arguments --recipe --qat is required" in one_line(capsys)
    assert "--images DIR" in one_line(capsys, *tiny)
    assert "no pictures in it" in one_line(capsys, *tiny, "--images", str(empty))
    assert "no such folder" in one_line(capsys, *tiny, "--images", "none")
    assert "a.png: not among 0.png" in one_line(capsys, *tiny, *pictures, "--hold-out", "a.png")
    held = [word for n in range(3) for word in ("--hold-out", f"{n}.png")]
    assert "leave none to train with" in one_line(capsys, *tiny, *pictures, *held)
    for flag, value in (
        ("threads", "0"),
        ("threads", "-1"),
        ("threads", "9" * 30),
        ("report-every", "nan"),
        ("report-every", "-1"),
        ("save-every", "nan"),
        ("save-every", "x"),
    ):
        said = one_line(capsys, *tiny, *pictures, f"--{flag}={value}")
        assert f"argument --{flag}: must be a " in said
    for flag, value in (
        ("steps", "0"),
        ("learning-rate", "inf"),
        ("learning-rate", "nan"),
        ("seed", "-1"),
        ("seed", "9" * 40),
    ):
        said = one_line(capsys, *tiny, *pictures, f"--{flag}={value}")
        assert f" {flag.replace('-', '_')} <" in said
    assert "no such file" in one_line(capsys, *tiny, *pictures, "--init", "none.pth")
    assert "holds no run" in one_line(capsys, *tiny, "--export", str(tmp_path / "a.safetensors"))
    if not torch.cuda.is_available():
        assert "no GPU here" in one_line(capsys, *tiny, *pictures, "--device", "cuda")
    (images / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "1.png" in one_line(capsys, *tiny, *pictures)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_trains_goes_on_and_exports(
    tmp_path: Path,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = dataclasses.replace(MINI, name="mini", network="hinet-tiny", validation_steps=4)
    monkeypatch.setitem(RECIPES, "mini", small)
    out = tmp_path / "out"
    command = ["--recipe", "mini", "--images", str(images), "--out", str(out), "--steps", "8"]
    command += ["--hold-out", "2.png", "--report-every", "0"]
    assert main(command) == 0
    printed, told = capsys.readouterr()
    assert printed == f"{out / 'hinet-tiny.safetensors'}\n"
    assert "mini runs 8 steps on" in told
    assert "2 photographs, validated with 2.png" in told
    assert re.search(r"step 4/8  loss -?[\d.]+  PSNR [\d.]+ dB  left 0:00:\d\d", told)
    assert re.search(r"validation: [\d.]+ -> [\d.]+ dB, [\d.]+ -> [\d.]+ dB", told)
    assert main(command) == 0
    assert "resumes after 8 of 8 steps" in capsys.readouterr().err
    copy = tmp_path / "copy.safetensors"
    assert main(["--recipe", "mini", "--out", str(out), "--export", str(copy)]) == 0
    assert capsys.readouterr().err == "weights after 8 steps\n"
    assert equal(load_file(copy), load_file(out / "hinet-tiny.safetensors"))
    other = ["--recipe", "dcpt-miniature", "--out", str(out), "--export"]
    assert "a run of recipe mini, not of dcpt-miniature" in one_line(
        capsys, *other, str(tmp_path / "other.safetensors")
    )
    assert not (tmp_path / "other.safetensors").exists()
