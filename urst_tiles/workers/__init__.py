"""Where tasks run: in this process, in others, or on a cluster. Nothing here knows an image or a network."""
