"""Transfer of colours end to end beside the network identity, which computes nothing, on the same scene.

Exact statistics take reading passes of their own: the share of the blocks, of measuring, and the whole are
told apart. All jobs run one after the other, twice in turn, and the faster run of each counts.
"""

from __future__ import annotations

import argparse
import json
import shutil

from harness import COMMAND, WORK, measured, scene, style_image, table

JOBS = {
    "identity": [],
    "colour mean-std": ["--method", "mean-std"],
    "colour monge-kantorovich": ["--method", "monge-kantorovich"],
    "colour reinhard": ["--method", "reinhard"],
    "colour reinhard-lab": ["--method", "reinhard-lab"],
    "colour histogram": ["--method", "histogram"],
    "stain macenko": ["--method", "macenko"],
}


def main() -> None:
    """Run every job and print their times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    source, reference = scene(given.megapixels), style_image()
    best: dict[str, tuple[dict[str, float], int]] = {}
    for _ in range(given.rounds):
        for name, options in JOBS.items():
            model, output = name.split()[0], WORK / "colour.tif"
            style = ["--style", "standard" if model == "stain" else str(reference)]
            run = measured(
                [*COMMAND, "stylize", str(source), str(output), "--model", model, *style, *options]
                + ["--overwrite", "--json", "--quality", "90"]
            )
            if run.status:
                raise SystemExit(run.output)
            lines = [json.loads(line) for line in run.output.splitlines() if line.startswith("{")]
            seconds = next(line["seconds"] for line in lines if line.get("event") == "done")
            if name not in best or sum(seconds.values()) < sum(best[name][0].values()):
                best[name] = seconds, run.peak_bytes
    base = best["identity"][0]
    rows = [
        (
            name, seconds["measure"], seconds["blocks"], base["blocks"] / seconds["blocks"],
            given.megapixels / sum(seconds.values()), sum(base.values()) / sum(seconds.values()), peak >> 20,
        )
        for name, (seconds, peak) in best.items()
    ]  # fmt: skip
    header = (
        "job", "measuring s", "blocks s", "blocks against identity (>= 0.8)", "Mpx/s", "job against identity",
        "peak MiB",
    )  # fmt: skip
    table(f"Transfer of colours, {given.megapixels} megapixel scene, end to end", header, rows)
    shutil.rmtree(WORK / "colour.tif.job", ignore_errors=True)
    (WORK / "colour.tif").unlink()


if __name__ == "__main__":
    main()
