"""The part of the package in which networks run on pixels: kernel, blocks, blending and statistics."""
