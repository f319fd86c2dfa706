"""Learning: weights that follow the gradient of a loss on crops of pictures.

What a command of the package and the training programs of ``pipelines/`` share: the painter's network for
many styles at once, its losses, crops of pictures, and checkpoints. No job needs anything of it.
"""
