"""Ways to run a job: one image, many images, one image in shards on many machines, or a lazy dask array."""
