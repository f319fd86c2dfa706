"""The weights of the models: where their files come from, and how they are checked and loaded.

The weights folder holds a subfolder per model with the original file names. Each file's hash is checked
before it is loaded. Only tensors are read: of safetensors, of PyTorch files by ``torch.load`` with
``weights_only=True``, which runs no code of the file, and of ONNX files (`onnx_tensors`).
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile, is_zipfile

from urst_tiles.errors import BadWeights, MissingFile, UrstError
from urst_tiles.progress import Progress, silent
from urst_tiles.storage.names import address, reason, require_file
from urst_tiles.storage.publish import publish
from urst_tiles.storage.stores import utf8_name
from urst_tiles.weights.table import TABLE, TRAINED, WeightFile, Weights

if TYPE_CHECKING:
    from torch import Tensor

#: Name of the file, in a model's folder, in which ``add`` records the hashes of files that have no published
#: hash.
MANIFEST = "SHA256SUMS.json"

#: A PyTorch file may unpack to so many times its size: torch stores plainly, other programs may pack tensors.
MOST_UNPACKED = 10


def entry(model: str) -> Weights:
    """The table's row of a model; BadWeights for an unknown model."""
    if model not in TABLE:
        raise BadWeights(f"there is no model {model!r}; --model must be one of {', '.join(TABLE)}")
    return TABLE[model]


#: The home of a user who has none: not even root can make a folder there.
NO_HOME = Path("/dev/null")


def home() -> Path:
    """The user's home folder; ``NO_HOME`` for a user without an entry in the password file and without
    HOME."""
    try:
        return Path.home()
    except RuntimeError:
        return NO_HOME


def cache_folder() -> Path:
    """The folder for a user's caches on this platform, followed by ``urst-tiles/weights``."""
    if sys.platform == "darwin":
        base = home() / "Library" / "Caches"
    elif os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache")
    return base / "urst-tiles" / "weights"


def _to_write(model: str, given: Path | None) -> Path:
    """The folder of ``model``, made; MissingFile where there is no home to make it in."""
    where = model_folder(model, given)
    if NO_HOME in where.parents:
        raise MissingFile("this user has no home folder; give --weights a folder, or set URST_TILES_WEIGHTS")
    where.mkdir(parents=True, exist_ok=True)
    return where


def folder(given: Path | None = None) -> Path:
    """The weights folder: ``given`` (--weights), or URST_TILES_WEIGHTS, or the user's cache, the first that
    is set.

    Raises
    ------
    MissingFile : it is no folder, and its name is an address.
    """
    where = Path(given or os.environ.get("URST_TILES_WEIGHTS") or cache_folder())
    if not where.is_dir() and (said := address(where)):
        raise MissingFile(said)
    return where


def model_folder(model: str, given: Path | None = None) -> Path:
    """The folder with the files of ``model``."""
    return folder(given) / (entry(model).subfolder or model)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded(where: Path) -> dict[str, str]:
    """The hashes, by file name, that ``add`` recorded in the folder of a model.

    Raises
    ------
    BadWeights : the record is damaged.
    """
    manifest = where / MANIFEST
    if not manifest.exists():
        return {}
    try:
        content = json.loads(manifest.read_text("utf-8"))
    except ValueError as error:
        raise BadWeights(
            f"{manifest} is not valid JSON; remove it and run `urst-tiles weights add` again"
        ) from error
    return {str(name): str(value) for name, value in content.items()}


def find(model: str, given: Path | None = None) -> dict[str, Path]:
    """The path of every file of ``model``, by its name, after a check of its hash.

    Raises
    ------
    MissingFile : a file does not exist; the message says how to get it.
    BadWeights : a hash is wrong, or unknown because the file was never added.
    """
    where, row = model_folder(model, given), entry(model)
    recorded_hashes = recorded(where)
    paths = {}
    for file in row.files:
        path = where / file.name
        if row.shipped and not path.is_file():
            paths[file.name] = TRAINED / file.name
            continue
        if not path.is_file():
            inside = f"{where.name}/{file.name}"
            get = f"fetch {model}" if file.sha256 or file.url else f"add {model} {file.name}"
            how = f"run `urst-tiles weights {get}`, or give --weights a folder with {inside}"
            raise MissingFile(f"{path} is missing{reason(path)}; {how}")
        expected = file.sha256 or recorded_hashes.get(file.name)
        if expected is None:
            raise BadWeights(
                f"{path} has no known hash; run `urst-tiles weights add {model} FILE...` once to record it"
            )
        check_hash(path, expected)
        paths[file.name] = path
    return paths


