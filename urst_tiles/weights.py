"""Weights: where each model's files come from, and that nothing loads before its hash is right.

A folder holds one subfolder per model with the original file names. Tensors only: safetensors, or
``torch.load`` with ``weights_only=True``, which runs no code of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urst_tiles.errors import BadWeights, MissingFile
from urst_tiles.files import publish
from urst_tiles.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor

#: Hashes of files whose published hash is unknown, recorded by ``add`` beside them.
MANIFEST = "SHA256SUMS.json"

_MICROAST = (
    "https://raw.githubusercontent.com/EndyWon/MicroAST/5a6c9050d8c408191cb9db12c697f3e4c7ebe137/models/"
)
_WCT16 = (
    "https://raw.githubusercontent.com/MingSun-Tse/Collaborative-Distillation/"
    "4a269dc90020721ef9b279b2926c62f5bcd6d209/trained_models/"
)
_ADAIN = "https://github.com/naoto0804/pytorch-AdaIN/releases/download/v0.0.0/"


@dataclass(frozen=True)
class WeightFile:
    """One file: its name, its sha256 (None where nobody published it), where it can be fetched."""

    name: str
    sha256: str | None
    url: str


@dataclass(frozen=True)
class Weights:
    """The files of one model."""

    model: str
    files: tuple[WeightFile, ...]
    licence: str
    source: str
    #: Whether the package brings them; files of one's own in the weights folder come first.
    shipped: bool = False
    #: Subfolder of the weights folder, where it is not called as the model.
    subfolder: str = ""
    #: The entry of a file that holds its tensors; empty where they are the file.
    inside: str = ""


#: What we trained ourselves, in the package.
TRAINED = Path(__file__).parent / "trained"


TABLE: dict[str, Weights] = {
    "lite": Weights(
        "lite",
        (WeightFile("lite.safetensors", None, ""),),
        licence="Apache-2.0",
        source="ours, see design/lite.md",
        shipped=True,
    ),
    "microast": Weights(
        "microast",
        (
            WeightFile(
                "content_encoder_iter_160000.pth.tar",
                "c8d895c0eec52507c157e102fab217c37f0c399ef3e168ef8b0b2677714660a4",
                _MICROAST + "content_encoder_iter_160000.pth.tar",
            ),
            WeightFile(
                "style_encoder_iter_160000.pth.tar",
                "94f6b3fa386828692c20809a0af8bd0eba9c04e90a7d8842086976e4d223c5af",
                _MICROAST + "style_encoder_iter_160000.pth.tar",
            ),
            WeightFile(
                "modulator_iter_160000.pth.tar",
                "8588055baf7d5ad8398d595d5518c6f030e3ff8dbb6007a7c1779776e11da28b",
                _MICROAST + "modulator_iter_160000.pth.tar",
            ),
            WeightFile(
                "decoder_iter_160000.pth.tar",
                "32e04a46b953fd9f94ec9e20f351511305a5260e000c18f9aef6570d5f1e23d9",
                _MICROAST + "decoder_iter_160000.pth.tar",
            ),
        ),
        licence="MIT",
        source="EndyWon/MicroAST at 5a6c9050",
    ),
    "adain": Weights(
        "adain",
        (
            WeightFile("vgg_normalised.pth", None, _ADAIN + "vgg_normalised.pth"),
            WeightFile("decoder.pth", None, _ADAIN + "decoder.pth"),
        ),
        licence="MIT (naoto0804/pytorch-AdaIN); the VGG-19 weights in it CC-BY 4.0",
        source="naoto0804/pytorch-AdaIN release v0.0.0",
    ),
    "fast": Weights("fast", (), licence="each checkpoint's own", source="--style CHECKPOINT.pth"),
    "cin": Weights(
        "cin",
        (WeightFile("cin.safetensors", None, ""),),
        licence="each checkpoint's own",
        source="a file of your own, laid out as urst_tiles/nets/cin.py says",
    ),
    "multimodal": Weights("multimodal", (), licence="each checkpoint's own", source="--style CHECKPOINT.pth"),
    "msgnet": Weights(
        "msgnet",
        (
            WeightFile(
                "21styles.model", None, "https://github.com/zhanghang1989/PyTorch-Multi-Style-Transfer"
            ),
        ),
        licence="MIT",
        source="zhanghang1989/PyTorch-Multi-Style-Transfer",
    ),
    **{
        f"linear-{layer}": Weights(
            f"linear-{layer}",
            tuple(
                WeightFile(name, None, "https://github.com/sunshineatnoon/LinearStyleTransfer")
                for name in (f"vgg_{layer}.pth", f"dec_{layer}.pth", f"{layer}.pth")
            ),
            licence="BSD-2-Clause; the VGG-19 weights in it CC-BY 4.0",
            source="sunshineatnoon/LinearStyleTransfer",
        )
        for layer in ("r31", "r41")
    },
    "wct": Weights(
        "wct",
        tuple(
            WeightFile(f"{name}_conv{k}_1.pth", None, "https://github.com/sunshineatnoon/PytorchWCT")
            for k in (5, 4, 3, 2, 1)
            for name in ("vgg_normalised", "feature_invertor")
        ),
        licence="BSD-2-Clause (Yijunmaverick/UniversalStyleTransfer); the VGG-19 weights in it CC-BY 4.0",
        source="sunshineatnoon/PytorchWCT, each .t7 as a state of conv0, conv11, ...",
    ),
    "wct-16x": Weights(
        "wct-16x",
        (
            WeightFile(
                "5SE.pth",
                "9417c34d0d8d621bc6af78be745f1b8d30f5f210efa01e50655c60eb3770816b",
                _WCT16 + "wct_se_16x_new/5SE.pth",
            ),
            WeightFile(
                "5SD.pth",
                "17fd0f81622f01366eb21cb4d40140ee38cf988ed6eaf266629709c397a8b485",
                _WCT16 + "wct_se_16x_new_sd/5SD.pth",
            ),
            WeightFile(
                "4SE.pth",
                "d2f059cbcd6669556a43aadef58d20c8b280462c18b60a9e7424a14dd271cd6b",
                _WCT16 + "wct_se_16x_new/4SE.pth",
            ),
            WeightFile(
                "4SD.pth",
                "902f65e2c6033d803d02df552eb898e5985190a7ae67d155e384826eec6f04cb",
                _WCT16 + "wct_se_16x_new_sd/4SD.pth",
            ),
            WeightFile(
                "3SE.pth",
                "269cdd0e2634e3e1e5d3005b9e7eca0f4cc8077653fee1ac8c0cf1cbe9ab8758",
                _WCT16 + "wct_se_16x_new/3SE.pth",
            ),
            WeightFile(
                "3SD.pth",
                "005faba27859435762a8a9386116c00629cd8835a01617d0a71defa577c42174",
                _WCT16 + "wct_se_16x_new_sd/3SD.pth",
            ),
            WeightFile(
                "2SE.pth",
                "cb654af6bae77176f8c7721c965483e865b987f2f1612dda1ba0d0b5c3819a61",
                _WCT16 + "wct_se_16x_new/2SE.pth",
            ),
            WeightFile(
                "2SD.pth",
                "94dd26f0e69857f79bf284a43a3708aa05c09c2593427c7f6e400ad12ce314e6",
                _WCT16 + "wct_se_16x_new_sd/2SD.pth",
            ),
            WeightFile(
                "1SE.pth",
                "f74755a65164a88e0db8cbb7d99d7078b9fa505df0953fac5123bfc7c84e0ea4",
                _WCT16 + "wct_se_16x_new/1SE.pth",
            ),
            WeightFile(
                "1SD.pth",
                "05f26ad40044c019da0cf731372d5bd2ee4b477825c7f45508da70b1cd5a95fd",
                _WCT16 + "wct_se_16x_new_sd/1SD.pth",
            ),
        ),
        licence="MIT",
        source="MingSun-Tse/Collaborative-Distillation at 4a269dc9",
        subfolder="collaborative_wct",
        inside="model",
    ),
    "identity": Weights("identity", (), licence="none needed", source="none"),
}


def entry(model: str) -> Weights:
    """The table's row; BadWeights for an unknown model."""
    if model not in TABLE:
        raise BadWeights(f"there is no model {model!r}; --model must be one of {', '.join(TABLE)}")
    return TABLE[model]


