"""Where an output may be written, checked before any work begins, and what it says about how it was made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from shlex import quote

from urst_tiles.errors import BadInput
from urst_tiles.job.folder import Job
from urst_tiles.plan import Plan
from urst_tiles.planning import PINNED_LIBRARIES
from urst_tiles.pyramid.parts import Parts
from urst_tiles.pyramid.validate import validate
from urst_tiles.source.members import own_path, takes_in
from urst_tiles.storage.names import NAME_MAX, address, from_home
from urst_tiles.storage.publish import refuse_special

AnyPath = str | os.PathLike[str]

#: The suffixes of TIFF files. A name without a suffix is one of a TIFF too, as for GDAL.
TIFF = (".tif", ".tiff", ".btf", ".tf8", ".tf2")

#: The suffixes of pictures, that is, of previews and contact sheets.
PICTURE = (".png", ".jpg", ".jpeg")

#: The command that makes a file of another suffix from the TIFF ``{tif}``.
CONVERTERS = {
    **dict.fromkeys(
        (".png", ".jpg", ".jpeg", ".webp", ".jp2", ".jxl", ".avif", ".heic", ".gif", ".ppm"),
        "vips copy {tif} {name}",
    ),
    ".dzi": "vips dzsave {tif} {name}",
    ".zarr": "gdal_translate -of Zarr {tif} {name}",
    ".ome.zarr": "bioformats2raw {tif} {name}",
    **dict.fromkeys((".ome.tif", ".ome.tiff", ".ome.tf2", ".ome.tf8", ".ome.btf"), "bfconvert {tif} {name}"),
}  # fmt: skip


def check_output(
    output: AnyPath,
    *inputs: AnyPath | None,
    suffixes: tuple[str, ...] | None = TIFF,
    makes_folder: bool = False,
) -> Path:
    """Return the absolute path of the file that is to be written, or raise BadInput if that cannot be done.

    If ``output`` is a symbolic link, that is the file that the link leads to.

    Parameters
    ----------
    output : what the user named.
    inputs : files that are read, or None; the output must be none of them.
    suffixes : the suffixes that the output may have, ``TIFF`` or ``PICTURE``; None if any will do.
    makes_folder : whether the caller makes the folder if it does not exist.
    """
    path = check_name(output, suffixes)
    try:
        refuse_special(path)
        path = followed(path)
        check_suffix(path, suffixes)
        _check_folder(path, makes_folder)
        given = [one for one in inputs if one is not None]
        _refuse_among(path, given)
        refuse_inputs(path, (("input", own_path(one)) for one in given))
    except OSError as error:  # names that are too long, folders that may not be searched
        raise BadInput(f"{output} cannot be written: {error.strerror}; choose another output") from None
    return path


def check_name(output: AnyPath, suffixes: tuple[str, ...] | None = TIFF) -> Path:
    """The absolute path of an output, whose name alone is looked at; BadInput if it is no name for one."""
    text = os.fspath(output)
    if said := address(text, output=True):
        raise BadInput(said)
    if not text or "\0" in text:
        raise BadInput(f"the output {text!r} is no name of a file; give one, as out.tif")
    path = Path(text).absolute()
    if os.path.basename(text) in ("", ".", ".."):
        file = path / f"out{(suffixes or ('.txt',))[0]}"
        raise BadInput(f"the output {text} is a folder; name a file in it, as {file}")
    if len(os.fsencode(path.name)) > NAME_MAX:
        raise BadInput(f"the name {path.name} is longer than {NAME_MAX} bytes; give a shorter one")
    check_suffix(path, suffixes)
    return path


def check_suffix(path: Path, suffixes: tuple[str, ...] | None = TIFF) -> None:
    """Raise BadInput if the name of ``path`` promises another format than the one that is written."""
    if suffixes is None:
        return
    suffix = path.suffix.lower()
    if suffixes is PICTURE and suffix not in PICTURE:
        raise BadInput(
            f"this picture is a {' or '.join(PICTURE)} file; name it {path.stem}.png, not {path.name}"
        )
    pair = "".join(path.suffixes[-2:]).lower()
    suffix = pair if pair in CONVERTERS else suffix
    if suffixes is TIFF and suffix not in TIFF and (suffix or path.name.endswith(".")):
        tif = f"{path.name[: len(path.name) - len(suffix)].rstrip('.')}.tif"
        how = CONVERTERS.get(suffix, "gdal_translate {tif} {name}")
        how = how.format(tif=quote(tif), name=quote(path.name))
        raise BadInput(
            f"the output is a TIFF, and {path.name} is no name of one: name it {tif}, and convert it"
            f" afterwards if need be, as by `{how}`"
        )


def _check_folder(output: Path, makes_folder: bool) -> None:
    """Raise BadInput if there is no folder for ``output``, or it may not be written, or it is one itself."""
    folder = output.parent
    blocking = next((one for one in output.parents if os.path.lexists(one) and not one.is_dir()), None)
    if makes_folder and not blocking:
        folder = next(one for one in output.parents if one.is_dir())
    if not folder.is_dir():
        why = f": {blocking} is a file and no folder" if blocking else "; make it first"
        raise BadInput(f"there is no folder {folder} to write {output.name} into{from_home(output) or why}")
    if output.is_dir():
        raise BadInput(f"the output {output} is a folder; name a file in it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(f"the folder {folder} may not be written; choose another output")


def _refuse_among(output: Path, inputs: Iterable[AnyPath]) -> None:
    """Raise BadInput if ``output`` would be one of the many files that an input stands for."""
    for name in inputs:
        if takes_in(name, output):
            raise BadInput(
                f"the output {output} lies among the files of the input {name}, and would be taken for one of"
                " them the next time; write it into another folder"
            )


def refuse_inputs(output: Path, inputs: Iterable[tuple[str, Path]]) -> None:
    """Raise BadInput if ``output`` is one of the files that are read, under whatever name.

    ``inputs`` are pairs of what a file is, in words, and its path; it need not exist.
    """
    if not os.path.exists(output):
        return
    for what, path in inputs:
        if os.path.exists(path) and os.path.samefile(output, path):
            also = "" if path.absolute() == output else f" ({path})"
            raise BadInput(f"output and {what} are the same file {output}{also}; choose another output")


def followed(output: Path) -> Path:
    """The file that a symbolic link leads to; any other path as it is. BadInput if the link is a circle."""
    if not output.is_symlink():
        return output
    target = Path(os.path.realpath(output))
    if target.is_symlink():
        raise BadInput(f"the output {output} is a symbolic link that leads in a circle; remove it")
    return target


def refuse_existing(
    output: Path, job: Job, plan: Plan, parts: Parts, targets: Iterable[Path] | None = None
) -> None:
    """Raise BadInput if the output exists and this job cannot have written it.

    ``targets`` are the files to be written, if these are not the output alone. If the job has made all its
    blocks, it may have written the output before it was killed; assembling then finds out whether it did.
    """
    output = next((one for one in targets or (output,) if os.path.lexists(one)), output)
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
    if job.ended != dict(plan.identity) or not output.exists():
        return False
    if output.is_dir():  # all its files were written before the job began to end
        return True
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