def hashes(model: str, given: Path | None = None) -> dict[str, str]:
    """The hex SHA-256 of every file of a model by its name; empty for a model that the table does not have.

    Published and recorded hashes are not computed again: no file is loaded that has another.
    """
    if model not in TABLE:
        return {}
    where, row = model_folder(model, given), entry(model)
    known = recorded(where)
    found = {}
    for file in row.files:
        path = where / file.name if (where / file.name).is_file() else TRAINED / file.name
        shipped = row.shipped and path.parent == TRAINED
        found[file.name] = (not shipped and (file.sha256 or known.get(file.name))) or sha256_of(path)
    return found


def describe(model: str, given: Path | None = None) -> str:
    """A line about a model: whether its files exist, its licence and their source."""
    row, where = entry(model), model_folder(model, given)
    count = sum((where / file.name).is_file() for file in row.files)
    state = f"{count} of {len(row.files)} files there" if row.files else "needs no files"
    if row.shipped and not count:
        state = "comes with the package"
    return f"{model:12} {state}; {row.licence}; {row.source}"


def check_hash(path: Path, expected: str) -> None:
    """Raise BadWeights unless the file's SHA-256 is ``expected``."""
    got = sha256_of(path)
    if got != expected:
        raise BadWeights(f"{path} has sha256 {got}, expected {expected}; fetch it again")


def add(model: str, files: Mapping[str, Path], given: Path | None = None) -> list[Path]:
    """Copy files into the weights folder, and record the hashes of files that have no published hash.

    If a model has a single file, which is the user's own, a file of any name becomes it: its tensors are
    written as safetensors.

    Parameters
    ----------
    model : name of the model.
    files : maps the original name of each file to its present path.
    given : the weights folder, as in `folder`.

    Returns
    -------
    The paths of the copies.

    Raises
    ------
    MissingFile : a file does not exist.
    BadWeights : the model has no file of that name, or a file's hash differs from the published hash.
    """
    row, where = entry(model), model_folder(model, given)
    names = {file.name: file for file in row.files}
    only = _as_only_file(row, files)
    for name, path in () if only else files.items():
        if name not in names:
            raise BadWeights(f"{model} has no file {name}; its files are {', '.join(names)}")
        require_file(path)
        if names[name].sha256:
            check_hash(path, str(names[name].sha256))
    where = _to_write(model, given)
    known, added = recorded(where), []
    for name in only or files:
        publish(where / name, only[name] if only else files[name].read_bytes())
        if not names[name].sha256:
            known[name] = sha256_of(where / name)
        added.append(where / name)
    if known:
        publish(where / MANIFEST, json.dumps(known, indent=1, sort_keys=True).encode())
    return added


def _as_only_file(row: Weights, files: Mapping[str, Path]) -> dict[str, bytes]:
    """The only file of a model made of the only file that is given under another name; else nothing."""
    if len(row.files) != 1 or len(files) != 1 or row.files[0].sha256 or row.files[0].name in files:
        return {}
    from safetensors.torch import save

    tensors = load(next(iter(files.values())))
    return {row.files[0].name: save({name: tensor.contiguous() for name, tensor in tensors.items()})}


def fetch(model: str, given: Path | None = None, progress: Progress = silent) -> list[Path]:
    """Download the missing files of a model, and return the paths of all its files.

    Raises
    ------
    BadWeights : a missing file has no published hash, so that nothing could be checked; or a hash is wrong.
    MissingFile : a download failed.
    """
    row, where = entry(model), model_folder(model, given)
    if row.shipped:
        return list(find(model, given).values())
    blind = [file for file in row.files if not file.sha256 and not (where / file.name).is_file()]
    if blind:
        links = " and ".join(dict.fromkeys(file.url for file in blind if file.url))
        names = ", ".join(file.name for file in blind)
        get = (
            f"has no published hash to check; download its files ({names}; from {links}) yourself, then"
            if links
            else "is a file of yours;"
        )
        raise BadWeights(f"{model} {get} run `urst-tiles weights add {model} FILE...`")
    where = _to_write(model, given)
    for done, file in enumerate(row.files):
        progress("fetching", done, len(row.files))
        target = where / file.name
        if target.is_file() and sha256_of(target) == file.sha256:
            continue
        _download(file, target)
    progress("fetching", len(row.files), len(row.files))
    return [where / file.name for file in row.files]


