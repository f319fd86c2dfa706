"""How the pixels of an output are stored: their data type, and the encoding of their tiles."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from urst_tiles.errors import BadPlan
from urst_tiles.options import Compression
from urst_tiles.plan import Plan
from urst_tiles.pyramid import Encoding
from urst_tiles.pyramid.formats import FORMATS, Format, check_dtype
from urst_tiles.source import Source


def make_encoding(
    source: Source,
    dtype: str,
    compression: str,
    quality: int,
    tile: int,
    *,
    output: Format = FORMATS["tif"],
    predictor: bool = True,
    overviews: str = "average",
    colours: int = 3,
) -> Encoding:
    """How the tiles of the parts are encoded, and how the file says which pixels are valid.

    They are the tiles of the output if that is a TIFF. An OME-TIFF and a JPEG 2000 have alpha for masks and
    nodata, which their readers do not know.
    """
    nodata = output_nodata(source.info.nodata, str(source.file_dtype), dtype)
    if colours != source.colours:
        # of maps, in which 0 says that there is nothing of a stain
        nodata = float("nan") if dtype == "float32" else int(np.iinfo(dtype).max)
    validity = source.info.validity
    if output.name in ("ome.tif", "jp2"):
        validity = "alpha" if source.has_valid else "none"
    return Encoding(
        compression=cast(Compression, compression),
        quality=quality,
        dtype=cast(Any, dtype),
        channels=colours + source.has_valid,
        colours=colours,
        validity=validity,
        nodata=nodata if validity == "nodata" else None,
        tile=tile,
        keeps_hidden=source.unpainted and colours == source.colours,
        predictor=predictor,
        overviews=cast(Any, overviews),
        separate_mask=output.name != "ome.tif",
    )


def encoding_of(plan: Plan, source: Source, tile: int | None = None) -> Encoding:
    """The encoding of the tiles of the blocks of a plan; or of an output that is cut from these, of which
    ``tile`` is the side of a tile."""
    return make_encoding(
        source,
        plan.dtype,
        plan.parts_compression if tile is None else plan.compression,
        plan.quality,
        tile or plan.grid.tile,
        output=FORMATS[plan.format],
        predictor=plan.predictor,
        overviews=plan.overview_resampling,
        colours=plan.colours,
    )


def resolve_dtype(
    wanted: str, source: Source, output: Format = FORMATS["tif"], stains: str | None = None
) -> str:
    """The data type of the output; ``auto`` is uint16 for a uint16 file if the format of the output holds it,
    and uint8 for all others. Maps of ``stains`` are uint16, or float32 where that is asked for.

    Raises
    ------
    BadPlan : uint16 is asked for, and the format holds 8 bits only; or maps of stains in uint8.
    """
    if stains:
        if wanted == "uint8":
            raise BadPlan(
                "--stains writes amounts as uint16 or float32, of which 8 bits would keep little: leave"
                " --dtype out, or choose --dtype float32"
            )
        return "float32" if wanted == "float32" else "uint16"
    floats = source.dtype == np.float32
    if floats != (wanted == "float32") and wanted != "auto":
        raise BadPlan(
            f"--dtype {wanted} cannot be made of samples of {source.file_dtype} that stay as they are: leave"
            " it out, or say with --stretch LOW,HIGH which values are black and white"
            if floats
            else "--dtype float32 is for floats that stay as they are, with --model colour --bands all, and"
            " for the maps of --stains; leave it out"
        )
    if floats or wanted != "auto":
        check_dtype(output, "float32" if floats else wanted)
        return "float32" if floats else wanted
    return "uint16" if source.file_dtype == np.uint16 and output.sixteen_bit else "uint8"


def output_nodata(nodata: str | None, file_dtype: str, dtype: str) -> float:
    """The nodata value of the source if the output has the same dtype and can hold it; else 0."""
    try:
        value = float(nodata) if nodata is not None and file_dtype == dtype else 0.0
    except ValueError:
        return 0
    if dtype == "float32":
        return value
    top = 255 if dtype == "uint8" else 65535
    return int(value) if value.is_integer() and 0 <= value <= top else 0
