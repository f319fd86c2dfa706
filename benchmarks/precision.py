"""The picture is the float32 picture: each precision against float32 on three real images (law 1 of the
design)."""

from __future__ import annotations

import numpy as np
from harness import table
from nets_here import PHOTOS, adain_standin, frozen, photo, style

from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.geometry import Box

SIDE = 768


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Decibels, of 8-bit images."""
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def rows() -> list[tuple[object, ...]]:
    """One row per family, precision and image."""
    found: list[tuple[object, ...]] = []
    box = Box(0, 0, SIDE, SIDE)
    cases = (
        ("lite", "lite", style("lite")),
        ("microast", "microast", style("microast")),
        ("adain, trained quarter-width stand-in", "adain", adain_standin()),
        ("adain, random weights", "adain", style("adain")),
    )
    for label, model, chosen in cases:
        for name, (file, at) in PHOTOS.items():
            image = photo(file, SIDE, SIDE, at)
            net = frozen(chosen, image)
            reference = Kernel(net).run(image[None], [box], [box])[0]
            for precision in ("bfloat16", "float16"):
                if precision == "float16" and model == "adain":
                    continue  # emulated on this CPU: minutes
                other = Kernel(net, precision=precision).run(image[None], [box], [box])[0]
                mean = float(np.abs(other.astype(int) - reference).mean())
                auto = "auto" if nets.best_precision(model, "cpu") == precision else ""
                found.append((label, precision, auto, name, mean, psnr(other, reference)))
    return found


if __name__ == "__main__":
    header = ("family", "precision", "chosen", "image", "mean level error (<= 1)", "PSNR dB (>= 40)")
    table("Precision against the float32 picture", header, rows())