def cache_folder() -> Path:
    """Where this platform keeps a user's caches, plus ``urst-tiles/weights``."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "urst-tiles" / "weights"


def folder(given: Path | None = None) -> Path:
    """The weights folder: ``given`` (--weights), else URST_TILES_WEIGHTS, else the user's cache."""
    return Path(given or os.environ.get("URST_TILES_WEIGHTS") or cache_folder())


def place(model: str, given: Path | None = None) -> Path:
    """Where the files of ``model`` lie."""
    return folder(given) / (entry(model).subfolder or model)


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded(where: Path) -> dict[str, str]:
    """Hashes that ``add`` wrote beside the files of one model."""
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
    """File name -> path for every file of ``model``, each with the right hash.

    Raises
    ------
    MissingFile : a file is not there; says how to get it.
    BadWeights : a hash is wrong, or unknown because the file was never added.
    """
    where, row = place(model, given), entry(model)
    known = recorded(where)
    found = {}
    for file in row.files:
        path = where / file.name
        if row.shipped and not path.is_file():
            found[file.name] = TRAINED / file.name
            continue
        if not path.is_file():
            inside = f"{where.name}/{file.name}"
            get = f"fetch {model}" if file.sha256 or file.url else f"add {model} {file.name}"
            how = f"run `urst-tiles weights {get}`, or give --weights a folder with {inside}"
            raise MissingFile(f"{path} is missing; {how}")
        expected = file.sha256 or known.get(file.name)
        if expected is None:
            raise BadWeights(
                f"{path} has no known hash; run `urst-tiles weights add {model} FILE...` once to record it"
            )
        check_hash(path, expected)
        found[file.name] = path
    return found


