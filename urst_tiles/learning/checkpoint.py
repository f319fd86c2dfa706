"""All that a training is at one step, and its file: the same losses follow, to the bit, in any later call."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from urst_tiles import weights
from urst_tiles.errors import BadWeights, UrstError
from urst_tiles.storage.publish import publish

State = dict[str, Tensor]


#: What to do about a checkpoint that cannot be used.
REMEDY = "remove it or give another --out"


class Diverged(UrstError, ArithmeticError):
    """A gradient that is no number; the last checkpoint is kept."""

    exit_status = 1


def trainable(start: Mapping[str, Tensor], device: str) -> State:
    """Copies of ``start`` that gradients are kept for."""
    return {k: t.detach().clone().to(device).requires_grad_() for k, t in start.items()}


class Training:
    """Weights, their running average, optimizers, the random state of all that is drawn, the step, and what
    else the recipe remembers.

    Parameters
    ----------
    leaves : the tensors that learn, as `trainable` makes them.
    optimizers : over ``leaves``, one or more, at their base rates.
    seed : of ``random``, which the order of the data and all else that is drawn must come from.
    average : where the running average starts, in the shapes it shall have; none: there is none.
    keep : what the average keeps of itself each step; less in the first ones.
    memory : tensors by name that the recipe changes as it trains, and that a later call must find as they
        were left; "seconds" is the time that steps have taken in all calls, where the loop goes by the clock.
    """

    def __init__(
        self,
        leaves: State,
        optimizers: Sequence[torch.optim.Optimizer],
        seed: int,
        average: Mapping[str, Tensor] | None = None,
        keep: float = 0.999,
        memory: Mapping[str, Tensor] | None = None,
    ):
        self.leaves, self.optimizers, self.keep = leaves, optimizers, keep
        self.memory = dict(memory or {})
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        self.average = {k: t.detach().clone().to(leaves[k].device) for k, t in (average or {}).items()}
        self.seed, self.random = seed, np.random.default_rng([seed, 2])
        self.step = 0

    @property
    def seconds(self) -> float:
        """The time that steps have taken in all calls; 0 where nobody looks at the clock."""
        return float(self.memory.get("seconds", 0.0))

    def advance(self, total: Tensor, share: float = 1.0, clip: float = 0.0) -> None:
        """One step down the gradient of ``total``, at a share of the base rates; the gradient of all leaves
        together is no longer than ``clip``, where that is not 0.

        Raises
        ------
        Diverged : the gradient is not finite; nothing has moved.
        """
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            optimizer.zero_grad()
        total.backward()
        length = torch.nn.utils.clip_grad_norm_(self.leaves.values(), clip or math.inf)
        if not math.isfinite(length.item()):
            raise Diverged(
                f"the gradient of step {self.step + 1} is not finite: go on from the last checkpoint with a"
                " smaller rate, or with --precision float32"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self.follow()

    def follow(self) -> None:
        """The running average goes after the weights."""
        keep = min(self.keep, self.step / (self.step + 10))
        for k, t in self.average.items():
            t.lerp_(self.leaves[k].detach().view_as(t), 1 - keep)

    def save(self, path: Path) -> None:
        """Write atomically."""
        content = {
            "leaves": {k: t.detach() for k, t in self.leaves.items()},
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": self.random.bit_generator.state,
            "step": self.step,
            "memory": self.memory,
        }
        publish(path, torch_bytes(content))

    def load(self, path: Path, remedy: str = REMEDY) -> None:
        """Take up a checkpoint; BadWeights, in one sentence that ends with what to do about it, for what is
        none or is another training's."""
        content = plain(path, remedy)
        try:
            content.setdefault("memory", {})  # what earlier checkpoints do not have
            for name, tensors in self.tensors().items():
                weights.check_keys(content[name], {k: tuple(t.shape) for k, t in tensors.items()}, path)
            for optimizer, kept in zip(self.optimizers, content["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
            self.random.bit_generator.state = content["random"]
            self.step = int(content["step"])
        except BadWeights as error:
            raise BadWeights(f"{error}: not a checkpoint of this training; {remedy}") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadWeights(
                f"{path} is no checkpoint of this training ({first_line(error)}); {remedy}"
            ) from None
        with torch.no_grad():
            for name, tensors in self.tensors().items():
                for k, t in tensors.items():
                    t.copy_(content[name][k])

    def tensors(self) -> dict[str, State]:
        """All that is taken up tensor by tensor."""
        return {"leaves": self.leaves, "average": self.average, "memory": self.memory}


#: What torch raises for files that are cut, changed or something else.
BROKEN = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def plain(path: Path, remedy: str = REMEDY) -> dict[str, Any]:
    """The dictionary of numbers and tensors in a file, on the CPU; BadWeights for anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about old pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        raise BadWeights(f"the checkpoint {path} is damaged ({first_line(error)}); {remedy}") from None
    if not isinstance(content, dict):
        raise BadWeights(f"{path} is no checkpoint, it holds a {type(content).__name__}; {remedy}")
    return content


def first_line(error: Exception) -> str:
    """What an error says, without its advice."""
    return (str(error) or type(error).__name__).splitlines()[0]


def torch_bytes(content: Any) -> bytes:
    """A PyTorch file of tensors; for `loop.Recipe.export`, where a family's weights are such a file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def once(folder: Path, name: str, facts: Iterable[object], make: Callable[[], State]) -> State:
    """What ``make`` gives, kept in ``folder`` for later calls with the same ``facts``."""
    key = hashlib.sha256(repr(list(facts)).encode()).hexdigest()[:16]
    kept = folder / f"{name}-{key}.safetensors"
    if not kept.exists():
        publish(kept, save(make()))
    return weights.load(kept)
