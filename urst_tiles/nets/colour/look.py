"""Looks: the statistics of a reference that a method transfers, as a small file in JSON.

A look is made once, from one image or many, and used on any number of images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.nets.colour.cube import read_cube
from urst_tiles.nets.colour.float_histogram import even

#: The statistics of a reference by name, float64.
Fitted = Mapping[str, NDArray[np.float64]]

FORMAT, VERSION = "urst-tiles look", 1

#: The largest file that is read as a look; a histogram of 16 bits has about 4 MB.
MOST_BYTES = 64 << 20

#: The names and shapes of the statistics of each method, by the model; 0 stands for any length.
SHAPES: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {
    **{("colour", method): {"mean": (3,), "covariance": (3, 3)} for method in ("reinhard", "reinhard-lab")},
    **{("colour", m): {"mean": (0,), "covariance": (0, 0)} for m in ("mean-std", "monge-kantorovich")},
    ("colour", "histogram"): {"counts": (0, 65536)},
    ("colour", "lut"): {"table": (0, 0, 0, 3)},
    ("colour", "gain-offset"): {"gains": (3,), "offsets": (3,)},
    **{
        ("stain", method): {"white": (3,), "stains": (2, 3), "concentrations": (2,)}
        for method in ("macenko", "vahadane")
    },
    ("stain", "reinhard"): {"white": (3,), "mean": (3,), "covariance": (3, 3)},
}

#: Those of the histogram of floats.
FLOAT_SHAPES: dict[str, tuple[int, ...]] = {"distribution": (0, 0, 2)}

RGB = "red, green, blue as fractions of their full range, 0 to 1"
BANDS = "red, green, blue, or the bands in their order, as fractions of their full range, 0 to 1"

FLOAT_PAIRS = (
    ", for each band pairs of a value and how many pixels lie above the value before and not above this one"
)

#: What the numbers of each method are, for people who read the file.
UNITS: dict[tuple[str, str], str] = {
    ("colour", "mean-std"): BANDS,
    ("colour", "monge-kantorovich"): BANDS,
    ("colour", "reinhard"): "l, alpha, beta: from decimal logarithms of L, M, S (Reinhard et al. 2001)",
    ("colour", "reinhard-lab"): "CIELAB with D65: L* 0 to 100, a*, b*",
    (
        "colour",
        "histogram",
    ): "for red, green and blue, or each band, pairs of a level (of 65535) and how many pixels have it",
    ("colour", "lut"): f"table: by blue, green, red in equal steps, {RGB}",
    ("colour", "gain-offset"): f"gains and offsets of {RGB}: gain * value + offset",
    **{
        ("stain", method): f"white: {RGB}; stains: optical density (natural logarithm) of red, green, blue of"
        " hematoxylin, eosin, each of length 1; concentrations: their 99th percentiles"
        for method in ("macenko", "vahadane")
    },
    ("stain", "reinhard"): f"white: {RGB}; mean and covariance: CIELAB of tissue, L* 0 to 100, a*, b*",
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An image from which a look was measured.

    Attributes
    ----------
    name : name of the file, without its folder.
    width, height : in pixels.
    dtype : of its samples.
    fingerprint : of its content, as in the provenance of an output.
    weight : its share in the look.
    """

    name: str
    width: int
    height: int
    dtype: str
    fingerprint: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """The statistics of a reference, or of several together.

    Attributes
    ----------
    model, method : what they are for: "colour" or "stain", and the method.
    statistics : float64 arrays by name; `SHAPES` says which.
    on : what they were measured on: "exact" for every pixel, "thumbnail", or "published".
    sources : the images that were measured.
    as_is : whether the statistics are in the unit of the file, whose floats were taken as they are.
    depth, given_white : bits of the samples of the image on which the look is used, and red, green and blue
        of its glass in 0..1, None to estimate them; these are not saved.
    """

    model: str
    method: str
    statistics: Fitted
    on: str = "exact"
    sources: tuple[Measured, ...] = ()
    as_is: bool = False
    depth: int = 8
    given_white: tuple[float, float, float] | None = None

    def to_json(self) -> str:
        """The text of a look file."""
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "method": self.method,
            "units": self._units,
            **({"as is": True} if self.as_is else {}),
            "measured on": self.on,
            "measured from": [asdict(source) for source in self.sources],
            "statistics": {name: _listed(name, values) for name, values in self.statistics.items()},
        }
        return "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in facts.items()) + "\n}\n"

    @property
    def _units(self) -> str:
        if not self.as_is:
            return UNITS[self.model, self.method]
        return "those of the image" + (FLOAT_PAIRS if self.method == "histogram" else "")

    @classmethod
    def from_json(cls, text: str, name: str = "the look") -> Look:
        """The inverse of `to_json`; ``name`` is the file in messages.

        Raises
        ------
        BadInput : the text is no look, or its numbers are not those of its method.
        """
        try:
            facts = json.loads(text)
            known = facts["format"] == FORMAT
            version = facts["version"]
        except (ValueError, TypeError, KeyError, RecursionError):
            known = False
        if not known:
            raise BadInput(f"{name} is no look file; urst-tiles measure makes one")
        if version != VERSION:
            raise BadInput(f"{name} is a look file of version {version}, not {VERSION}; measure it anew")
        try:
            model, method = str(facts["model"]), str(facts["method"])
            statistics = {name: _array(name, values) for name, values in facts["statistics"].items()}
            sources = tuple(Measured(**source) for source in facts["measured from"])
            on, as_is = str(facts["measured on"]), facts.get("as is") is True
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
            raise BadInput(f"{name} is damaged; make it anew with urst-tiles measure") from None
        look = cls(model=model, method=method, statistics=statistics, on=on, sources=sources, as_is=as_is)
        look.check(name)
        return look

    def check(self, name: str) -> None:
        """Raise BadInput unless the statistics are those of the method, finite, and possible."""
        wanted = SHAPES.get((self.model, self.method))
        if self.as_is and self.method == "histogram":
            wanted = FLOAT_SHAPES
        if wanted is None:
            raise BadInput(
                f"{name} is a look of --model {self.model} --method {self.method}, which is unknown here"
            )
        shapes = {key: values.shape for key, values in self.statistics.items()}
        if shapes.keys() != wanted.keys() or not all(_fits(shapes[key], wanted[key]) for key in wanted):
            raise BadInput(f"{name} does not hold what a look of {self.method} holds: {', '.join(wanted)}")
        known = self.statistics
        if "mean" in known and known["covariance"].shape != 2 * known["mean"].shape:
            raise BadInput(f"{name} does not hold what a look of {self.method} holds: {', '.join(wanted)}")
        for key, values in self.statistics.items():
            signed = key in ("mean", "covariance", "stains", "table", "offsets", "distribution")
            spread = np.diagonal(values) if key == "covariance" else np.zeros(1)
            if key == "distribution":
                spread = _rises(values)
            if not np.isfinite(values).all() or (not signed and (values < 0).any()) or (spread < 0).any():
                raise BadInput(
                    f"{name}: its {key} cannot be right; make the look anew with urst-tiles measure"
                )


