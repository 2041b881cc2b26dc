"""Restore a video: frame times, sound, bit depth and colour stay as they are.

pip install "restorert[video]"
python examples/video.py in.mp4 out.mp4
"""

import sys

import restorert as rr

source, target = sys.argv[1:]
# All frames have one size: the engine is built for exactly that one, which is fastest.
engine = rr.EngineOnDemand(rr.load_network("hinet-tiny"), one_size=True)
report = rr.restore_video(
    source,
    target,
    engine,
    crf=16,
    progress=lambda done, of: print(f"\r{done} of {of or '?'} frames", end="", file=sys.stderr),
)
print(f"\n{report.frames} frames restored; left out: {', '.join(report.dropped) or 'nothing'}")
if report.incomplete:
    sys.exit(f"{source} is damaged: {report.damaged} packets could not be decoded")
