"""Compare transfer of colours and stains with other programs, pixel by pixel, on made-up pictures.

    python3 -m venv peers
    peers/bin/pip install torchstain torch-staintools scikit-image color-matcher rio-hist
    peers/bin/pip install --no-deps tiatoolbox  # and what its stainnorm imports
    python benchmarks/colour_peers.py peers/bin/python
    python benchmarks/colour_peers.py peers/bin/python --reach 1,4,16,64,256,1024

The other programs live in an environment of their own, whose Python is named. They get the same two
pictures, uint8, and their results are compared with those of `fit_colour`: the mean and the largest
difference in levels. Where a method defines the result, the largest difference is one level, since some round
and some cut off.

With ``--reach`` they get pictures of so many megapixels instead, one after the other, each program in a
process of its own that may take 6 GB, until it fails or takes longer than ``--seconds``.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

#: Stains of two scanners in optical density of red, green and blue.
FIRST = np.array([[0.60, 0.72, 0.34], [0.14, 0.92, 0.36]])
SECOND = np.array([[0.68, 0.63, 0.37], [0.25, 0.88, 0.40]])


#: The memory that another program may take, in bytes of addresses.
MOST_BYTES = 6 << 30


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


#: Declarations that must live as long as the process.
DECLARED: list[Any] = []


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


def _declare_operators() -> None:
    """A torchvision that does not match asks for operators that are not needed here."""
    import torch

    if not DECLARED:
        DECLARED.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            DECLARED[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _staintools(image: Picture, reference: Picture) -> Any:
    import torch

    _declare_operators()
    from torch_staintools.normalizer import NormalizerBuilder

    def tensor(pixels: Picture) -> Any:
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255

    normalizer = NormalizerBuilder.build("vahadane", concentration_solver="fista", rng=0)
    normalizer.fit(tensor(reference))
    made = normalizer(tensor(image))[0].permute(1, 2, 0).detach()
    return (made * 255).round().clamp(0, 255).to(torch.uint8).numpy()


#: What tiatoolbox imports with everything else, and its stain normalisation does not use: stand-ins do.
UNUSED = (
    "umap", "dask", "dask.array", "dask.callbacks", "psutil", "openslide", "SimpleITK", "upath", "timm",
    "timm.layers", "transformers",
)  # fmt: skip


def _tiatoolbox(image: Picture, reference: Picture) -> Any:
    _declare_operators()
    for name in UNUSED:
        if name not in sys.modules and not find_spec(name):
            stand_in = MagicMock(__spec__=ModuleSpec(name, None), __path__=[])
            sys.modules[name] = stand_in
    from tiatoolbox.tools.stainnorm import VahadaneNormalizer

    normalizer = VahadaneNormalizer()
    normalizer.fit(reference)
    return normalizer.transform(image)


def _rio_hist(image: Picture, reference: Picture) -> Any:
    from rio_hist.match import histogram_match

    bands = [histogram_match(image[..., c], reference[..., c]) for c in range(3)]
    return np.rint(np.stack(bands, 2))


def _skimage(image: Picture, reference: Picture) -> Any:
    from skimage.exposure import match_histograms

    return np.rint(match_histograms(image, reference, channel_axis=-1))


def _color_matcher(image: Picture, reference: Picture) -> Any:
    from color_matcher.mvgd_matcher import TransferMVGD

    made = TransferMVGD(src=image / 255.0, ref=reference / 255.0, method="mkl").multivar_transfer()
    return np.rint(np.clip(made, 0, 1) * 255)


#: (our model, method, package, its function)
PEERS: tuple[tuple[str, str, str, Callable[[Picture, Picture], Any]], ...] = (
    ("stain", "macenko", "torchstain", _torchstain("macenko")),
    ("colour", "reinhard-lab", "torchstain", _torchstain("reinhard")),
    ("colour", "histogram", "scikit-image", _skimage),
    ("colour", "histogram", "rio-hist", _rio_hist),
    ("colour", "monge-kantorovich", "color-matcher", _color_matcher),
    ("stain", "vahadane", "tiatoolbox", _tiatoolbox),
    ("stain", "vahadane", "torch-staintools", _staintools),
)


def work(folder: Path, number: int) -> None:
    """Run another program on the pictures in a folder, and leave there its result, its version, the seconds
    that it took, and by how many MiB the peak of its process grew. It runs in the other environment."""
    model, _, package, run = PEERS[number]
    image, reference = (np.load(folder / f"{model}-{name}.npy") for name in ("image", "reference"))
    run(image[:64, :64], reference[:64, :64])  # imports what it needs
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    made = run(image, reference)
    seconds = time.perf_counter() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    np.save(folder / f"{number}.npy", np.asarray(made, np.float32))
    (folder / f"{number}.txt").write_text(f"{version(package)} {seconds:.2f} {grown >> 10}")


def ran(python: str, folder: Path, number: int, limit_seconds: float) -> tuple[str, ...]:
    """The version of another program, its seconds and its MiB; or one sentence that says why it failed."""
    command = [python, __file__, "--work", str(folder), str(number)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        return (f"no result in {limit_seconds:g} s",)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return (f"failed: {said[:100]}",)
    return tuple((folder / f"{number}.txt").read_text().split())


def put(folder: Path, pictures: dict[str, tuple[Picture, Picture]]) -> None:
    """The pictures as files of a folder."""
    for model, pair in pictures.items():
        for part, pixels in zip(("image", "reference"), pair, strict=True):
            np.save(folder / f"{model}-{part}.npy", pixels)


def ours(model: str, method: str, image: Picture, reference: Picture) -> Picture:
    """The result of this program, in memory."""
    import urst_tiles as ut

    white = {"white": "240"} if model == "stain" else {}
    look = ut.measure_look(ut.array_source(reference), model=model, method=method, **white)
    made: Picture = ut.fit_colour(image, look, model=model, method=method, **white)(image)
    return made


def compare(python: str, side: int, limit_seconds: float, folder: Path, only: str) -> None:
    """Print the differences of all programs on pictures of a side, or of those that ``only`` names."""
    pictures = {
        "colour": (scene(side, 0, (1.0, 0.8, 0.6)), scene(side, 5, (0.7, 0.9, 1.0))),
        "stain": (slide(side, 0, FIRST, 1.1), slide(side, 7, SECOND, 0.9)),
    }
    put(folder, pictures)
    print("| model, method | other program | mean difference | largest | share above one level |")
    print("|---|---|---|---|---|")
    for number, (model, method, package, _) in enumerate(PEERS):
        if only and package not in only.split(","):
            continue
        said = ran(python, folder, number, limit_seconds)
        if len(said) == 1:
            print(f"| {model} {method} | {package} | {said[0]} | | |", flush=True)
            continue
        made = np.load(folder / f"{number}.npy").astype(np.float64)
        wrong = np.abs(ours(model, method, *pictures[model]) - made)
        print(
            f"| {model} {method} | {package} {said[0]} | {wrong.mean():.3f} | {wrong.max():.0f} |"
            f" {100 * (wrong > 1).mean():.2f} % |",
            flush=True,
        )


def reach(python: str, megapixels: list[int], limit_seconds: float, folder: Path, only: str) -> None:
    """Print how long other programs take for larger and larger pictures, and in how much memory, until each
    fails. Pictures are repeated from one of a megapixel."""
    print("| other program, method | megapixels | seconds | MiB beyond the pictures and libraries |")
    print("|---|---|---|---|")
    small = {"colour": scene(1000, 0, (1.0, 0.8, 0.6)), "stain": slide(1000, 0, FIRST, 1.1)}
    others = {"colour": scene(1000, 5, (0.7, 0.9, 1.0)), "stain": slide(1000, 7, SECOND, 0.9)}
    for number, (model, method, package, _) in enumerate(PEERS):
        if only and package not in only.split(","):
            continue
        for size in megapixels:
            tall = np.tile(small[model], (size, 1, 1))
            put(folder, {model: (tall, others[model])})
            said = ran(python, folder, number, limit_seconds)
            rest = f"{said[1]} | {said[2]}" if len(said) > 1 else f"{said[0]} | "
            print(f"| {package} {method} | {size} | {rest} |", flush=True)
            if len(said) == 1:
                break


def main(words: Sequence[str]) -> None:
    """Compare, and print the table."""
    from harness import Parser, integer, positive, several

    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="the Python of the other programs")
    parser.add_argument("--side", type=integer(64), default=512)
    parser.add_argument("--only", default="", help="the other programs, by name, with commas")
    parser.add_argument("--reach", type=partial(several, read=integer()), help="megapixels, as in 1,4,16")
    parser.add_argument("--seconds", type=positive, default=300, help="that a program may take for a picture")
    given = parser.parse_args(words)
    if not shutil.which(given.python):
        parser.error(f"there is no Python {given.python}")
    with tempfile.TemporaryDirectory() as name:
        if given.reach:
            return reach(given.python, given.reach, given.seconds, Path(name), given.only)
        compare(given.python, given.side, given.seconds, Path(name), given.only)
    print(f"\nurst-tiles {version('urst-tiles')}, Python {sys.version.split()[0]}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        from harness import program

        sys.exit(program(main)())
