#!/usr/bin/env bash
# The main job on a made-up scene of 67 megapixels: `make demo`. Interrupted, it continues where it was.
#
# SIZE=4096x4096 STYLE=munch-scream make demo    another size, another name of `urst-tiles styles` or a picture
# MODEL=microast STYLE=painting.jpg make demo     another network, whose weights are fetched
# MODEL=lite make demo                            a colouring of fine texture, three times as fast
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p demo

model=${MODEL:-painter}
size=${SIZE:-8192x8192}
style=${STYLE:-van-gogh-starry-night}

urst-tiles weights fetch "$model" > demo/weights.txt  # painter and lite need none

[ -f demo/scene.tif ] || python pipelines/make_scene.py demo/scene.tif --size "$size"

rm -f demo/stylised.tif
urst-tiles stylize demo/scene.tif demo/stylised.tif --style "$style" --model "$model"
python pipelines/before_after.py demo/scene.tif demo/stylised.tif demo/before_after.png
urst-tiles styles --sheet demo/styles.png --model painter --labels > demo/styles.txt

cat <<END

Look at:
  demo/before_after.png   the whole and a detail, before and after
  demo/stylised.tif       the stylised scene, a pyramidal GeoTIFF (QGIS, QuPath, any GDAL or libvips viewer)
  demo/scene.tif          the made-up scene
  demo/styles.png         a picture in each of the named styles of --model painter (demo/styles.txt)
END
