"""Reading a table of jobs, a TOML file such as this::

    output = "stylised/{stem}-{style}.tif"       # {stem} and {folder} of the input, and name of the {style}
    inputs = ["scenes/*.tif", "more/**/*.tif"]
    exclude = ["scenes/cloudy*.tif"]
    styles = ["painting.jpg", "hokusai-wave", {name = "both", mix = [["a.jpg", 2], ["b.jpg", 1]]}]

    [options]                                    # by their names in `Options`
    statistics = "exact"

    [[jobs]]                                     # may be repeated; what is left out is taken from above
    inputs = "scenes/night.tif"
    styles = "starry-night.jpg"
    options = {alpha = 0.7}

There is a job for every input in each of its styles. A folder, or ``@`` and a list of files, is one input:
its files are one image. Without ``[[jobs]]`` the keys at the top describe all jobs. Relative paths start at
the folder of the table. With the option ``mask``, which may be a pattern such as ``"masks/{stem}.png"``, a
style is ``{name = "fields", regions = {1 = "a.jpg", 2 = "b.jpg"}}``.
"""

from __future__ import annotations

import glob
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from string import Formatter
from typing import Any

from urst_tiles.api.output import check_name, written_format
from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.nets.module import is_module
from urst_tiles.options import Options, default_model, from_table, kinds
from urst_tiles.recipe import StyleArgument, pairs_of, recipe_of
from urst_tiles.source.members import is_many
from urst_tiles.storage.names import address, reason, remote_name, require_file
from urst_tiles.workers import queues

GROUP = ("inputs", "exclude", "styles", "output", "options")
TOP = (*GROUP, "jobs")
STYLE = ("name", "mix", "regions")
NAMES = ("stem", "style", "folder")

#: Options that a table may not set, and why.
ELSEWHERE = {
    "job_dir": "each job has its folder beside its output",
    "overwrite": "it is a flag of `urst-tiles run`",
    "tiles": "an output of a table is one file; `urst-tiles stylize --tiles same` writes a folder",
    "each": "an output of a table is one file; `urst-tiles stylize --aoi FILE --each` writes several",
}


@dataclass(frozen=True)
class BatchJob:
    """One job of a table: an input in a style.

    Attributes
    ----------
    input, output : absolute paths.
    style : the style in the form that `stylize` takes.
    style_name : the name of the style, which the name of the output may contain.
    options : all options of the job.
    """

    input: Path
    output: Path
    style: StyleArgument
    style_name: str
    options: Options

    def __str__(self) -> str:
        return f"{self.input} in {self.style_name}"


def read_table(path: str | os.PathLike[str], models: Collection[str] = ()) -> list[BatchJob]:
    """Read all jobs of a table, and check them as far as possible without opening images.

    Parameters
    ----------
    path : the TOML file.
    models : the functions ("package.module:function") that the table may name as networks. A table by itself
        never names code that is run.

    Raises
    ------
    BadInput, MissingFile : if anything is wrong with the table or with the files that it names.
    """
    path = Path(path).absolute()
    require_file(path, "table of jobs")
    try:
        entries = list(_entries(_load(path), path.parent))
        _check_files(entries)
        for entry in entries:
            if entry.options.cluster:
                queues.require(entry.options.cluster)
            _refuse_code(entry.options.model, models)
            recipe_of(entry.style, entry.options)
    except BadInput as error:
        raise type(error)(f"{path}: {error}") from error
    return entries


def _refuse_code(model: str, models: Collection[str]) -> None:
    """Raise BadInput if ``model`` is a function of a user that the caller did not name."""
    if is_module(model) and model not in models:
        raise BadInput(
            f"the table names code, {model!r}, and a table may not do that by itself; if you wrote this"
            f" function or trust it, name it in the call: --model {model}"
        )


def _load(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():  # a pipe into which nobody writes would hang the command
        raise MissingFile("the table is no regular file; name the file that it lies in")
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"this is no TOML ({error})") from None
    except OSError as error:
        raise MissingFile(f"the table cannot be read ({error.strerror})") from None


