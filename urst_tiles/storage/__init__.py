"""Files on disk and on object stores: a file appears under its name when it is complete, or not at all."""
