"""Restoring pictures, folders and videos: files in, engine, files out."""

from restorert.restore.classify import classify_image, classify_picture
from restorert.restore.folder import FolderReport, restore_folder
from restorert.restore.picture import restore_image, restore_picture
from restorert.restore.protocol import Engine
from restorert.restore.self_ensemble import SelfEnsemble
from restorert.restore.tiles import restore_tiled
from restorert.restore.video import VideoReport, restore_video

__all__ = [
    "Engine",
    "FolderReport",
    "SelfEnsemble",
    "VideoReport",
    "classify_image",
    "classify_picture",
    "restore_folder",
    "restore_image",
    "restore_picture",
    "restore_tiled",
    "restore_video",
]
