"""MicroAST with its statistics frozen: placeholder for the fast form."""

from urst_tiles.nets.base import Frozen


class FrozenMicroAST(Frozen):
    pass
