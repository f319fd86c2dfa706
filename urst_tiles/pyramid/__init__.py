"""The output: pixels become overviews, tiles, part files, and one cloud-optimised GeoTIFF.

reduce     2 x 2 means that know which pixels are valid
encode     one tile of pixels -> the bytes that lie in the file
levels     what the directories of the output say about each level
part       one block's share of the pyramid in one file, with checksums
parts      all part files of a job, and those of the levels above its blocks
assemble   part files -> the final file, bytes moved, nothing encoded twice
budget     memory and disk as formulas
validate   what is wrong with a pyramid, in sentences
"""

from urst_tiles.pyramid.assemble import assemble
from urst_tiles.pyramid.budget import output_bytes, part_bytes, write_bytes
from urst_tiles.pyramid.encode import Compression, Encoding
from urst_tiles.pyramid.validate import Report, validate

__all__ = [
    "Compression",
    "Encoding",
    "Report",
    "assemble",
    "output_bytes",
    "part_bytes",
    "validate",
    "write_bytes",
]
