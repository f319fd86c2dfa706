"""Compare transfer of colours and stains with other programs, pixel by pixel, on made-up pictures.

    python3 -m venv peers
    peers/bin/pip install torchstain torch-staintools scikit-image color-matcher
    python benchmarks/colour_peers.py peers/bin/python

The other programs live in an environment of their own, whose Python is named. They get the same two
pictures, uint8, and their results are compared with those of `fit_colour`: the mean and the largest
difference in levels. Where a method defines the result, the largest difference is
one level, since some round and some cut off.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

#: Stains of two scanners in optical density of red, green and blue.
FIRST = np.array([[0.60, 0.72, 0.34], [0.14, 0.92, 0.36]])
SECOND = np.array([[0.68, 0.63, 0.37], [0.25, 0.88, 0.40]])


def scene(side: int, seed: int, tint: tuple[float, float, float]) -> Picture:
    """A smooth and busy picture whose channels are correlated."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    base = 110 + 60 * np.sin(x / 31 + seed) * np.cos(y / 47)
    own = 25 * np.sin(x[..., None] / np.array([9.0, 23, 77]) + y[..., None] / np.array([23.0, 11, 50]))
    return np.clip((base[..., None] + own + random.normal(0, 9, (side, side, 3))) * tint, 1, 255).astype(
        np.uint8
    )


def slide(side: int, seed: int, stains: NDArray[np.float64], strength: float) -> Picture:
    """A slide that is tissue everywhere, of white 240, in the colours of Beer and Lambert's law."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    nuclei = np.clip(np.sin(x / 5.0) * np.sin(y / 6.0), 0, 1) ** 2
    amounts = np.stack([0.25 + 1.5 * nuclei, 1.1 - 0.8 * nuclei]) * random.uniform(0.6, 1.4, (2, side, side))
    density = np.einsum("khw,kc->hwc", strength * amounts, stains / np.linalg.norm(stains, axis=1)[:, None])
    return np.clip(np.rint(240 * np.exp(-density) + random.normal(0, 0.7, density.shape)), 0, 255).astype(
        np.uint8
    )


# The other programs; nothing of this package is imported there


def _torchstain(method: str) -> Callable[[Picture, Picture], Any]:
    def run(image: Picture, reference: Picture) -> Any:
        import torchstain

        makers = torchstain.normalizers
        if method == "macenko":
            normalizer = makers.MacenkoNormalizer(backend="numpy")
            normalizer.fit(reference)
            return normalizer.normalize(image, stains=False)[0]
        normalizer = makers.ReinhardNormalizer(backend="numpy")
        normalizer.fit(reference)
        return normalizer.normalize(image)

    return run


def _staintools(image: Picture, reference: Picture) -> Any:
    import torch

    # A torchvision that does not match asks for operators that are not needed here.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torch_staintools.normalizer import NormalizerBuilder

    def tensor(pixels: Picture) -> Any:
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255

    normalizer = NormalizerBuilder.build("vahadane", concentration_solver="fista", rng=0)
    normalizer.fit(tensor(reference))
    made = normalizer(tensor(image))[0].permute(1, 2, 0).detach()
    return (made * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def _skimage(image: Picture, reference: Picture) -> Any:
    from skimage.exposure import match_histograms

    return np.rint(match_histograms(image, reference, channel_axis=-1))


def _color_matcher(image: Picture, reference: Picture) -> Any:
    from color_matcher.mvgd_matcher import TransferMVGD

    made = TransferMVGD(src=image / 255.0, ref=reference / 255.0, method="mkl").multivar_transfer()
    return np.rint(np.clip(made, 0, 1) * 255)


#: (our model, method, package, what it does, its function)
PEERS: tuple[tuple[str, str, str, Callable[[Picture, Picture], Any]], ...] = (
    ("stain", "macenko", "torchstain", _torchstain("macenko")),
    ("colour", "reinhard-lab", "torchstain", _torchstain("reinhard")),
    ("stain", "vahadane", "torch-staintools", _staintools),
    ("colour", "histogram", "scikit-image", _skimage),
    ("colour", "monge-kantorovich", "color-matcher", _color_matcher),
)


def work(folder: Path) -> None:
    """Run the other programs on the pictures in a folder; their results and versions are left there."""
    for number, (model, _, package, run) in enumerate(PEERS):
        image, reference = (np.load(folder / f"{model}-{name}.npy") for name in ("image", "reference"))
        try:
            np.save(folder / f"{number}.npy", np.asarray(run(image, reference), np.float64))
            (folder / f"{number}.txt").write_text(version(package))
        except Exception as error:  # another program may fail in any way, and the next is tried
            (folder / f"{number}.txt").write_text(f"failed: {error!r}")


def main() -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("python", help="the Python of the other programs")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        return work(given.work)
    import urst_tiles as ut

    pictures = {
        "colour": (scene(given.side, 0, (1.0, 0.8, 0.6)), scene(given.side, 5, (0.7, 0.9, 1.0))),
        "stain": (slide(given.side, 0, FIRST, 1.1), slide(given.side, 7, SECOND, 0.9)),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model, pair in pictures.items():
            for part, pixels in zip(("image", "reference"), pair, strict=True):
                np.save(folder / f"{model}-{part}.npy", pixels)
        subprocess.run([given.python, __file__, given.python, "--work", name], check=True)
        print("| model, method | other program | mean difference | largest | share above one level |")
        print("|---|---|---|---|---|")
        for number, (model, method, package, _) in enumerate(PEERS):
            said, made = (folder / f"{number}.txt").read_text(), folder / f"{number}.npy"
            if not made.exists():
                print(f"| {model} {method} | {package} | {said} | | |")
                continue
            image, reference = pictures[model]
            white = {"white": "240"} if model == "stain" else {}
            ours = ut.fit_colour(
                image, ut.measure_look(ut.array_source(reference), model=model, method=method, **white),
                model=model, method=method, **white,
            )(image)  # fmt: skip
            wrong = np.abs(ours - np.load(made))
            print(
                f"| {model} {method} | {package} {said} | {wrong.mean():.3f} | {wrong.max():.0f} |"
                f" {100 * (wrong > 1).mean():.2f} % |"
            )
    print(f"\nurst-tiles {version('urst-tiles')}, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
