"""The output: pixels become overviews, tiles, part files, and at last a GeoTIFF or another format.

reduce     means of 2 x 2 pixels that ignore invalid pixels
encode     one tile of pixels becomes the bytes that lie in the file
levels     what the directories of the output say about each level
part       the format of a part file: one block's share of the pyramid, with checksums
parts      all part files of a job: which are missing, and the levels above the blocks
assemble   part files become the final file; tiles are copied, and none is encoded twice
budget     formulas for the memory and the disk space that writing takes
validate   checks a pyramidal TIFF and describes every problem in a sentence

formats    the table of the formats of outputs
finish     the last stage of a job: the parts become an output of any format
pixels     the finished pyramid as pixels, for formats that encode them anew
picture    PNG, JPEG and WebP (`png` and `jpeg` write their streams), and what they carry inside
beside     world files and ``.aux.xml`` beside a picture
deep_zoom  DZI and IIIF: folders of tiles for viewers in browsers
ome_tiff   OME-XML, for the OME-TIFF that `assemble` writes
ome_zarr   OME-Zarr
statistics statistics of the bands, for GDAL and QGIS
check      checks an output of any format (`zarr_check` an OME-Zarr)
"""

from urst_tiles.pyramid.assemble import assemble, check_header
from urst_tiles.pyramid.budget import output_bytes, part_bytes, write_bytes
from urst_tiles.pyramid.check import validate
from urst_tiles.pyramid.encode import Compression, Encoding
from urst_tiles.pyramid.validate import ValidationReport

__all__ = [
    "Compression",
    "Encoding",
    "ValidationReport",
    "assemble",
    "check_header",
    "output_bytes",
    "part_bytes",
    "validate",
    "write_bytes",
]
