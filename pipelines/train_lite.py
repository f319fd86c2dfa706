"""Train lite, the arbitrary-style network that the package ships.

    python pipelines/train_lite.py --settings pipelines/train_lite.toml --content PHOTOS --style PAINTINGS \
        --vgg vgg19_relu3_1.raw --distilled 5SE.pth --out runs/lite

Any setting may stand in the TOML file or on the command line, which wins. ``--out`` takes the checkpoint, the
losses (``losses.csv``), a sheet of sample pictures (``samples.png``) and the weights (``lite.safetensors``,
the running average). The same command again goes on where the last one stopped, and gives the same losses as
if it had not.

What is minimised, per picture: the style loss of Huang and Belongie 2017 (each layer to ``style_power``), the
content loss on normalised relu4_1, URST's stroke perceptual loss, total variation, and a penalty on the grid
that networks on cells of pixels like to draw. The targets of a fixed set of style crops are computed once.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from urst_tiles import losses, nets, weights
from urst_tiles.errors import BadInput, MissingFile, UrstError
from urst_tiles.files import publish
from urst_tiles.nets import lite
from urst_tiles.picture import read_picture, write_png

State = dict[str, Tensor]
#: Mean and deviation by layer or site.
Statistics = dict[str, losses.MeanStd]
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set; lengths in pixels."""

    content: Path
    style: Path
    vgg: Path
    distilled: Path
    out: Path
    #: Weights to start from; empty for random ones.
    init: str = ""
    #: A file of patterns of file names, one a line, that are not trained on.
    held_out: str = ""
    steps: int = 100_000
    batch: int = 8
    size: int = 256
    style_crop: int = 256
    crops_per_style: int = 8
    #: Of Muon on the blocks' weights, and of Adam on all else.
    rate: float = 5e-3
    rate_rest: float = 2e-3
    warmup: int = 100
    #: Steps at the end over which the rates fall to 0.
    cooldown: int = 30_000
    average: float = 0.999
    clip: float = 5.0
    style_weight: float = 1.0
    style_power: float = 0.5
    content_weight: float = 1.0
    stroke_weight: float = 0.0
    variation_weight: float = 0.0
    lattice_weight: float = 100.0
    precision: str = "bfloat16"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_every: int = 200
    sample_every: int = 1000


# Pictures


def files_of(folder: Path, held_out: Sequence[str]) -> list[Path]:
    """The images in a folder, by name, without those that a pattern holds out."""
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {folder} of training images")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    kept = [path for path in found if not any(fnmatch(path.name, pattern) for pattern in held_out)]
    if not kept:
        raise BadInput(
            f"the folder {folder} holds no image to train on (known: {', '.join(sorted(SUFFIXES))})"
        )
    return kept


def read(path: Path, short_side: int) -> NDArray[np.uint8]:
    """uint8 (h, w, 3)."""
    return np.rint(255 * read_picture(path, short_side)).astype(np.uint8)


