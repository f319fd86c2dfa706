"""Reading images: every file becomes a `Source`, which returns RGB or RGBA pixels in uint8 or uint16.

>>> source = open_source("scene.tif").prepare(folder)     # doctest: +SKIP
>>> pixels = source.read(Box(0, 0, 512, 512))             # doctest: +SKIP
"""

from urst_tiles.source.fill import Fill
from urst_tiles.source.open import array_source, open_source
from urst_tiles.source.pad import read_padded
from urst_tiles.source.source import Source
from urst_tiles.source.thumbnail import thumbnail_shape

__all__ = ["Fill", "Source", "array_source", "open_source", "read_padded", "thumbnail_shape"]