def _entries(table: Mapping[str, Any], folder: Path) -> Iterator[BatchJob]:
    _check_keys(table, TOP, "the table")
    jobs = table.get("jobs", [{}])
    if not (isinstance(jobs, list) and jobs and all(isinstance(job, dict) for job in jobs)):
        raise BadInput(f"jobs must be one or more tables, got {jobs!r}")
    for job in jobs:
        _check_keys(job, GROUP, "an entry of jobs")
        yield from _group({**table, **job, "options": _options(table) | _options(job)}, folder)


def _options(table: Mapping[str, Any]) -> dict[str, Any]:
    options = table.get("options", {})
    if not isinstance(options, dict):
        raise BadInput(f"options must be a table, got {options!r}")
    return options


def _group(group: Mapping[str, Any], folder: Path) -> Iterator[BatchJob]:
    for name in ("inputs", "output"):
        if name not in group:
            raise BadInput(f"there is no {name}: give it for the whole table, or in each entry of jobs")
    pattern = group["output"]
    if not isinstance(pattern, str):
        raise BadInput(f"output must be a text, got {pattern!r}")
    model = str(group["options"].get("model", default_model()))
    look = group["options"].get("look")
    plain = Path(look).stem if isinstance(look, str) else model
    styles = [_style(one, folder) for one in _list(group, "styles")] or [(plain, None)]
    for input in _inputs(group, folder):
        for style_name, style in styles:
            words = {"stem": input.stem, "style": style_name, "folder": input.parent.name}
            named = filled(pattern, words, "output")
            options = options_from(group["options"], folder, words)
            check_name(named, format=options.format)
            output = _tidy(folder / named)
            if output.is_dir() and written_format(output, options.format).shape != "folder":
                raise BadInput(f"the output {output} is a folder; name a file in it")
            yield BatchJob(input, output, style, style_name, options)


def options_from(values: Mapping[str, Any], folder: Path, words: Mapping[str, str]) -> Options:
    """The options that ``values`` give by name, as TOML has them; ``words`` fill the patterns of masks."""
    for name in values:
        if name in ELSEWHERE:
            raise BadInput(f"leave the option {name} out: {ELSEWHERE[name]}")
    Options.of(None, {name: getattr(Options(), name, None) for name in values})  # refuses unknown names
    values = dict(values)
    for name in ("mask", "valid", "aoi"):
        if isinstance(values.get(name), str):
            values[name] = filled(values[name], words, name)
    return Options(**{name: from_table(name, value, folder) for name, value in values.items()})


def filled(pattern: str, words: Mapping[str, str], what: str) -> str:
    """``pattern`` with ``{stem}``, ``{style}`` and ``{folder}`` replaced by ``words``.

    Raises
    ------
    BadInput : if the pattern has anything but these names in braces, or a name would change the folder, as a
        stem ``..`` does; the message calls the pattern ``what``.
    """
    known = ", ".join(f"{{{one}}}" for one in NAMES)
    try:
        parsed = list(Formatter().parse(pattern))
    except ValueError as error:
        raise BadInput(f"{what} {pattern!r} is no pattern ({error})") from None
    for _, name, form, conversion in parsed:
        if name is None:
            continue
        if name not in words:
            raise BadInput(f"{what} {pattern!r} names {{{name}}}; there are {known}")
        if form or conversion:
            raise BadInput(f"{what} {pattern!r} says how to write {{{name}}}; there are {known} as they are")
        if words[name] in (".", "..") or any(sign in words[name] for sign in "/\0"):
            raise BadInput(
                f"{what} {pattern!r} would lead to another folder, as {{{name}}} is {words[name]!r}; rename"
                f" {'the style' if name == 'style' else 'the file'}, or leave {{{name}}} out"
            )
    return pattern.format(**words)


def _inputs(group: Mapping[str, Any], folder: Path) -> list[Path]:
    """The files that match the patterns of ``inputs`` and not those of ``exclude``, without repetition."""
    left_out = {path for pattern in _list(group, "exclude") for path in _matches(pattern, folder)}
    found: dict[Path, None] = {}
    for pattern in _list(group, "inputs"):
        paths = [path for path in _matches(pattern, folder) if path not in left_out]
        if not paths:
            kind = "no file that is not excluded" if left_out else "no file"
            raise MissingFile(
                address(pattern) or f"{kind} matches the input {pattern!r}{reason(folder / pattern)}"
            )
        found |= dict.fromkeys(paths)
    if not found:
        raise BadInput("inputs names no file")
    return list(found)