def _download(file: WeightFile, target: Path) -> None:
    """Download a file under a temporary name, take it out of its archive, check its hash, and rename it."""
    import urllib.request  # not at the top, where it would make every command start later

    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with urllib.request.urlopen(file.url, timeout=60) as answer, open(beside, "wb") as out:
            shutil.copyfileobj(answer, out)
        if file.member:
            beside.write_bytes(_member(beside, file))
        check_hash(beside, str(file.sha256))
        os.replace(beside, target)
    except BadWeights:
        raise
    except OSError as error:
        raise MissingFile(f"{file.url} could not be fetched to {target}: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _member(archive: Path, file: WeightFile) -> bytes:
    """The content of a file that is a part of the zip archive at its address."""
    try:
        _check_zip(archive)
        with ZipFile(archive) as parts:
            return parts.read(file.member)
    except (BadZipFile, KeyError, NotImplementedError, RuntimeError, zlib.error) as error:
        said = f"is no archive with {file.member} in it"
        raise BadWeights(f"{file.url} {said}: {_first_line(error)}") from error


def load(path: Path, inside: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors, PyTorch or ONNX file by name, on the CPU.

    ``inside`` names the entry of a PyTorch checkpoint that holds the tensors.

    Raises
    ------
    MissingFile : the file does not exist.
    BadWeights : the file holds anything but tensors, for example a pickle with code.
    """
    import warnings

    import torch
    from safetensors.torch import load_file

    from urst_tiles.weights import onnx_tensors

    require_file(path)
    try:
        if path.suffix == ".safetensors":
            with utf8_name(path) as name:
                state: Any = load_file(name)
        elif path.suffix == ".onnx":
            state = onnx_tensors.read(path)
        else:
            _check_zip(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about old protocols; what is unreadable raises
                state = torch.load(path, map_location="cpu", weights_only=True)
        if inside is not None and isinstance(state, Mapping):
            state = state.get(inside)
    except pickle.UnpicklingError as error:  # torch's own words advise to run the code in the file
        said = "it is no checkpoint of PyTorch, or holds more than tensors"
        raise BadWeights(f"{path} holds no plain tensors: {said}") from error
    except Exception as error:  # damage makes torch and pickle raise nearly anything
        raise BadWeights(f"{path} holds no plain tensors: {_first_line(error)}") from error
    if not isinstance(state, Mapping) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise BadWeights(f"{path} must hold one dictionary of tensors, got {type(state).__name__}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not _is_plain(tensor):
            raise BadWeights(f"{path} holds no plain tensors: {name!r} is {tensor.dtype}, {tensor.layout}")
    return dict(state)


def _check_zip(path: Path) -> None:
    """Verify the checksums of a zip archive, as PyTorch's files are since version 1.6: torch does not.

    Raises
    ------
    BadZipFile, NotImplementedError : the archive is damaged, or unpacks to far more than its own size.
    """
    if not is_zipfile(path):
        return
    with ZipFile(path) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked > MOST_UNPACKED * path.stat().st_size:
            raise BadZipFile(f"it would unpack to {unpacked} bytes, far more than its own size")
        damaged = archive.testzip()
    if damaged is not None:
        raise BadZipFile(f"its part {damaged!r} fails its checksum")


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor holds its numbers itself, real ones."""
    import torch

    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_complex() or tensor.is_quantized)
    )


@contextmanager
def as_bad_weights(path: Path | str) -> Iterator[None]:
    """Report as BadWeights whatever reading tensors of unexpected names and shapes raises."""
    try:
        yield
    except UrstError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise BadWeights(f"{path} has not the tensors of this network: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def check_keys(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], path: Path | str) -> None:
    """Raise BadWeights unless ``state`` has exactly the keys and shapes of ``shapes``."""
    missing, extra = sorted(set(shapes) - set(state)), sorted(set(state) - set(shapes))
    if missing or extra:
        parts = [f"misses {_few(missing)}" if missing else "", f"has unknown {_few(extra)}" if extra else ""]
        raise BadWeights(f"{path} {' and '.join(p for p in parts if p)}")
    for key, shape in shapes.items():
        if tuple(state[key].shape) != tuple(shape):
            raise BadWeights(f"{path}: {key} has shape {tuple(state[key].shape)}, expected {tuple(shape)}")


def _few(names: list[str]) -> str:
    """At most three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
