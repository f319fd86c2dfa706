"""A job without a network: the model identity, end to end, against ``vips tiffsave`` on the same file.

Both write tiles and a pyramid, compressed with deflate.
"""

from __future__ import annotations

import shutil
import sys

from harness import COMMAND, WORK, measured, scene, style_image, table

MEGAPIXELS = 256

VIPS = """
import sys, pyvips
image = pyvips.Image.new_from_file(sys.argv[1], access="sequential")
image.tiffsave(sys.argv[2], tile=True, pyramid=True, compression="deflate", predictor="horizontal",
               tile_width=512, tile_height=512, bigtiff=True)
"""


def main() -> None:
    """Run both programs twice in turn, and print the faster run of each."""
    source, style = scene(MEGAPIXELS), style_image()
    ours, theirs = WORK / "identity.tif", WORK / "vips.tif"
    best: dict[str, tuple[float, int]] = {}
    for _ in range(2):
        command = [
            *COMMAND,
            "stylize",
            str(source),
            str(ours),
            "--model",
            "identity",
            "--style",
            str(style),
            "--overwrite",
        ]
        for name, run in (
            ("urst-tiles, identity network", measured(command)),
            ("vips tiffsave", measured([sys.executable, "-c", VIPS, str(source), str(theirs)])),
        ):
            if run.status:
                raise SystemExit(run.output)
            if name not in best or run.seconds < best[name][0]:
                best[name] = run.seconds, run.peak_bytes
    reference = best["vips tiffsave"][0]
    sizes = {"urst-tiles, identity network": ours.stat().st_size, "vips tiffsave": theirs.stat().st_size}
    rows = [
        (name, seconds, MEGAPIXELS / seconds, reference / seconds, peak >> 20, sizes[name] >> 20)
        for name, (seconds, peak) in best.items()
    ]
    header = ("what", "seconds", "Mpx/s", "speed against vips (>= 0.7)", "peak MiB", "file MiB")
    table(f"Identity network, {MEGAPIXELS} megapixel scene, end to end", header, rows)
    for path in (ours, theirs):
        path.unlink()
    shutil.rmtree(WORK / "identity.tif.job", ignore_errors=True)


if __name__ == "__main__":
    main()
