"""The engine as users see it: takes and returns arrays of any type and size."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from restorert.backends.base import Runner
from restorert.engine.device import short_version
from restorert.engine.profile import ShapeProfile, format_shape
from restorert.engine.sidecar import Sidecar
from restorert.errors import Cure, DeviceMemoryError, InputError, not_finite, reason_of
from restorert.pictures.padding import pad
from restorert.psnr import psnr
from restorert.runtime.arrays import to_tensor
from restorert.spec import NetworkSpec, padded_size

_LOG = logging.getLogger("restorert")

VERIFIED_PSNR = 40.0
"""dB between a frame and the same in the next safer precision; below it the engine is distrusted.
At 30 dB of PSNR an independent error of this size costs 0.41 dB."""


@dataclass(frozen=True)
class EngineReport:
    """What an engine has done so far.

    Attributes:
        frames: restored; tiles count as frames.
        repeated: of them run again in a safer precision, because their result was NaN, infinite or
            constant.
        verified: of them compared with the next safer precision.
        lowest_psnr: of these, dB to the safer precision; inf if none was compared.
        distrusted: whether one was below `VERIFIED_PSNR`: since then all frames run in the safer
            precision.
        precision: that the next frame runs in.
    """

    frames: int
    repeated: int
    verified: int
    lowest_psnr: float
    distrusted: bool
    precision: str

    def __str__(self) -> str:
        said = [f"{self.frames} frames"]
        if self.repeated:
            said.append(f"{self.repeated} run again")
        if self.verified:
            said.append(f"{self.verified} verified, lowest PSNR {self.lowest_psnr:.1f} dB")
        if self.distrusted:
            said.append(f"distrusted, now in {self.precision}")
        return ", ".join(said)


class Engine:
    """A network ready to run: ``engine(frames)``.

    Attributes:
        spec: the network's `NetworkSpec`.
        runner: the loaded runner.
        sidecar: of the engine file; None for runners without one, such as torch.
        fallback: makes the engine of the next safer precision, which runs frames again whose result
            is NaN, infinite or constant; None returns them as they are.
        frames_repeated: number of frames run again.
        verify: every so many frames, from the first on, one runs in the next safer precision as
            well; if the two differ by more than `VERIFIED_PSNR` allows, that frame and all later
            ones are the safer precision's. 0 for none; needs ``fallback``.
    """

    def __init__(
        self,
        runner: Runner,
        spec: NetworkSpec,
        sidecar: Sidecar | None = None,
        fallback: Callable[[], Engine] | None = None,
        verify: int = 0,
    ) -> None:
        self.runner = runner
        self.spec = spec
        self.sidecar = sidecar
        self.fallback = fallback
        self.frames_repeated = 0
        self.verify = verify
        self._safer: Engine | None = None
        self._frames = self._verified = 0
        self._lowest = math.inf
        self._distrusted = False

    def __repr__(self) -> str:
        return f"<Engine {self.describe()}>"

    def describe(self) -> str:
        """One line: network, runner and version, precision really used, device, shapes."""
        r = self.runner
        shapes = f", shapes {r.profile}" if r.profile else ""
        version = short_version(r.version)
        return f"{self.spec.name} on {r.name} {version}, {r.precision}, {r.device}{shapes}"

    def report(self) -> EngineReport:
        """What the engine has done so far."""
        safer = self._safer.runner.precision if self._safer and self._distrusted else None
        return EngineReport(
            self._frames,
            self.frames_repeated,
            self._verified,
            self._lowest,
            self._distrusted,
            safer or self.runner.precision,
        )

    def __call__(self, frames: Any) -> Any:
        """Restore pictures.

        Args:
            frames: [N, C, H, W] floats in [0, 1], or [N, H, W, C] uint8 in [0, 255]; without N for
                one picture. A numpy array, a torch tensor, or anything with ``__dlpack__`` or
                ``__cuda_array_interface__`` (CuPy, PyCUDA's GPUArray). Any N, H and W: sizes are
                padded (``spec.padding_mode``) and the result cropped; batches larger than the
                engine's are split. The frames are not modified.

        Returns:
            The restored pictures, in new memory, of the same array type, dtype, layout and device;
            a torch tensor for a DLPack object whose library has no ``from_dlpack``. Floats are not
            clamped; uint8 is clamped and rounded as by the network's authors (``spec.rounding``).

        Raises:
            InputError: wrong dimensions, channels or dtype; larger than the engine's profile.
            DeviceMemoryError: not enough memory.
            RestorertError: the result is not finite and the frames are uint8, which cannot
                represent it.
        """
        tensor, restore_kind = to_tensor(frames)
        single = tensor.ndim == 3
        batch = tensor[None] if single else tensor
        out = self._run_uint8(batch) if batch.dtype == torch.uint8 else self._run_float(batch)
        return restore_kind(out[0] if single else out)

    def _run_uint8(self, batch: Tensor) -> Tensor:
        self._check(batch, channels_axis=3)
        picture = batch.permute(0, 3, 1, 2).to(self.runner.torch_device)
        restored = self._run(picture.to(torch.float32).div_(255.0))
        # Rounding would turn NaN into black and infinity into white.
        if restored.numel() and not all(e.isfinite() for e in torch.aminmax(restored)):
            raise not_finite(self.spec.name)
        levels = restored.clamp_(0.0, 1.0).mul_(255.0)
        if self.spec.rounding == "nearest":
            levels.round_()
        levels = levels.to(torch.uint8)
        return levels.permute(0, 2, 3, 1).contiguous().to(batch.device)

    def _run_float(self, batch: Tensor) -> Tensor:
        if not batch.is_floating_point():
            raise InputError(
                f"frames have dtype {str(batch.dtype).removeprefix('torch.')}; "
                "expected floats [N, C, H, W] in [0, 1] or uint8 [N, H, W, C]"
            )
        self._check(batch, channels_axis=1)
        restored = self._run(batch.to(self.runner.torch_device, torch.float32))
        return restored.to(batch.device, batch.dtype)

    def _check(self, batch: Tensor, channels_axis: int) -> None:
        layout = "[N, C, H, W]" if channels_axis == 1 else "[N, H, W, C]"
        if batch.ndim != 4:
            raise InputError(f"frames have {batch.ndim} dimensions; expected {layout}")
        channels = batch.shape[channels_axis]
        if channels != self.spec.in_channels:
            raise InputError(
                f"frames of shape {format_shape(batch.shape)} have {channels} channels in "
                f"{layout}; {self.spec.name} takes {self.spec.in_channels}"
            )
        if min(batch.shape[1:]) < 1:
            raise InputError(f"frames of shape {format_shape(batch.shape)} hold no pixels")

    def _run(self, x: Tensor) -> Tensor:
        number, self._frames = self._frames, self._frames + len(x)
        if self._distrusted:
            return self._in_safer_precision(x)
        restored = self._run_own(x)
        if self.fallback is not None:
            restored = self._repeat_broken(x, restored)
            if self.verify and len(x):
                self._verify(x, restored, -number % self.verify)
        return restored

    def _run_own(self, x: Tensor) -> Tensor:
        """The runner's results, padded and cropped."""
        height, width = x.shape[2:]
        profile = self.runner.profile
        smallest = profile.min[2:] if profile else (1, 1)
        multiple = self.spec.size_multiple
        rows, columns = (
            padded_size(size, multiple, low)
            for size, low in zip((height, width), smallest, strict=True)
        )
        if profile and (rows > profile.max[2] or columns > profile.max[3]):
            raise InputError(
                f"frames of {width}x{height} exceed this engine's {profile.max[3]}x"
                f"{profile.max[2]}; restore in tiles or build for "
                + format_shape(
                    (*profile.max[:2], max(rows, profile.max[2]), max(columns, profile.max[3]))
                )
            )
        try:
            padded = pad(x, rows, columns, self.spec.padding_mode).contiguous()
            chunks = padded.split(profile.max[0]) if profile else (padded,)
            restored = [self._run_chunk(chunk, profile) for chunk in chunks if len(chunk)]
            if not restored:
                return x.new_empty((0, self.spec.out_channels, height, width))
            joined = restored[0] if len(restored) == 1 else torch.cat(restored)
            return joined[:, :, :height, :width].contiguous()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            asked = format_shape((*x.shape[:2], rows, columns))
            place = self.runner.device.name
            raise DeviceMemoryError(
                f"not enough memory for {asked} on {place} ({reason_of(error)})", Cure.TILES
            ) from None

    def _repeat_broken(self, x: Tensor, restored: Tensor) -> Tensor:
        """Run the frames with broken results again, in a safer precision."""
        broken = broken_frames(x, restored)
        count = int(broken.sum())
        if not count:
            return restored
        repeated = self._in_safer_precision(x[broken])
        if not self.frames_repeated:
            assert self._safer is not None
            _LOG.warning(
                "%s gave NaN, infinity or one colour for a frame; such frames are run again in %s",
                self.runner.precision,
                self._safer.runner.precision,
            )
        self.frames_repeated += count
        restored[broken] = repeated
        return restored

    def _in_safer_precision(self, x: Tensor) -> Tensor:
        """The engine of the next safer precision, built at the first call, runs the frames."""
        if self._safer is None:
            assert self.fallback is not None
            self._safer = self.fallback()
        return self._safer._run(x)

    def _verify(self, x: Tensor, restored: Tensor, first: int) -> None:
        """Compare every n-th frame from ``first`` on; from a bad one on, replace ``restored``."""
        for index in range(first, len(x), self.verify):
            safer = self._in_safer_precision(x[index : index + 1])
            assert self._safer is not None
            difference = safer.clamp(0, 1) - restored[index : index + 1].clamp(0, 1)
            found = psnr(float(difference.double().square().mean()))
            self._verified += 1
            self._lowest = min(self._lowest, found)
            pair = self.runner.precision, self._safer.runner.precision
            _LOG.debug("%s: a frame has %.1f dB to %s", pair[0], found, pair[1])
            if found >= VERIFIED_PSNR:
                continue
            self._distrusted = True
            _LOG.warning(
                "%s is %.1f dB from %s at frame %d, below %g: from here on frames run in %s",
                pair[0],
                found,
                pair[1],
                self._frames - len(x) + index + 1,
                VERIFIED_PSNR,
                pair[1],
            )
            restored[index] = safer[0]
            if index + 1 < len(x):
                restored[index + 1 :] = self._in_safer_precision(x[index + 1 :])
            return

    def _run_chunk(self, chunk: Tensor, profile: ShapeProfile | None) -> Tensor:
        missing = profile.min[0] - chunk.shape[0] if profile else 0
        if missing > 0:
            filled = torch.cat([chunk, chunk[-1:].expand(missing, -1, -1, -1)])
            return self.runner(filled.contiguous())[: chunk.shape[0]]
        return self.runner(chunk.contiguous())


def broken_frames(x: Tensor, restored: Tensor) -> Tensor:
    """A boolean [N]: results with NaN or infinity, or constant although the frame is not.

    One pass over each picture: both extremes are NaN if any value is.
    """
    least, most = torch.aminmax(restored.flatten(1), dim=1)
    given_least, given_most = torch.aminmax(x.flatten(1), dim=1)
    constant = (least == most) & (given_least != given_most)
    return ~torch.isfinite(most - least) | constant


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch or the system ran out of memory."""
    # On a CPU torch raises a plain RuntimeError.
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)
