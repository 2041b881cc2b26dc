"""Interlaced video: frames woven of two fields that were taken at two times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from restorert.restore.video.frames import load_av

if TYPE_CHECKING:
    from fractions import Fraction

    from av.video.frame import VideoFrame

Fields = Literal["refuse", "progressive", "deinterlace"]
"""What to do with frames that are flagged interlaced: see `restore_video`."""


class Deinterlacer:
    """FFmpeg's bwdif: each frame that is flagged interlaced becomes one whole frame.

    Others pass unchanged. Frames come out one or two later than they go in.
    """

    def __init__(self, first: VideoFrame, time_base: Fraction) -> None:
        self.time_base = time_base
        self.graph = load_av().filter.Graph()
        options = {
            "video_size": f"{first.width}x{first.height}",
            "pix_fmt": first.format.name,
            "time_base": str(time_base),
            "pixel_aspect": "1/1",
            "colorspace": str(int(first.colorspace)),
            "range": str(int(first.color_range)),
        }
        nodes = (
            self.graph.add("buffer", **options),
            self.graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"),
            self.graph.add("buffersink"),
        )
        self.graph.link_nodes(*nodes).configure()

    def __call__(self, frame: VideoFrame | None) -> Iterator[VideoFrame]:
        """Give a frame, or None for the end; yields those that are done."""
        self.graph.vpush(frame)
        while True:
            try:
                done: Any = self.graph.vpull()
            except (BlockingIOError, EOFError):
                return
            if done.pts is not None:
                # bwdif counts in half ticks.
                half = done.time_base / self.time_base
                done.pts, done.duration = round(done.pts * half), round(done.duration * half)
                done.time_base = self.time_base
            yield done
