"""Where an output may be written, checked before any work begins."""

from __future__ import annotations

import os
from pathlib import Path

from urst_tiles.errors import BadInput
from urst_tiles.job.folder import Job
from urst_tiles.options import Options
from urst_tiles.plan import Plan

#: The most bytes that the name of an output may have. File systems take 255, and the temporary files beside
#: the output have longer names.
LONGEST_NAME = 240


def check_output(output: Path, input: Path) -> Path:
    """Return ``output`` if a file can be written there; raise BadInput otherwise."""
    folder = output.parent
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder} to write {output.name} into; make it first")
    if output.is_dir():
        raise BadInput(f"the output {output} is a folder; name a file")
    if len(os.fsencode(output.name)) > LONGEST_NAME:
        raise BadInput(f"the name {output.name} is longer than {LONGEST_NAME} bytes; give a shorter one")
    if output.exists() and input.exists() and output.samefile(input):
        raise BadInput(f"input and output are the same file {input}; choose another output")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"the folder {folder} may not be written; choose another output")
    return output


def refuse_existing(output: Path, job: Job, plan: Plan, options: Options) -> None:
    """Raise BadInput if the output exists and may not be replaced.

    It is replaced with the option ``overwrite``, and if this same job wrote it and was killed before it
    removed the job folder.
    """
    if output.exists() and not options.overwrite and job.identity != dict(plan.identity):
        raise BadInput(f"{output} exists; give --overwrite to make it anew, or choose another output")
