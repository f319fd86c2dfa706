"""The errors that this package raises on purpose.

    UrstError
    ├── BadInput (ValueError)          a file or option that was given cannot be used
    │   ├── MissingFile (FileNotFoundError)
    │   ├── BadWeights                 the weights of a network are not what they should be
    │   └── BadPlan                    options are valid alone, but not together
    │       └── DoesNotFit (MemoryError)   the job needs more memory or disk than there is
    ├── DamagedFile (OSError)          a file's content cannot be decoded
    ├── DiskFull (OSError)             a disk became full while writing
    ├── JobError (RuntimeError)        the job folder does not fit this command
    │   ├── JobDiffers                 the folder holds a job with other inputs or options
    │   └── JobBusy                    another process is working in the folder
    └── BlocksFailed (RuntimeError)    some blocks failed; the finished blocks are saved

Each error is also the builtin error in brackets, for callers that catch that. The message is one sentence: it
says what is wrong, which value was given, which values are allowed, and which option to change.
"""


class UrstError(Exception):
    """The base class of all errors of this package.

    ``exit_status`` is the exit status of the command line: 2 if the job failed before its first block, 1 if
    it failed later and finished blocks are saved.
    """

    exit_status = 2


class BadInput(UrstError, ValueError):
    """A file or an option that was given cannot be used."""


class MissingFile(FileNotFoundError, BadInput):  # this order: dask unpickles with the first __new__ it finds
    """A file that was given does not exist or cannot be read."""


class BadWeights(BadInput):
    """A file of weights has a wrong hash, missing or unknown keys, or tensors of wrong shapes."""


class BadPlan(BadInput):
    """Options are valid alone, but not together."""


class DoesNotFit(BadPlan, MemoryError):
    """The job needs more memory or disk than there is."""


class DamagedFile(UrstError, OSError):
    """The content of a file is truncated, cannot be decoded, or does not match its checksum."""


class DiskFull(UrstError, OSError):
    """A disk became full while writing."""


class JobError(UrstError, RuntimeError):
    """The job folder does not fit this command."""


class JobDiffers(JobError):
    """The job folder holds a job with other inputs or options."""


class JobBusy(JobError):
    """Another process that is still alive is working in the same job folder."""


class BlocksFailed(UrstError, RuntimeError):
    """Some blocks failed repeatedly; the finished ones are saved, and the next call tries again."""

    exit_status = 1


def in_one_line(error: Exception, most: int = 200) -> str:
    """What an error of a library says, in one line of at most so many signs; or else its kind."""
    return " ".join(str(error).split())[:most] or type(error).__name__
