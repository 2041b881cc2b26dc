"""The command line's wording of each `Cure`."""

from __future__ import annotations

from restorert.errors import Cure

CURES = {
    Cure.BUILD: "build it again with: restorert build",
    Cure.CALIBRATE: "make one with: restorert calibrate --images FOLDER -o FILE.onnx",
    Cure.EXPORT: "make one with: restorert export",
    Cure.FIELDS: "use --deinterlace or, if its frames show no combing, --progressive",
    Cure.FP32: "use fp32, or allow more with --limit",
    Cure.KEEP_LAYERS: "--keep-fp16 auto keeps the most sensitive layers in fp16, "
    "--limit changes the limit",
    Cure.OTHER_RUNNER: "--runner auto picks one that works here; see: restorert doctor",
    Cure.PICTURES: "for pictures use: restorert restore",
    Cure.TILES: "restore in smaller tiles: --tile N",
}