def describe(model: str, given: Path | None = None) -> str:
    """One line: the model, whether its files are there, its licence and where they come from."""
    row, where = entry(model), place(model, given)
    there = sum((where / file.name).is_file() for file in row.files)
    state = f"{there} of {len(row.files)} files there" if row.files else "needs no files"
    if row.shipped and not there:
        state = "comes with the package"
    return f"{model:12} {state}; {row.licence}; {row.source}"


def check_hash(path: Path, expected: str) -> None:
    """BadWeights unless the file's sha256 is ``expected``."""
    got = sha256_of(path)
    if got != expected:
        raise BadWeights(f"{path} has sha256 {got}, expected {expected}; fetch it again")


def add(model: str, files: Mapping[str, Path], given: Path | None = None) -> list[Path]:
    """Copy files into the weights folder and record the hash of those whose published hash is unknown.

    ``files`` maps the original name to where the file is now. A file with a known hash must have it.
    """
    row, where = entry(model), place(model, given)
    names = {file.name: file for file in row.files}
    for name, path in files.items():
        if name not in names:
            raise BadWeights(f"{model} has no file {name}; its files are {', '.join(names)}")
        if not path.is_file():
            raise MissingFile(f"{path} is missing")
        if names[name].sha256:
            check_hash(path, str(names[name].sha256))
    where.mkdir(parents=True, exist_ok=True)
    known, added = recorded(where), []
    for name, path in files.items():
        publish(where / name, path.read_bytes())
        if not names[name].sha256:
            known[name] = sha256_of(where / name)
        added.append(where / name)
    if known:
        publish(where / MANIFEST, json.dumps(known, indent=1, sort_keys=True).encode())
    return added


def fetch(model: str, given: Path | None = None, progress: Progress = silent) -> list[Path]:
    """Download what is missing; BadWeights where a file has no published hash, since nothing could be
    checked."""
    row, where = entry(model), place(model, given)
    if row.shipped:
        return list(find(model, given).values())
    blind = [file for file in row.files if not file.sha256 and not (where / file.name).is_file()]
    if blind:
        links = " ".join(file.url for file in blind if file.url)
        get = (
            f"has no published hash to check; download {links} yourself, then"
            if links
            else "is a file of yours;"
        )
        raise BadWeights(f"{model} {get} run `urst-tiles weights add {model} FILE...`")
    where.mkdir(parents=True, exist_ok=True)
    for done, file in enumerate(row.files):
        progress("fetching", done, len(row.files))
        target = where / file.name
        if target.is_file() and sha256_of(target) == file.sha256:
            continue
        _download(file, target)
    progress("fetching", len(row.files), len(row.files))
    return [where / file.name for file in row.files]


def _download(file: WeightFile, target: Path) -> None:
    """Fetch to a name of this process, check, rename."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with urllib.request.urlopen(file.url, timeout=60) as answer, open(beside, "wb") as out:
            shutil.copyfileobj(answer, out)
        check_hash(beside, str(file.sha256))
        os.replace(beside, target)
    except BadWeights:
        raise
    except OSError as error:
        raise MissingFile(f"{file.url} could not be fetched to {target}: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path, inside: str | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors or PyTorch file, on the CPU; MissingFile without it, BadWeights for anything
    else, executable pickles included.

    ``inside`` names the entry of a PyTorch checkpoint that holds them.
    """
    import pickle
    import warnings

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise MissingFile(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", UserWarning
                )  # about old pickle protocols; what it cannot read raises
                state = torch.load(path, map_location="cpu", weights_only=True)
        if inside is not None and isinstance(state, Mapping):
            state = state.get(inside)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise BadWeights(
            f"{path} holds no plain tensors: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise BadWeights(f"{path} must hold one dictionary of tensors, got {type(state).__name__}")
    return dict(state)


def check_keys(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], path: Path | str) -> None:
    """BadWeights unless ``state`` has exactly these keys with exactly these shapes."""
    missing, extra = sorted(set(shapes) - set(state)), sorted(set(state) - set(shapes))
    if missing or extra:
        parts = [f"misses {_few(missing)}" if missing else "", f"has unknown {_few(extra)}" if extra else ""]
        raise BadWeights(f"{path} {' and '.join(p for p in parts if p)}")
    for key, shape in shapes.items():
        if tuple(state[key].shape) != tuple(shape):
            raise BadWeights(f"{path}: {key} has shape {tuple(state[key].shape)}, expected {tuple(shape)}")


def _few(names: list[str]) -> str:
    """At most three names, then a count."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
