"""Where pixels meet networks: kernel, blocks, blending and statistics."""
