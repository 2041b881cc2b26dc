"""Picture files, and the arithmetic of pixels, tiles and padding. Needs numpy, but not torch."""

from restorert.pictures.files import FORMATS, MAX_PIXELS, read_image, write_image
from restorert.pictures.grid import tile_grid
from restorert.pictures.picture import Picture

__all__ = ["FORMATS", "MAX_PIXELS", "Picture", "read_image", "tile_grid", "write_image"]
