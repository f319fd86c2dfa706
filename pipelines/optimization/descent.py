"""Adam [1] as a function of one tile's values, and its rate.

Reference
---------
1. D. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Adam:
    """``rate`` in colours of 0..1; falls linearly to 0 over the last ``cooldown`` of ``steps``."""

    rate: float
    steps: int
    cooldown: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def rate_at(self, step: int) -> float:
        """Of step 0, 1, ..."""
        return self.rate * min(1.0, (self.steps - step) / max(1, self.cooldown))

    def __call__(self, x: Tensor, m: Tensor, v: Tensor, gradient: Tensor, step: int) -> Tensor:
        """The new ``x``; the moments ``m`` and ``v`` are changed in place."""
        m.lerp_(gradient, 1 - self.beta1)
        v.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        first, second = (1 - beta ** (step + 1) for beta in (self.beta1, self.beta2))
        spread = v.sqrt().div_(second**0.5).add_(self.eps)
        return x.addcdiv(m, spread, value=-self.rate_at(step) / first)