def crop(image: NDArray[np.uint8], side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """A random square of ``image``, at most as large as it is, mirrored every other time."""
    side = min(side, *image.shape[:2])
    y, x = (int(random.integers(n - side + 1)) for n in image.shape[:2])
    part = image[y : y + side, x : x + side]
    return part[:, ::-1] if random.random() < 0.5 else part


def to_tensor(images: Sequence[NDArray[np.uint8]], device: str) -> Tensor:
    """(n, 3, h, w) float32 in 0..1."""
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float().div(255)


def contents(
    images: Sequence[NDArray[np.uint8]], settings: Settings, random: np.random.Generator
) -> tuple[Tensor, Tensor | None]:
    """A batch of content crops of ``size``, and, where strokes are compared, the same at twice the size."""
    if settings.stroke_weight:
        side = 2 * settings.size
        chosen = [images[i] for i in random.integers(len(images), size=settings.batch)]
        large = torch.cat([resized(crop(image, side, random), side, settings) for image in chosen])
        return F.avg_pool2d(large, 2), large
    batch = []
    for index in random.integers(len(images), size=settings.batch):
        side = int(settings.size * random.choice([1.0, 4 / 3, 2.0]))
        batch.append(resized(crop(images[index], side, random), settings.size, settings))
    return torch.cat(batch), None


def resized(image: NDArray[np.uint8], side: int, settings: Settings) -> Tensor:
    """(1, 3, side, side) float32 in 0..1."""
    x = to_tensor([image], settings.device)
    if x.shape[2] == side:
        return x
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


@dataclass
class Styles:
    """Crops of style images, uint8 (n, h, w, 3), and their statistics in the loss networks, by layer."""

    crops: NDArray[np.uint8]
    targets: Statistics

    def draw(self, settings: Settings, random: np.random.Generator) -> tuple[Tensor, Statistics]:
        """A batch of crops and their targets."""
        index = random.integers(len(self.crops), size=settings.batch)
        chosen = torch.from_numpy(index)
        targets = {k: (mean[chosen], std[chosen]) for k, (mean, std) in self.targets.items()}
        return to_tensor(list(self.crops[index]), settings.device), targets


def gather_styles(
    paths: Sequence[Path], settings: Settings, net: losses.FeatureNet, dtype: torch.dtype
) -> Styles:
    """``crops_per_style`` crops of each painting, at sizes of its short side from 1.2 to 2.8 crops; kept in
    ``--out`` for the next call."""
    facts = [settings.seed, settings.style_crop, settings.crops_per_style, str(dtype), *map(str, paths)]
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    kept = settings.out / f"styles-{key}.safetensors"
    if not kept.exists():
        publish(kept, save(style_tensors(paths, settings, net, dtype)))
    tensors = weights.load(kept)
    targets = {k: (tensors[f"{k}.mean"], tensors[f"{k}.std"]) for k in losses.LAYERS}
    on = {k: (mean.to(settings.device), std.to(settings.device)) for k, (mean, std) in targets.items()}
    return Styles(tensors["crops"].numpy(), on)


@torch.no_grad()
def style_tensors(
    paths: Sequence[Path], settings: Settings, net: losses.FeatureNet, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Crops and their statistics, to be kept."""
    random = np.random.default_rng([settings.seed, 1])
    crops, found = [], []
    for path in paths:
        for _ in range(settings.crops_per_style):
            short = int(settings.style_crop * random.uniform(1.2, 2.8))
            crops.append(np.ascontiguousarray(crop(read(path, short), settings.style_crop, random)))
    for start in range(0, len(crops), 8):
        found.append(statistics(net, to_tensor(crops[start : start + 8], settings.device), dtype))
    tensors = {"crops": torch.from_numpy(np.stack(crops))}
    for k in losses.LAYERS:
        for i, part in enumerate(("mean", "std")):
            tensors[f"{k}.{part}"] = torch.cat([f[k][i] for f in found]).cpu()
    return tensors


# The network in training: as `lite.LiteStyle`, with statistics that gradients flow through.


def lowered(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In the type of the computation, channels_last."""
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def colour_map(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (n, 3, 3) and shift (n, 3, 1) that give ``x`` the colours of ``y``: the first site, before which
    nothing learns."""
    maps = []
    for one, other in zip(*(t.flatten(2).cpu().double().numpy() for t in (x, y)), strict=True):
        scale = lite.monge_kantorovich(np.cov(one), np.cov(other), lite.COLOUR_EPS)
        maps.append((scale, other.mean(1, keepdims=True) - scale @ one.mean(1, keepdims=True)))
    scales, shifts = (torch.from_numpy(np.stack(part)).to(x) for part in zip(*maps, strict=True))
    return scales, shifts


def recoloured(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x`` through a colour map."""
    return (scale @ x.flatten(2) + shift).view_as(x)


def describe(y: Tensor, state: State, dtype: torch.dtype) -> Statistics:
    """The statistics of a batch of style images at every block's site."""
    found: Statistics = {}

    def look(name: str, h: Tensor) -> Tensor:
        found[name] = losses.mean_std(h, lite.EPS)
        return h

    lite.strokes(lowered(lite.to_cells(y), dtype), state, look)
    return found


def paint(
    x: Tensor, state: State, style: Statistics, dtype: torch.dtype, content: Statistics | None = None
) -> tuple[Tensor, Statistics]:
    """The stylised picture of ``x``, whose colours are the style's already, and the statistics it was painted
    with: ``content``, of a thumbnail say, or its own."""
    used: Statistics = {}

    def steer(name: str, h: Tensor) -> Tensor:
        used[name] = mean, std = content[name] if content else losses.mean_std(h, lite.EPS)
        want, spread = style[name]
        scale = spread / std
        return torch.addcmul((want - scale * mean).to(h)[:, :, None, None], h, scale.to(h)[:, :, None, None])

    painted = lite.strokes(lowered(lite.to_cells(x), dtype), state, steer)
    return x + F.pixel_shuffle(painted.float(), lite.STRIDE), used


def statistics(net: losses.FeatureNet, x: Tensor, dtype: torch.dtype) -> Statistics:
    """Mean and deviation of ``x`` in the layers of the style loss."""
    return {k: losses.mean_std(f) for k, f in net(lowered(x, dtype), losses.LAYERS).items()}


@dataclass
class Batch:
    """Contents (n, 3, s, s), the same at twice the size or None, style crops, and their targets."""

    x: Tensor
    large: Tensor | None
    y: Tensor
    targets: Statistics


def objective(
    batch: Batch, state: State, net: losses.FeatureNet, settings: Settings, random: np.random.Generator
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and its parts as numbers, unweighted."""
    dtype = getattr(torch, settings.precision)
    style, colours = describe(batch.y, state, dtype), colour_map(batch.x, batch.y)
    mapped = recoloured(batch.x, *colours)
    out, used = paint(mapped, state, style, dtype)
    features = net(lowered(out, dtype), losses.LAYERS)
    with torch.no_grad():
        wanted = losses.normalised(net(lowered(batch.x, dtype), ["relu4_1"])["relu4_1"])
    found = {k: losses.mean_std(f) for k, f in features.items()}
    layers = losses.style_loss(found, batch.targets)
    parts = {
        "content": losses.content_loss(losses.normalised(features["relu4_1"]), wanted).mean(),
        "variation": losses.total_variation(out).mean(),
        "lattice": losses.lattice(mapped, out, lite.STRIDE).mean(),
    }
    if batch.large is not None:
        y0, x0 = (lite.STRIDE * int(n) for n in random.integers(settings.size // lite.STRIDE + 1, size=2))
        patch = batch.large[:, :, y0 : y0 + settings.size, x0 : x0 + settings.size]
        patch, _ = paint(recoloured(patch, *colours), state, style, dtype, used)
        parts["stroke"] = losses.stroke_perceptual(Lowered(net, dtype), patch, out, (y0, x0)).mean()
    total = settings.style_weight * (layers + 1e-3).pow(settings.style_power).sum(1).mean()
    for name, part in parts.items():
        total = total + getattr(settings, f"{name}_weight") * part
    parts |= {"style": layers.sum(1).mean(), "total": total}
    parts |= {k: layers[:, i].mean() for i, k in enumerate(batch.targets)}
    return total, {k: v.item() for k, v in parts.items()}


@dataclass
class Lowered:
    """A loss network that takes float32 and computes in ``dtype``."""

    net: losses.FeatureNet
    dtype: torch.dtype

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``."""
        return self.net(lowered(x, self.dtype), layers)


# The loop


class Training:
    """Everything that a checkpoint keeps: weights and their running average, optimizers, random state, step.

    The blocks' convolutions, as matrices, follow Muon; enter, leave and biases follow Adam.
    """

    def __init__(self, start: State, settings: Settings):
        self.leaves = {k: flat(k, t).clone().to(settings.device).requires_grad_() for k, t in start.items()}
        self.shapes = {k: t.shape for k, t in start.items()}
        self.average = {k: t.clone().to(settings.device) for k, t in start.items()}
        self.random = np.random.default_rng([settings.seed, 2])
        self.step = 0
        inner = [t for k, t in self.leaves.items() if is_inner(k)]
        rest = [t for k, t in self.leaves.items() if not is_inner(k)]
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.Muon(inner, lr=settings.rate, weight_decay=0.0), settings.rate),
            (torch.optim.Adam(rest, lr=settings.rate_rest, betas=(0.9, 0.99)), settings.rate_rest),
        ]

    @property
    def state(self) -> State:
        """The weights in the network's shapes."""
        return {k: t.view(self.shapes[k]) for k, t in self.leaves.items()}

    def advance(self, total: Tensor, settings: Settings) -> None:
        """One step down the gradient of ``total``."""
        for optimizer, rate in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * share_of_rate(self.step, settings)
            optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.leaves.values(), settings.clip)
        for optimizer, _ in self.optimizers:
            optimizer.step()
        self.step += 1
        keep = min(settings.average, self.step / (self.step + 10))
        for k, t in self.average.items():
            t.lerp_(self.leaves[k].detach().view_as(t), 1 - keep)

    def save(self, path: Path) -> None:
        """Write atomically."""
        content = {
            "leaves": {k: t.detach() for k, t in self.leaves.items()},
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
            "random": self.random.bit_generator.state,
            "step": self.step,
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        publish(path, buffer.getvalue())

    def load(self, path: Path, device: str) -> None:
        """Take up a checkpoint."""
        content = torch.load(path, map_location=device, weights_only=True)
        with torch.no_grad():
            for k, t in self.leaves.items():
                t.copy_(content["leaves"][k])
        self.average, self.step = content["average"], content["step"]
        for (optimizer, _), kept in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.random.bit_generator.state = content["random"]


def is_inner(key: str) -> bool:
    """Whether a tensor is the weight of a block's convolution."""
    return key.startswith("block") and key.endswith(".weight")


def flat(key: str, t: Tensor) -> Tensor:
    """Inner weights as matrices, which is what Muon takes."""
    return t.flatten(1) if is_inner(key) else t


def begin(settings: Settings) -> Training:
    """A training at its first step, or where its checkpoint left it."""
    start = weights.load(Path(settings.init)) if settings.init else lite.initial(settings.seed)
    weights.check_keys(start, lite.shapes(), settings.init or "the start")
    training = Training(start, settings)
    if (settings.out / "checkpoint.pt").exists():
        training.load(settings.out / "checkpoint.pt", settings.device)
    return training


def share_of_rate(step: int, settings: Settings) -> float:
    """Rises linearly to 1, stays, falls linearly to 0 over the last ``cooldown`` steps."""
    left = (settings.steps - step) / max(1, settings.cooldown)
    return min(1.0, (step + 1) / max(1, settings.warmup), left)


def train(settings: Settings) -> Iterator[dict[str, float]]:
    """Train, yielding each step's losses."""
    settings.out.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, settings.precision)
    held_out = Path(settings.held_out).read_text().split() if settings.held_out else []
    net = losses.teachers(settings.vgg, settings.distilled, device=settings.device, dtype=dtype)
    styles = gather_styles(files_of(settings.style, held_out), settings, net, dtype)
    images = [read(path, 2 * settings.size) for path in files_of(settings.content, held_out)]
    training = begin(settings)
    started = time.perf_counter()
    while training.step < settings.steps:
        batch = Batch(*contents(images, settings, training.random), *styles.draw(settings, training.random))
        total, parts = objective(batch, training.state, net, settings, training.random)
        training.advance(total, settings)
        yield {"step": training.step, **parts, "seconds": round(time.perf_counter() - started, 1)}
        if training.step % settings.sample_every == 0:
            write_png(settings.out / "samples.png", samples(training.average, images, styles, settings))
        if training.step % settings.save_every == 0 or training.step == settings.steps:
            training.save(settings.out / "checkpoint.pt")
            publish(settings.out / lite.FILE, save(training.average))


@torch.inference_mode()
def samples(
    state: State, images: Sequence[NDArray[np.uint8]], styles: Styles, settings: Settings, count: int = 4
) -> NDArray[np.uint8]:
    """A sheet of ``count`` photographs, each in ``count`` styles; first row and column are what went in."""
    random = np.random.default_rng(settings.seed)
    side = min(2 * settings.size, *(n for image in images for n in image.shape[:2]))
    x = to_tensor([crop(images[i], side, random) for i in random.integers(len(images), size=count)], "cpu")
    y = to_tensor([styles.crops[i] for i in random.integers(len(styles.crops), size=count)], "cpu")
    state = {k: t.cpu() for k, t in state.items()}
    shown = F.interpolate(y, (side, side), mode="bilinear")
    rows = [torch.cat([torch.ones(3, side, side), *shown], 2)]
    for one in x:
        same = one.expand(count, -1, -1, -1)
        mapped = recoloured(same, *colour_map(same, y))
        painted, _ = paint(mapped, state, describe(y, state, torch.float32), torch.float32)
        rows.append(torch.cat([one, *painted], 2))
    return torch.cat(rows, 1).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()


# The command line


def parse(arguments: Sequence[str]) -> Settings:
    """Settings from ``--settings FILE.toml`` and ``--key value``, which wins."""
    parser = argparse.ArgumentParser(description="Train lite; every setting of the TOML file is also a flag.")
    parser.add_argument("--settings", type=Path, metavar="TOML")
    for field in fields(Settings):
        parser.add_argument("--" + field.name.replace("_", "-"), metavar="VALUE")
    given = vars(parser.parse_args(arguments))
    values: dict[str, Any] = {}
    if path := given.pop("settings"):
        if not path.is_file():
            raise MissingFile(f"there is no settings file {path}")
        values = tomllib.loads(path.read_text("utf-8"))
    values |= {name: value for name, value in given.items() if value is not None}
    return checked(values)


def checked(values: Mapping[str, Any]) -> Settings:
    """Settings of the right types; BadInput names what is unknown, missing or no number."""
    kinds: dict[str, Any] = {"Path": Path, "str": str, "int": int, "float": float}
    known = {field.name: kinds[str(field.type)] for field in fields(Settings)}
    if unknown := sorted(set(values) - set(known)):
        raise BadInput(f"there is no setting {unknown[0]!r}; known are {', '.join(known)}")
    try:
        typed = {name: known[name](value) for name, value in values.items()}
    except ValueError as error:
        raise BadInput(f"a setting is no number: {error}") from None
    if missing := [name for name in ("content", "style", "vgg", "distilled", "out") if name not in typed]:
        raise BadInput(f"--{missing[0]} is not given")
    settings = Settings(**typed)
    if settings.precision not in nets.base.DTYPES:
        raise BadInput(
            f"--precision must be one of {', '.join(nets.base.DTYPES)}, got {settings.precision!r}"
        )
    return settings


#: Columns of ``losses.csv``; a part that is not computed stays empty.
COLUMNS = ("step", "seconds", "total", "style", "content", "stroke", "variation", "lattice", *losses.LAYERS)


def record(path: Path, rows: Iterator[dict[str, float]], every: int = 20) -> None:
    """Append mean losses of every ``every`` steps to a CSV file, and print them."""
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n")
    pending: list[dict[str, float]] = []
    for row in rows:
        pending.append(row)
        if len(pending) < every:
            continue
        mean = {k: f"{np.mean([r[k] for r in pending]):.6g}" for k in row}
        mean |= {"step": f"{row['step']:.0f}", "seconds": f"{row['seconds']:.1f}"}
        pending = []
        with open(path, "a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(mean)
        print("  ".join(f"{k} {mean[k]}" for k in COLUMNS if k in mean), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        settings = parse(sys.argv[1:] if arguments is None else arguments)
        torch.set_num_threads(settings.threads or os.cpu_count() or 1)
        settings.out.mkdir(parents=True, exist_ok=True)
        publish(
            settings.out / "settings.txt",
            "".join(f"{k} = {v}\n" for k, v in asdict(settings).items()).encode(),
        )
        record(settings.out / "losses.csv", train(settings))
    except UrstError as error:
        print(f"train_lite: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("train_lite: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