def _matches(pattern: Any, folder: Path) -> list[Path]:
    if not isinstance(pattern, str):
        raise BadInput(f"a path or pattern must be a text, got {pattern!r}")
    if remote_name(pattern) and "*" not in pattern:
        return [Path(pattern)]
    if pattern.startswith("@") and not os.path.isfile(folder / pattern):
        return [Path(f"@{_tidy(folder / pattern[1:])}")]
    if os.path.isfile(folder / pattern) or (os.path.isdir(folder / pattern) and is_many(folder / pattern)):
        return [_tidy(folder / pattern)]
    paths = (folder / name for name in sorted(glob.glob(pattern, root_dir=folder, recursive=True)))
    return [_tidy(path) for path in paths if os.path.isfile(path)]


def _tidy(path: Path) -> Path:
    """``path`` without ``..``, unless it would lead elsewhere then, as it may behind a symbolic link."""
    short = os.path.normpath(path)
    return Path(short) if os.path.realpath(short) == os.path.realpath(path) else path


def _style(value: Any, folder: Path) -> tuple[str, StyleArgument]:
    """The name of a style and the style itself, from a text, or from a table with ``mix`` or ``regions``."""
    if isinstance(value, str):
        style = _style_file(value, folder)
        is_path = style != value or os.sep in value
        return (Path(value).stem if is_path else value), style
    if not isinstance(value, dict):
        raise BadInput(f"a style is a text or a table, got {value!r}")
    _check_keys(value, STYLE, "a style")
    mix, regions = value.get("mix"), value.get("regions")
    if not isinstance(value.get("name"), str) or (mix is None) == (regions is None):
        raise BadInput(f"a style as a table has a name, and either mix or regions, got {value!r}")
    try:
        if regions is None:
            return value["name"], [(_style_file(style, folder), float(weight)) for style, weight in mix or ()]
        return value["name"], {int(n): _style_file(style, folder) for n, style in regions.items()}
    except (TypeError, ValueError, AttributeError):
        raise BadInput(
            f"mix is a list of [style, weight], regions a table of number = style, got {value!r}"
        ) from None


def _style_file(style: str, folder: Path) -> str:
    """The path of a style image in ``folder``, or ``style`` as it is if there is no such file."""
    path = folder / style
    return str(_tidy(path)) if os.path.isfile(path) else style


def _list(group: Mapping[str, Any], name: str) -> list[Any]:
    """The values of a key that takes either a value or a list of values."""
    value = group.get(name, [])
    return list(value) if isinstance(value, list) else [value]


def _check_keys(table: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for name in table:
        if name not in known:
            near = get_close_matches(name, [*known, *kinds()], n=1)
            hint = (
                f"; did you mean {near[0]!r}" + (" of options?" if near[0] in kinds() else "?")
                if near
                else ""
            )
            raise BadInput(f"{what} has no key {name!r} (known: {', '.join(known)}){hint}")


def _check_files(entries: Sequence[BatchJob]) -> None:
    """Raise BadInput if two jobs write the same output, or if an output is a file that a job reads."""
    outputs: dict[object, BatchJob] = {}
    for entry in entries:
        other = outputs.setdefault(_same(entry.output), entry)
        if other is not entry:
            raise BadInput(
                f"two jobs write {entry.output}: {other}, and {entry}; tell them apart in output,"
                " by {stem}, {style} or {folder}"
            )
    for path in dict.fromkeys(path for entry in entries for path in (entry.input, *files_named(entry))):
        if _same(path) in outputs:
            raise BadInput(
                f"{path} is read, and is the output of {outputs[_same(path)]}; write into another folder, or"
                " exclude it"
            )


def files_named(entry: BatchJob) -> list[Path]:
    """The files that the style and the mask of a job name, if they exist."""
    options = entry.options
    named = [*(style for style, _ in pairs_of(entry.style)[0]), options.mask, options.valid, options.aoi]
    named.append(options.look)
    return [Path(one).absolute() for one in named if one is not None and os.path.isfile(one)]


def _same(path: Path) -> object:
    """A value that is the same for two paths of the same file, through links too."""
    try:
        state = path.stat()
    except OSError:
        return os.path.realpath(path)
    return state.st_dev, state.st_ino
