"""Where an output may be written, checked before any work begins, and what it says about how it was made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote

from urst_tiles.errors import BadInput
from urst_tiles.job.folder import Job
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.planning import PINNED_LIBRARIES
from urst_tiles.pyramid import validate
from urst_tiles.pyramid.check import is_replaceable
from urst_tiles.pyramid.formats import FORMATS, SUFFIXES, Format, format_of
from urst_tiles.pyramid.jp2 import require_driver
from urst_tiles.pyramid.parts import Parts
from urst_tiles.source.members import own_path, takes_in
from urst_tiles.storage.names import NAME_MAX, address, from_home
from urst_tiles.storage.publish import refuse_special
from urst_tiles.storage.stores import exists, fetched, is_remote, path_of

AnyPath = str | os.PathLike[str]

#: The suffixes of outputs of a job. A name without a suffix is one of a TIFF, as for GDAL.
OUTPUTS = tuple(SUFFIXES)

#: The suffixes of pictures, that is, of previews and contact sheets.
PICTURE = (".png", ".jpg", ".jpeg")

#: The command that makes a file of another suffix from the TIFF ``{tif}``.
CONVERTERS = dict.fromkeys((".jxl", ".avif", ".heic", ".gif", ".ppm"), "vips copy {tif} {name}")


def check_output(
    output: AnyPath,
    *inputs: AnyPath | None,
    suffixes: tuple[str, ...] | None = OUTPUTS,
    makes_folder: bool = False,
    format: str = "auto",
) -> Path:
    """Return the absolute path of the file that is to be written, or raise BadInput if that cannot be done.

    If ``output`` is a symbolic link, that is the file that the link leads to.

    Parameters
    ----------
    output : what the user named.
    inputs : files that are read, or None; the output must be none of them.
    suffixes : the suffixes that the output may have, ``OUTPUTS`` or ``PICTURE``; None if any will do.
    makes_folder : whether the caller makes the folder if it does not exist.
    format : the option of this name, for an output of a job.
    """
    if suffixes is OUTPUTS and (stored := _on_store(output, format)) is not None:
        return stored
    path = check_name(output, suffixes, format)
    try:
        refuse_special(path)
        path = followed(path)
        check_suffix(path, suffixes, format)
        _check_folder(path, makes_folder, suffixes is OUTPUTS and written_format(path, format).shape)
        if suffixes is OUTPUTS:
            _refuse_other_folders(path, written_format(path, format))
        given = [one for one in inputs if one is not None]
        _refuse_among(path, given)
        refuse_inputs(path, (("input", own_path(one)) for one in given))
    except OSError as error:  # names that are too long, folders that may not be searched
        raise BadInput(f"{output} cannot be written: {error.strerror}; choose another output") from None
    return path


def _on_store(output: AnyPath, format: str) -> Path | None:
    """The path of an output on an object store, as ``s3://bucket/out.tif``; None for any other name.

    Raises
    ------
    BadInput : the store cannot be reached, or the format is not written there.
    """
    if not is_remote(output):
        scheme, found, _ = os.fspath(output).partition("://")
        if not found or scheme.lower() in ("http", "https", "file") or not scheme.isidentifier():
            return None
    path = path_of(output)
    check_suffix(path, OUTPUTS, format)
    chosen = written_format(path, format)
    if not chosen.on_stores:
        raise BadInput(
            f"{path}: {chosen.title} is written to a folder of this machine only (TIFF and OME-Zarr to object"
            " stores, too); name a file here, and upload it when it is finished"
        )
    return path


def check_name(output: AnyPath, suffixes: tuple[str, ...] | None = OUTPUTS, format: str = "auto") -> Path:
    """The absolute path of an output, whose name alone is looked at; BadInput if it is no name for one."""
    text = os.fspath(output)
    if said := address(text, output=True):
        raise BadInput(said)
    if not text or "\0" in text:
        raise BadInput(f"the output {text!r} is no name of a file; give one, as out.tif")
    path = Path(text).absolute()
    if os.path.basename(text) in ("", ".", "..") and not _is_folder(text, path, suffixes, format):
        file = path / ("out.tif" if suffixes is OUTPUTS else f"out{(suffixes or ('.txt',))[0]}")
        raise BadInput(f"the output {text} is a folder; name a file in it, as {file}")
    if len(os.fsencode(path.name)) > NAME_MAX:
        raise BadInput(f"the name {path.name} is longer than {NAME_MAX} bytes; give a shorter one")
    check_suffix(path, suffixes, format)
    return path


def _is_folder(text: str, path: Path, suffixes: tuple[str, ...] | None, format: str) -> bool:
    """Whether a name that ends in a slash is that of an output that is a folder, as ``a.ome.zarr/``."""
    chosen = format_of(path, format) if suffixes is OUTPUTS and text.endswith("/") else None
    return chosen is not None and chosen.shape == "folder"


def check_format(chosen: Format, options: Options) -> None:
    """Raise BadInput if options are given that only a TIFF has, and the output is none; or if the format
    cannot be written here."""
    if chosen.tiff:
        return
    if chosen.name == "jp2":
        require_driver()
        if options.job_dir is not None and is_remote(path_of(options.job_dir)):
            raise BadInput(
                f"--job-dir {options.job_dir} is on an object store; JPEG 2000 is made of blocks on a disk"
            )
    default = Options()
    for name in ("compression", "predictor", "bigtiff"):
        given = getattr(options, name)
        if given != getattr(default, name):
            raise BadInput(
                f"--{name} {given} is for TIFFs, and {chosen.title} has its own: leave it out, or name the"
                " output .tif"
            )


def written_format(path: Path, wanted: str = "auto") -> Format:
    """The format of an output whose name was checked; ``wanted`` is the option ``format``."""
    return format_of(path, wanted) or FORMATS["tif"]


def check_suffix(path: Path, suffixes: tuple[str, ...] | None = OUTPUTS, format: str = "auto") -> None:
    """Raise BadInput if the name of ``path`` promises another format than the one that is written."""
    if suffixes is None:
        return
    suffix = path.suffix.lower()
    if suffixes is PICTURE and suffix not in PICTURE:
        raise BadInput(
            f"this picture is a {' or '.join(PICTURE)} file; name it {path.stem}.png, not {path.name}"
        )
    if suffixes is OUTPUTS and format_of(path, format) is None:
        tif = f"{path.name[: len(path.name) - len(suffix)].rstrip('.')}.tif"
        how = CONVERTERS.get(suffix, "gdal_translate {tif} {name}")
        how = how.format(tif=quote(tif), name=quote(path.name))
        raise BadInput(
            f"{path.name} is no name of a format that is written ({', '.join(OUTPUTS)}): name it {tif}, and"
            f" convert it afterwards if need be, as by `{how}`; or give --format"
        )


def _check_folder(output: Path, makes_folder: bool, shape: str | bool = "file") -> None:
    """Raise BadInput if there is no folder for ``output``, or it may not be written, or it is one itself."""
    folder = output.parent
    blocking = next((one for one in output.parents if os.path.lexists(one) and not one.is_dir()), None)
    if makes_folder and not blocking:
        folder = next(one for one in output.parents if one.is_dir())
    if not folder.is_dir():
        why = f": {blocking} is a file and no folder" if blocking else "; make it first"
        raise BadInput(f"there is no folder {folder} to write {output.name} into{from_home(output) or why}")
    if output.is_dir() and shape != "folder":
        raise BadInput(f"the output {output} is a folder; name a file in it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(f"the folder {folder} may not be written; choose another output")


def _refuse_other_folders(output: Path, chosen: Format) -> None:
    """Raise BadInput if a folder that the output would be or needs exists, and holds anything else."""
    for path in (output, *chosen.companions(output)):
        if not is_replaceable(path, chosen):
            raise BadInput(f"{path} is a folder with something else in it; move it away, or choose another")


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
    if is_remote(output) or not os.path.exists(output):
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
    output: Path, job: Job, plan: Plan, parts: Parts, targets: Sequence[Path] | None = None
) -> None:
    """Raise BadInput if the output exists and this job cannot have written it.

    ``targets`` are the files to be written, if these are not the output alone. If the job has made all its
    blocks, it may have written the output before it was killed; assembling then finds out whether it did.
    """
    chosen = FORMATS[plan.format]
    names = targets or (output, *chosen.companions(output), *chosen.sidecars(output))
    there = next((path for path in names if exists(path)), None)
    if there is None:
        return
    more = {*chosen.companions(output), *chosen.sidecars(output)}
    begun = job.identity == dict(plan.identity)
    if not begun:
        raise BadInput(f"{there} exists; give --overwrite to make it anew, or choose another output")
    if there not in more and parts.missing():
        raise BadInput(
            f"{there} exists, and this job, which {job.folder} holds, has not written it: move it away and"
            " give the same command again, or give --overwrite to start anew"
        )


def is_finished(output: Path, job: Job, plan: Plan, targets: Sequence[Path] = ()) -> bool:
    """Whether this same job has written the output, and was killed while it removed its folder.

    ``targets`` are the files of a job that writes one for each feature, as far as they are known.
    """
    if job.ended != dict(plan.identity):
        return False
    if plan.outputs:
        return all(map(exists, targets))  # all were written before the job began to end
    if not exists(output):
        return False
    if is_remote(output) and FORMATS[plan.format].shape == "folder":
        return exists(output / "zarr.json")
    if not is_remote(output) and output.is_dir() and FORMATS[plan.format].tiff:
        return True  # many files: all were written before the job began to end
    report = validate(fetched(output), deep=False)
    return report.valid and report.levels[0] == plan.grid.made.shape


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
