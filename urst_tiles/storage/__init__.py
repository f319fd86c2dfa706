"""Files on disk and on object stores, published whole or not at all."""
