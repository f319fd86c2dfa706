"""The table of a balance: gains, offsets, overlaps and what they leave, as a record and as a file in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.adjustment import MOST_IMAGES, Adjusted, adjusted
from urst_tiles.api.overlaps import Measurements
from urst_tiles.errors import BadInput
from urst_tiles.overlap import Overlap
from urst_tiles.source import Source

Float = NDArray[np.float64]

FORMAT, VERSION = "urst-tiles balance", 1

#: What the numbers in the file are, for people who read it.
UNITS = (
    "new value = gain * value + offset, for red, green and blue; offsets, ranges and differences in values of"
    " uint8 or uint16; a difference is that of the means of both scenes where they overlap, without outliers;"
    " a residual is the root mean square that the best gain and offset leave in the second"
)
ROBUST = "iteratively reweighted least squares with Tukey's biweight (Beaton and Tukey 1974)"

#: A difference of means beyond this share of the range of values is told, as is a gain beyond these.
SEAM, LEAST_GAIN, MOST_GAIN = 0.01, 0.2, 5.0

#: How many names are told in a sentence.
NAMED = 5


@dataclass(frozen=True, eq=False)
class BalanceTable:
    """The gains and offsets of scenes, and how well they agree where they overlap.

    Attributes
    ----------
    facts : all of it as JSON holds it: "request", "levels", "cell", "range", and the lists "scenes" (with
        "name", "gains", "offsets", "group", "cells") and "overlaps" (with "first", "second", "cells", "kept",
        "before", "after", "remains").
    """

    facts: Mapping[str, Any]

    @classmethod
    def solved(cls, request: Mapping[str, Any], found: Measurements, method: str) -> BalanceTable:
        """The table that follows from measurements.

        Raises
        ------
        BadInput : there are too many scenes, or their overlaps lead to gains that cannot be right.
        """
        scenes = request["scenes"]
        if len(scenes) > MOST_IMAGES:
            raise BadInput(f"{len(scenes)} scenes are more than {MOST_IMAGES}; balance them in parts")
        reference = request["reference"]
        fixed = len(scenes) if isinstance(reference, dict) else reference
        solution = adjusted(
            found.whole, found.overlaps, found.spread, fixed=fixed, offsets=method == "mean-std"
        )
        names = [scene["name"] for scene in scenes]
        _check_gains(names, solution)
        names += [reference["name"]] if isinstance(reference, dict) else []
        levels = float(scenes[0]["levels"])
        width, height = found.lattice.side
        return cls(
            {
                "format": FORMAT,
                "version": VERSION,
                "units": UNITS,
                "robust": ROBUST,
                "request": request,
                "reference": None if fixed is None else names[fixed],
                "method": method,
                "levels": levels,
                "cell": [width, height],
                "range": _rounded(found.spread * levels),
                "scenes": [_scene(number, scenes, solution, found, levels) for number in range(len(scenes))],
                "overlaps": [_overlap(one, names, solution, found.spread, levels) for one in found.overlaps],
            }
        )

    def to_json(self) -> str:
        """The text of the file, with a line for each scene and each overlap."""
        lines = []
        for name, value in self.facts.items():
            if name in ("scenes", "overlaps"):
                rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
                lines.append(f"{json.dumps(name)}: [\n{rows}\n]" if value else f"{json.dumps(name)}: []")
            else:
                lines.append(f"{json.dumps(name)}: {json.dumps(value)}")
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def of(self, number: int) -> tuple[Float, Float]:
        """The gains and the offsets of a scene, float64 (3,) each, for values as fractions of their full
        range."""
        scene = self.facts["scenes"][number]
        return np.array(scene["gains"]), np.array(scene["offsets"]) / self.facts["levels"]

    @property
    def seams(self) -> tuple[float, float]:
        """The largest difference of means where scenes overlap, as a share of the range of values, before and
        after; 0 without overlaps."""
        limits = np.array(self.facts["range"])
        both = [
            [np.abs(one[when]) / limits for when in ("before", "after")] for one in self.facts["overlaps"]
        ]
        if not both:
            return 0.0, 0.0
        before, after = np.array(both).max((0, 2))
        return float(before), float(after)

    def notes(self) -> list[str]:
        """What a user should know, each in one sentence."""
        before, after = self.seams
        count = len(self.facts["overlaps"])
        said = [
            f"{count} overlap(s): means differ by {_percent(before)} of the range of values at most"
            f" before, and {_percent(after)} after"
        ]
        if not count:
            said = ["no two scenes overlap in valid pixels, so all of them are left as they are"]
        else:
            said += self._group_notes()
        return [*said, *self._doubts()]

    def _group_notes(self) -> list[str]:
        """What is said of scenes that do not hang together with the others."""
        groups: dict[int, list[str]] = {}
        for scene in self.facts["scenes"]:
            groups.setdefault(scene["group"], []).append(scene["name"])
        said = []
        if alone := [names[0] for names in groups.values() if len(names) == 1]:
            alone = [name for name in alone if not self._overlaps(name) and name != self.facts["reference"]]
            if alone:
                said.append(f"{_listed(alone)}: no overlap with the others, left as they are")
        several = [names for names in groups.values() if len(names) > 1]
        reference = self.facts["reference"]
        if reference is None and len(several) > 1:
            said.append(
                f"the scenes make {len(several)} groups without overlaps between them ("
                f"{' | '.join(map(_listed, several))}); each group keeps its own mean"
            )
        for names in several if reference is not None else []:
            linked = reference in names or any(
                reference in (one["first"], one["second"]) and {one["first"], one["second"]} & set(names)
                for one in self.facts["overlaps"]
            )
            if not linked:
                said.append(
                    f"{_listed(names)}: no overlap leads to {reference}, so they are made alike by themselves"
                )
        return said

    def _overlaps(self, name: str) -> bool:
        return any(name in (one["first"], one["second"]) for one in self.facts["overlaps"])

    def _doubts(self) -> list[str]:
        """What is said of overlaps that are not made alike, and of gains that are hard to believe."""
        said = []
        if bad := [one for one in self.facts["overlaps"] if one["remains"] > SEAM]:
            worst = max(bad, key=lambda one: one["remains"])
            said.append(
                f"{len(bad)} overlap(s) still differ by more than {100 * SEAM:g} % of the range, most that of"
                f" {worst['first']} and {worst['second']} by {100 * worst['remains']:.3g} %: clouds or"
                " changes may cover them, or no gain and offset makes these scenes alike"
            )
        strange = [
            scene["name"]
            for scene in self.facts["scenes"]
            if not all(LEAST_GAIN <= gain <= MOST_GAIN for gain in scene["gains"])
        ]
        if strange:
            said.append(
                f"{_listed(strange)}: a gain below {LEAST_GAIN:g} or above {MOST_GAIN:g}; look at the result,"
                " or try --method gain"
            )
        return said


def _check_gains(names: Sequence[str], solution: Adjusted) -> None:
    wrong = [name for name, gains in zip(names, solution.gains, strict=False) if not (gains > 0.02).all()]
    if wrong:
        raise BadInput(
            f"{_listed(wrong)}: the overlaps lead to gains that cannot be right, since little in them is"
            " alike; try --method gain, or leave these scenes out"
        )


def _scene(
    number: int, scenes: Sequence[Any], solution: Adjusted, found: Measurements, levels: float
) -> dict[str, Any]:
    group = next(n for n, members in enumerate(solution.groups) if number in members)
    return {
        "name": scenes[number]["name"],
        "gains": _rounded(solution.gains[number]),
        "offsets": _rounded(solution.offsets[number] * levels),
        "group": group,
        "cells": int(found.whole.cells[number]),
    }


def _overlap(
    one: Overlap, names: Sequence[str], solution: Adjusted, spread: Float, levels: float
) -> dict[str, Any]:
    """An overlap with the differences of the means of the second and the first image."""
    i, j = one.first, one.second
    before = one.mean[1] - one.mean[0]
    new = [solution.gains[k] * mean + solution.offsets[k] for k, mean in zip((i, j), one.mean, strict=True)]
    after = new[1] - new[0]
    return {
        "first": names[i],
        "second": names[j],
        "cells": one.cells,
        "kept": round(one.kept, 4),
        "before": _rounded(before * levels),
        "after": _rounded(after * levels),
        "residual": _rounded(one.residual * levels),
        "remains": float(np.abs(after / spread).max()),
    }


def _rounded(values: Float) -> list[float]:
    """Numbers with nine digits, which is more than any of them is good for."""
    return [float(f"{value:.9g}") for value in values]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share >= 1e-4 else "less than 0.01 %"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def scene_facts(source: Source) -> dict[str, Any]:
    """What tells a scene from others, in a form that JSON can hold."""
    return {
        "name": source.path.name,
        "width": source.shape[1],
        "height": source.shape[0],
        "levels": int(np.iinfo(source.dtype).max),
        "fingerprint": source.fingerprint,
    }


def read_balance(path: Path, request: Mapping[str, Any], *, overwrite: bool) -> BalanceTable | None:
    """The table in a file, if it was made for the same request; None without a file, or if it is to be
    replaced.

    Raises
    ------
    BadInput : the file is one of other scenes or options, or no table.
    """
    try:
        facts = json.loads(path.read_bytes())
        if facts["format"] == FORMAT and facts["version"] == VERSION and facts["request"] == request:
            return BalanceTable(facts)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        pass
    if overwrite:
        return None
    raise BadInput(f"{path} was made of other scenes or options; give --overwrite or name another folder")
