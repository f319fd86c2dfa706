"""The frozen form of each family: the same network with its sites folded in, rewritten to be fast."""
