"""``python -m urst_tiles`` is ``urst-tiles``."""

from urst_tiles.cli import program

program()
