"""Ways to run a job: one image, many images, in shards on many machines, or as a dask array."""
