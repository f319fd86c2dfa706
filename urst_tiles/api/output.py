"""Where an output may be written, checked before any work begins, and what it says about how it was made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from urst_tiles.errors import BadInput
from urst_tiles.job.folder import Job
from urst_tiles.plan import Plan
from urst_tiles.planning import PINNED_LIBRARIES
from urst_tiles.pyramid.parts import Parts
from urst_tiles.pyramid.validate import validate
from urst_tiles.storage.publish import refuse_special

#: The most bytes that the name of an output may have. File systems take 255, and the job folder beside the
#: output has a longer name.
LONGEST_NAME = 240


def check_output(output: Path, input: Path) -> Path:
    """Return the file that is to be written, or raise BadInput if that cannot be done.

    It is ``output``, or if that is a symbolic link, the file that the link leads to.
    """
    if len(os.fsencode(output.name)) > LONGEST_NAME:
        raise BadInput(f"the name {output.name} is longer than {LONGEST_NAME} bytes; give a shorter one")
    refuse_special(output)
    output = followed(output)
    folder = output.parent
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder} to write {output.name} into; make it first")
    if output.is_dir():
        raise BadInput(f"the output {output} is a folder; name a file")
    if output.exists() and input.exists() and output.samefile(input):
        raise BadInput(f"input and output are the same file {input}; choose another output")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"the folder {folder} may not be written; choose another output")
    return output


def followed(output: Path) -> Path:
    """The file that a symbolic link leads to; any other path as it is. BadInput if the link is a circle."""
    if not output.is_symlink():
        return output
    target = Path(os.path.realpath(output))
    if target.is_symlink():
        raise BadInput(f"the output {output} is a symbolic link that leads in a circle; remove it")
    return target


def refuse_existing(output: Path, job: Job, plan: Plan, parts: Parts) -> None:
    """Raise BadInput if the output exists and this job cannot have written it.

    If the job has made all its blocks, it may have written the output before it was killed; assembling then
    finds out whether it did.
    """
    if not os.path.lexists(output):
        return
    begun = job.identity == dict(plan.identity)
    if not begun:
        raise BadInput(f"{output} exists; give --overwrite to make it anew, or choose another output")
    if parts.missing():
        raise BadInput(
            f"{output} exists, and this job, which {job.folder} holds, has not written it: move it away and"
            " give the same command again, or give --overwrite to start anew"
        )


def is_finished(output: Path, job: Job, plan: Plan) -> bool:
    """Whether this same job has written the output, and was killed while it removed its folder."""
    if job.ended != dict(plan.identity) or not output.is_file():
        return False
    report = validate(output, deep=False)
    return report.valid and report.levels[0] == (plan.grid.height, plan.grid.width)


def provenance(identity: Mapping[str, str]) -> str | None:
    """What made an output, as text in JSON; None if the job was asked to keep it to itself.

    It has the version of this program, the model, the SHA-256 of each file of its weights, the styles (name
    and SHA-256 of the image), the fingerprint of the source, the versions of the libraries that decide bytes,
    and under ``options`` all else that the identity of the plan holds: equal jobs tell the same, and it names
    no time, no host and no folder. It is what ``urst-tiles run`` keeps in its record of the output.
    """
    facts = dict(identity)
    if facts.pop("provenance", "no") != "yes":
        return None
    made: dict[str, object] = {name: facts.pop(name, "") for name in ("urst-tiles", "model", "source")}
    made |= {name: json.loads(facts.pop(name, "null")) for name in ("weights", "styles")}
    made["libraries"] = {name: facts.pop(name) for name in PINNED_LIBRARIES if name in facts}
    return json.dumps(made | {"options": facts}, sort_keys=True)


def software(identity: Mapping[str, str]) -> str | None:
    """The name and version of this program for the tag Software; None as for `provenance`."""
    if identity.get("provenance") != "yes":
        return None
    return f"urst-tiles {identity.get('urst-tiles', '')}".strip()
