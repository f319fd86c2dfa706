"""The report on a cohort: how far each image was moved, how alike the images are now, and which stand out.

An image stands out if its modified z-score is beyond 3.5 [1]: its distance from the median of the cohort, in
units of 1.4826 times the median of these distances, which neither a few strange images nor two groups
distort.

References
----------
1. B. Iglewicz and D. Hoaglin, "How to Detect and Handle Outliers", ASQC Quality Press, 1993.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.api.batch import BatchOutcome
from urst_tiles.options import TRANSFERS

Float = NDArray[np.float64]

#: From this modified z-score on an image stands out, in a cohort of at least so many images.
OUTLIER, LEAST_IMAGES = 3.5, 5

#: A deviation counts as no less than this: half a unit of CIELAB, and a tenth of an amount.
LEAST_COLOUR, LEAST_AMOUNT = 0.5, 0.1

COORDINATES = ("L", "a", "b")


@dataclass(frozen=True, eq=False)
class CohortImage:
    """An image of a cohort.

    Attributes
    ----------
    outcome : the job that made it.
    facts : how its colours were moved, see `urst_tiles.engine.moved`.
    apart : the distances in CIELAB of its mean colour from the median of the cohort, before and after.
    scores : its modified z-score in each quantity that stands out, by the name of the quantity.
    """

    outcome: BatchOutcome
    facts: Mapping[str, Any]
    apart: tuple[float, float]
    scores: Mapping[str, float]

    def row(self) -> dict[str, Any]:
        """What the report says of the image, a value for each column."""
        values: dict[str, Any] = {
            "input": str(self.outcome.entry.input),
            "style": self.outcome.entry.style_name,
            "output": str(self.outcome.entry.output),
            "moved": round(self.facts["moved"], 3),
        }
        for when, apart in zip(("before", "after"), self.apart, strict=True):
            values |= {
                f"{name} {when}": round(value, 3)
                for name, value in zip(COORDINATES, self.facts[when], strict=True)
            }
            values[f"from cohort {when}"] = round(apart, 3)
        values |= {f"{name} scaled": round(value, 4) for name, value in self.facts["amounts"].items()}
        values["z"] = round(max(map(abs, self.scores.values()), default=0.0), 2)
        values["outlier"] = "; ".join(self.said())
        return values

    def said(self) -> list[str]:
        """Each quantity in which the image stands out, with its value and its z-score."""
        quantities = _quantities(self.facts)
        return [f"{name} {quantities[name]:.3g} (z {z:.1f})" for name, z in self.scores.items()]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Images that were given the colours of the same reference by the same method.

    Attributes
    ----------
    name : model, method and reference in words.
    images : one for each job that ended well and whose colours could be compared.
    """

    name: str
    images: tuple[CohortImage, ...]

    @property
    def outliers(self) -> list[CohortImage]:
        """The images that stand out."""
        return [image for image in self.images if image.scores]

    def summary(self) -> list[str]:
        """The report in lines of text."""
        moved = np.array([image.facts["moved"] for image in self.images])
        before, after = np.median([image.apart for image in self.images], axis=0)
        lines = [
            f"cohort of {len(self.images)} image(s), {self.name}: moved by {np.median(moved):.3g} in CIELAB"
            f" (median; {moved.min():.3g} to {moved.max():.3g}); {before:.3g} from its median colour before,"
            f" {after:.3g} after"
        ]
        if len(self.images) < LEAST_IMAGES:
            return lines
        lines.append(f"{len(self.outliers)} outlier(s), whose robust z is beyond {OUTLIER:g}")
        for one in self.outliers:
            lines.append(f"  {one.outcome.entry.input.name}: {', '.join(one.said())}")
        return lines


def cohorts_of(outcomes: Sequence[BatchOutcome]) -> list[Cohort]:
    """The cohorts among the jobs of a table; none if no job transfers colours."""
    groups: dict[tuple[str, str, str], list[BatchOutcome]] = {}
    for outcome in outcomes:
        options = outcome.entry.options
        if options.network in TRANSFERS and options.look is None and outcome.moved:
            key = (options.network, options.method or "", outcome.entry.style_name)
            groups.setdefault(key, []).append(outcome)
    return [_cohort(" ".join(filter(None, key)), members) for key, members in groups.items()]


def _cohort(name: str, outcomes: Sequence[BatchOutcome]) -> Cohort:
    facts = [outcome.moved for outcome in outcomes]
    apart = [_apart(np.array([one[when] for one in facts])) for when in ("before", "after")]
    scores = _scores([_quantities(one) for one in facts])
    images = zip(outcomes, facts, zip(*apart, strict=True), scores, strict=True)
    return Cohort(name, tuple(CohortImage(*image) for image in images))


def _apart(colours: Float) -> list[float]:
    """The distance of each colour (n, 3) from the median of all."""
    distances: list[float] = np.linalg.norm(colours - np.median(colours, axis=0), axis=1).tolist()
    return distances


def _quantities(facts: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an image that may stand out, by name."""
    amounts = {f"{name} scaled by": value for name, value in facts["amounts"].items()}
    after = {f"{name} after": value for name, value in zip(COORDINATES, facts["after"], strict=True)}
    return {"moved": facts["moved"], **amounts, **after}


def _scores(rows: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Of each image the modified z-scores that are beyond the limit."""
    found: list[dict[str, float]] = [{} for _ in rows]
    for name in dict.fromkeys(name for row in rows for name in row):
        have = [(number, row[name]) for number, row in enumerate(rows) if name in row]
        if len(have) < LEAST_IMAGES:
            continue
        scaled = "scaled" in name
        values = np.array([value for _, value in have])
        z = robust_z(np.log(values) if scaled else values, LEAST_AMOUNT if scaled else LEAST_COLOUR)
        for (number, _), score in zip(have, z.tolist(), strict=True):
            if abs(score) > OUTLIER:
                found[number][name] = score
    return found


def robust_z(values: Float, least: float) -> Float:
    """The modified z-score of each value, float64 (n,), of whose deviation ``least`` is the smallest that
    counts."""
    distance = values - np.median(values)
    return distance / max(1.4826 * float(np.median(np.abs(distance))), least)


def report_text(cohorts: Sequence[Cohort], path: Path) -> str:
    """The report on all images as a file: JSON if its name ends in ``.json``, else CSV."""
    rows = [{"cohort": cohort.name, **image.row()} for cohort in cohorts for image in cohort.images]
    if path.suffix.lower() == ".json":
        return json.dumps({"outlier": f"|z| > {OUTLIER:g}", "images": rows}, indent=1) + "\n"
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns or ["cohort", "input"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
