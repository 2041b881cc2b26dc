"""Folders of pictures: each file against restore_image, and what must not stop the others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from skimage import data

import restorert as rr
from restorert.errors import Cure, DeviceMemoryError, InputError, PictureError, RestorertError
from restorert.pictures.files import read_image, write_image
from restorert.pictures.picture import Picture

SPEC = SimpleNamespace(name="fake", in_channels=3, out_channels=3, tile=None, rounding="nearest")


class Negative:
    """Turns bright into dark; fails with ``errors`` for pictures of their heights."""

    def __init__(self, errors: dict[int, BaseException] | None = None) -> None:
        self.spec: Any = SPEC
        self.errors = errors or {}
        self.calls = 0

    def __call__(self, frames: Any) -> Any:
        self.calls += 1
        height = frames.shape[1 if frames.dtype == np.uint8 else 2]
        if height in self.errors:
            raise self.errors[height]
        return 255 - frames if frames.dtype == np.uint8 else 1 - frames


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four pictures 20 to 23 pixels high, a file that is no picture, and a folder."""
    (folder := tmp_path / "in").mkdir()
    for index, name in enumerate(("b.PNG", "a.tif", "c[1].jpg", "d.webp")):
        write_image(folder / name, Picture(data.astronaut()[: 20 + index, :30]))
    (folder / "notes.txt").write_text("no picture")
    (folder / "inside.png").mkdir()
    write_image(folder / "inside.png/e.png", Picture(data.cat()[:9, :9]))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_picture_is_what_restore_image_makes_of_it(source: Path, tmp_path: Path) -> None:
    target, told = tmp_path / "new/out", []
    report = rr.restore_folder(
        source, str(target), Negative(), quality=40, progress=lambda *call: told.append(call)
    )
    assert names(target) == ["a.tif", "b.PNG", "c[1].jpg", "d.webp"]
    assert report == rr.FolderReport(
        restored=tuple(target / name for name in names(target)),
        failed={},
        other_files=1,
        folders=1,
    )
    assert told == [("restoring", share) for share in (0.25, 0.5, 0.75, 1.0)]
    for name in names(target):
        rr.restore_image(source / name, tmp_path / name, Negative(), quality=40)
        assert (target / name).read_bytes() == (tmp_path / name).read_bytes()
    pixels = read_image(source / "a.tif").pixels
    np.testing.assert_array_equal(read_image(target / "a.tif").pixels, 255 - pixels)


def test_one_picture_stops_no_other(source: Path, tmp_path: Path) -> None:
    (source / "bad.png").write_bytes(b"\x89PNG but not quite")
    engine = Negative(
        {
            20: MemoryError(),
            22: DeviceMemoryError("not enough memory for 1x3x22x30 on a GPU", Cure.TILES),
            23: RestorertError("not finite"),
        }
    )
    told: list[tuple[Path, RestorertError]] = []
    report = rr.restore_folder(
        source, tmp_path / "out", engine, on_error=lambda *failure: told.append(failure)
    )
    assert names(tmp_path / "out") == ["a.tif"]
    assert report.restored == (tmp_path / "out/a.tif",)
    assert list(report.failed.items()) == told
    assert [path.name for path in report.failed] == ["b.PNG", "bad.png", "c[1].jpg", "d.webp"]
    host, broken, device, other = report.failed.values()
    assert isinstance(broken, PictureError)
    assert str(other) == f"{source / 'd.webp'}: not finite"
    for error, path, fact in (
        (host, source / "b.PNG", "not enough memory"),
        (device, source / "c[1].jpg", "not enough memory for 1x3x22x30 on a GPU"),
    ):
        assert isinstance(error, DeviceMemoryError)
        assert str(error) == f"{path}: {fact}; restore in smaller tiles: tile=N"
        assert error.worded({Cure.TILES: "try --tile"}) == f"{path}: {fact}; try --tile"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("CUDA error")])
def test_what_is_no_error_of_a_picture_stops_the_work(
    source: Path, tmp_path: Path, error: BaseException
) -> None:
    engine = Negative({20: error})
    with pytest.raises(type(error)):
        rr.restore_folder(source, tmp_path / "out", engine)
    assert names(tmp_path / "out") == ["a.tif"]


def test_the_caller_may_stop_at_the_first_error(source: Path, tmp_path: Path) -> None:
    def stop(_: Path, error: RestorertError) -> None:
        raise error

    engine = Negative({21: RestorertError("first")})
    with pytest.raises(RestorertError, match="first"):
        rr.restore_folder(source, tmp_path / "out", engine, on_error=stop)
    assert engine.calls == 1


def test_a_folder_in_place(source: Path) -> None:
    before = read_image(source / "b.PNG").pixels
    assert len(rr.restore_folder(source, source, Negative()).restored) == 4
    np.testing.assert_array_equal(read_image(source / "b.PNG").pixels, 255 - before)


def test_arguments_reach_every_picture(source: Path, tmp_path: Path) -> None:
    engine = Negative()
    rr.restore_folder(source, tmp_path / "out", engine, tile=16)
    assert engine.calls == 4 * 4
    report = rr.restore_folder(source, tmp_path / "out", engine, max_pixels=600)
    assert [path.name for path in report.failed] == ["a.tif", "c[1].jpg", "d.webp"]


def test_what_cannot_be_is_refused_before_the_work(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    engine = Negative()
    for folder, target, said in (
        (source / "a.tif", "out", "is not a folder; restore_image is for pictures"),
        (tmp_path / "missing", "out", "is not a folder"),
        (tmp_path / "empty", "out", r"holds no pictures: \.png, "),
        (source, "out.png", "a picture's name; name a folder to write"),
        (source, "file", "cannot make the folder .*: File exists"),
        (source, "file/out", "cannot make the folder .*: Not a directory"),
    ):
        with pytest.raises(InputError, match=said):
            rr.restore_folder(folder, tmp_path / target, engine)
    with pytest.raises(InputError, match="tile is 0; it must be"):
        rr.restore_folder(source, tmp_path / "out", engine, tile=0)
    assert engine.calls == 0
    assert names(tmp_path) == ["empty", "file", "in"]
