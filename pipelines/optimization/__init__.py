"""Image optimisation in parts: what is minimised, over the whole image or tile by tile, and what is kept."""
