"""The plan of a job that cuts an output for each feature of an area of interest from what it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from urst_tiles.budget import ending_bytes
from urst_tiles.encoding import encoding_of
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box, Grid
from urst_tiles.options import Options
from urst_tiles.plan import EXPECTED_RATIO, ITEMSIZE, Plan
from urst_tiles.planning import tile_side
from urst_tiles.pyramid import write_bytes
from urst_tiles.pyramid.formats import FORMATS, check_size
from urst_tiles.source import Source
from urst_tiles.source.pieces import Piece, pieces_of, pieces_said

#: How many copies of the pixels of a block there are while it is cut from others: decoded, and as it was read
#: where what lies outside of a feature stays unpainted.
CUTTING_COPIES = 2


def for_pieces(plan: Plan, source: Source, options: Options) -> Plan:
    """The plan of a job that makes a file of each feature: blocks in which none lies are left black, and
    what the end takes of memory and disk is that of cutting the files.

    Raises
    ------
    BadInput : no feature touches the image.
    BadPlan : the format cannot hold a file as large as one of them.
    """
    pieces, output = pieces_of(source), FORMATS[plan.format]
    if not pieces:
        raise BadInput(f"{options.aoi}: none of its features touches the image {source.path}")
    finish_bytes, cutting = 0, 0
    for piece in pieces:
        check_size(output, *piece.box.shape)
        grid = piece_grid(piece.box, options)
        encoding = encoding_of(plan, source, grid.tile)
        area = min(grid.block, grid.height) * min(grid.block, grid.width)
        block = area * encoding.channels * ITEMSIZE[plan.dtype]
        finish_bytes = max(
            finish_bytes,
            ending_bytes(source, grid, encoding, plan.encoders, plan.format),
            CUTTING_COPIES * block + write_bytes(grid, encoding, plan.encoders) + plan.reader_bytes,
        )
        cutting = max(cutting, piece.box.area * encoding.channels * ITEMSIZE[plan.dtype] * 4 // 3)
    plan = replace(
        plan,
        outputs=len(pieces),
        output_pixels=sum(piece.box.area for piece in pieces),
        finish_bytes=finish_bytes,
        spool_bytes=plan.spool_bytes + int(cutting * EXPECTED_RATIO[plan.compression]),
        identity={**plan.identity, **pieces_said(pieces)},
    )
    return plan.for_blocks(touched_blocks(pieces, plan.grid))


def piece_grid(box: Box, options: Options) -> Grid:
    """How the file of a feature, which lies in a box of the image, is cut into blocks and tiles."""
    tile = options.blocksize or min(tile_side(*box.shape), options.block)
    return Grid(*box.shape, core=options.block, block=options.block, tile=tile)


def touched_blocks(pieces: Sequence[Piece], grid: Grid) -> tuple[int, ...]:
    """The blocks of a grid in which any piece lies."""
    corner, found = grid.made, set[int]()
    for piece in pieces:
        for cell in piece.box.shift(-corner.y0, -corner.x0).cells(grid.block):
            found.add(cell.y0 // grid.block * grid.block_columns + cell.x0 // grid.block)
    return tuple(sorted(found))
