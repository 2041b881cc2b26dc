"""Restoring pictures and videos: files in, engine, files out."""

from restorert.restore.classify import classify_image, classify_picture
from restorert.restore.images import MAX_PIXELS, Picture, read_image, write_image
from restorert.restore.patches import read_patches
from restorert.restore.pictures import Engine, restore_image, restore_picture
from restorert.restore.self_ensemble import SelfEnsemble
from restorert.restore.tiles import restore_tiled, tile_grid
from restorert.restore.video import VideoReport, restore_video

__all__ = [
    "MAX_PIXELS",
    "Engine",
    "Picture",
    "SelfEnsemble",
    "VideoReport",
    "classify_image",
    "classify_picture",
    "read_image",
    "read_patches",
    "restore_image",
    "restore_picture",
    "restore_tiled",
    "restore_video",
    "tile_grid",
    "write_image",
]
