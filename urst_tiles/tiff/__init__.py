"""The TIFF file format: one reader and one writer of directories and tags."""
