"""Each precision against float32 on three real images: results must look like those of float32 (law 1)."""

from __future__ import annotations

import numpy as np
from harness import table
from nets_here import PHOTOS, adain_standin, frozen, photo, style

from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.geometry import Box

SIDE = 768


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """The peak signal-to-noise ratio of two 8-bit images in decibels."""
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def rows() -> list[tuple[object, ...]]:
    """A row for each family, precision and image."""
    results: list[tuple[object, ...]] = []
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
                    continue  # this CPU emulates it, which takes minutes
                other = Kernel(net, precision=precision).run(image[None], [box], [box])[0]
                mean = float(np.abs(other.astype(int) - reference).mean())
                auto = "auto" if nets.best_precision(model, "cpu") == precision else ""
                results.append((label, precision, auto, name, mean, psnr(other, reference)))
    return results


if __name__ == "__main__":
    header = ("family", "precision", "chosen", "image", "mean level error (<= 1)", "PSNR dB (>= 40)")
    table("Precision against the float32 picture", header, rows())
