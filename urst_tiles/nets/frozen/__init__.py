"""A faster frozen network for some families: the same network with its sites folded into the convolutions."""
