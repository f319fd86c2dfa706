"""Descending with the whole image in memory: Adam or L-BFGS, and the checkpoint that either goes on from.

Reference
---------
1. J. Nocedal and S. Wright, "Numerical Optimization", 2006: L-BFGS (algorithm 7.5), strong Wolfe conditions
   (algorithm 3.5).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from optimization.descent import Adam
from optimization.files import check_same
from optimization.objective import Parts, Terms, Whole
from urst_tiles.errors import BadWeights
from urst_tiles.learning.checkpoint import REMEDY, Diverged, plain, torch_bytes
from urst_tiles.storage.publish import publish

#: Iterations of L-BFGS between two occasions for a checkpoint.
ITERATIONS = 20


class Descent(Protocol):
    """An image on its way down; ``step`` counts evaluations of the loss."""

    x: Tensor
    step: int

    def advance(self) -> list[Parts]:
        """Go on by one step, or a few; the parts of each evaluation."""

    def state(self) -> dict[str, Any]:
        """What `take` needs, besides ``x`` and ``step``."""

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


class ByAdam:
    """One evaluation a step."""

    def __init__(self, whole: Whole, x: Tensor, adam: Adam):
        self.whole, self.x, self.adam, self.step = whole, x, adam, 0
        self.mean, self.square = torch.zeros_like(x), torch.zeros_like(x)

    def advance(self) -> list[Parts]:
        """One step."""
        gradient, parts = self.whole.slope(self.x)
        check_finite(self.whole.terms, parts, self.step)
        self.x = self.adam(self.x, self.mean, self.square, gradient, self.step)
        self.step += 1
        return [parts]

    def state(self) -> dict[str, Any]:
        """Both moments."""
        return {"mean": self.mean, "square": self.square}

    def take(self, state: Mapping[str, Any]) -> None:
        """Both moments."""
        self.mean, self.square = (state[k].to(self.x) for k in ("mean", "square"))


class ByLBFGS:
    """L-BFGS with a line search [1]; its tolerances are 0, so that it goes on for all of its steps."""

    def __init__(self, whole: Whole, x: Tensor, steps: int, history: int):
        self.whole, self.steps, self.step = whole, steps, 0
        self.x = x.detach().clone().requires_grad_()
        self.optimizer = torch.optim.LBFGS(
            [self.x],
            max_iter=ITERATIONS,
            history_size=history,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

    def advance(self) -> list[Parts]:
        """Some iterations; the last line search may take a few evaluations more than ``steps``."""
        found: list[Parts] = []

        def evaluate() -> Tensor:
            self.x.grad, parts = self.whole.slope(self.x)
            check_finite(self.whole.terms, parts, self.step + len(found))
            found.append(parts)
            return self.whole.terms.total(parts) * self.whole.unit_of(self.x)

        group = self.optimizer.param_groups[0]
        group["max_eval"] = min(ITERATIONS * 5 // 4, self.steps - self.step)
        self.optimizer.step(evaluate)
        self.step += len(found)
        return found

    def state(self) -> dict[str, Any]:
        """Directions, steps, the last gradient."""
        return {"lbfgs": self.optimizer.state_dict()}

    def take(self, state: Mapping[str, Any]) -> None:
        """The same."""
        self.optimizer.load_state_dict(state["lbfgs"])


def check_finite(terms: Terms, parts: Parts, step: int) -> None:
    """Diverged where the loss is no number."""
    if not torch.isfinite(terms.total(parts)):
        raise Diverged(f"the loss of step {step + 1} is not finite: make --rate or --style-weight smaller")


def save(path: Path, descent: Descent, facts: Mapping[str, Any]) -> None:
    """Write a checkpoint, atomically."""
    content = {
        "facts": json.dumps(dict(facts)),
        "step": descent.step,
        "x": descent.x.detach(),
        "state": descent.state(),
    }
    publish(path, torch_bytes(content))


def load(path: Path, descent: Descent, facts: Mapping[str, Any]) -> None:
    """Go on from a checkpoint; JobDiffers where it is another optimisation's, BadWeights where it is none."""
    content = plain(path)
    try:
        check_same(facts, json.loads(content["facts"]), path)
        descent.take(content["state"])
        with torch.no_grad():
            descent.x.copy_(content["x"])
        descent.step = int(content["step"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise BadWeights(f"{path} is no checkpoint of this optimisation ({error}); {REMEDY}") from None
