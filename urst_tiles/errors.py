"""Every error this package raises on purpose.

    UrstError
    ├── BadInput (ValueError)          a file or option handed in cannot be used
    │   ├── MissingFile (FileNotFoundError)
    │   ├── BadWeights                 wrong hash, missing or extra keys, wrong shape
    │   └── BadPlan                    the pieces are fine, their combination is not
    │       └── DoesNotFit (MemoryError)   more memory or disk than there is
    ├── DamagedFile (OSError)          a file's content cannot be decoded
    ├── DiskFull (OSError)             no room left while writing
    ├── JobError (RuntimeError)        the job folder and this command do not go together
    │   ├── JobDiffers                 another source, style, grid, ... than before
    │   └── JobBusy                    another live process works on it
    └── BlocksFailed (RuntimeError)    some blocks failed; the others are kept

Each is also the builtin a caller would catch. The message is one sentence: what, got, allowed, which knob.
"""


class UrstError(Exception):
    """Root of the tree.

    ``exit_status`` is what the command line ends with: 2 before the first block, 1 when finished work is
    kept.
    """

    exit_status = 2


class BadInput(UrstError, ValueError):
    """A file or an option handed in cannot be used."""


class MissingFile(FileNotFoundError, BadInput):  # this order: dask unpickles with the first __new__ it finds
    """A file handed in is not there, or may not be read."""


class BadWeights(BadInput):
    """Weights with a wrong hash, missing or extra keys, or wrong shapes."""


class BadPlan(BadInput):
    """Options that are fine alone but not together."""


class DoesNotFit(BadPlan, MemoryError):
    """The plan needs more memory or disk than there is."""


class DamagedFile(UrstError, OSError):
    """A file's content is truncated, broken, or fails its checksum."""


class DiskFull(UrstError, OSError):
    """No room left on a disk while writing."""


class JobError(UrstError, RuntimeError):
    """The job folder and this command do not go together."""


class JobDiffers(JobError):
    """The job folder belongs to a job with other inputs or options."""


class JobBusy(JobError):
    """Another live process works on the same job folder."""


class BlocksFailed(UrstError, RuntimeError):
    """Some blocks failed for good; the finished ones are kept for the next call."""

    exit_status = 1