def _rises(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights of pairs, and how much their values rise; with -1 where a band has no weight at all."""
    some = np.where(pairs[..., 1].sum(1) > 0, 1.0, -1.0)
    return np.concatenate([pairs[..., 1].ravel(), np.diff(pairs[..., 0]).ravel(), some])


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    pairs = zip(shape, wanted, strict=True) if len(shape) == len(wanted) else [(0, 1)]
    return all(length == allowed or (not allowed and length > 0) for length, allowed in pairs)


def read_look(path: Path) -> Look:
    """The look in a file, which may also be a table of colours, ``.cube``.

    Raises
    ------
    MissingFile, BadInput : the file does not exist, or is no look.
    """
    if path.suffix.lower() == ".cube":
        return Look(model="colour", method="lut", statistics={"table": read_cube(path)}, on="published")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise MissingFile(f"there is no look file {path}") from None
    if len(data) > MOST_BYTES:
        raise BadInput(f"{path} is too large for a look file")
    try:
        return Look.from_json(data.decode("utf-8"), str(path))
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no look file; urst-tiles measure makes one") from None


def is_look(path: Path) -> bool:
    """Whether a file is to be read as a look: its name ends in ``.json`` or ``.cube``."""
    return path.suffix.lower() in (".json", ".cube")


def _listed(name: str, values: NDArray[np.float64]) -> list[Any]:
    """The numbers as lists; of a histogram only the values that occur, each with its count."""
    if name == "distribution":
        return [[[float(str(np.float32(v))), float(n)] for v, n in row if n > 0] for row in values]
    if name != "counts":
        return list(values.tolist())
    held = [np.flatnonzero(row) for row in values]
    return [
        [[int(k), float(v)] for k, v in zip(at, row[at], strict=True)]
        for at, row in zip(held, values, strict=True)
    ]


def _array(name: str, values: Any) -> NDArray[np.float64]:
    """The inverse of `_listed`."""
    if name == "distribution":
        return even([np.array(row, np.float64).reshape(-1, 2) for row in values])
    if name != "counts":
        return np.array(values, np.float64)
    out = np.zeros((len(values), 65536))
    for row, pairs in zip(out, values, strict=True):
        for level, count in pairs:
            if not 0 <= level < 65536:
                raise ValueError(level)
            row[int(level)] = float(count)
    return out
