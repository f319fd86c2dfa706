#!/usr/bin/env bash
# The main job on a made-up scene of 67 megapixels: `make demo`. Interrupted, it continues where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p demo

model=${MODEL:-microast}
size=${SIZE:-8192x8192}
style=${STYLE:-swirls}

# Weights: the folder named by URST_TILES_WEIGHTS, else the one beside the repository, else fetched into the cache.
if [ -z "${URST_TILES_WEIGHTS:-}" ] && [ -d "../shared/weights/$model" ]; then
    export URST_TILES_WEIGHTS=../shared/weights
elif [ -z "${URST_TILES_WEIGHTS:-}" ]; then
    urst-tiles weights fetch "$model"
fi

[ -f demo/scene.tif ] || python pipelines/make_scene.py demo/scene.tif --size "$size"
[ -f demo/style.png ] || python pipelines/make_style.py demo/style.png --name "$style"

rm -f demo/stylised.tif
urst-tiles stylize demo/scene.tif demo/stylised.tif --style demo/style.png --model "$model"
python pipelines/before_after.py demo/scene.tif demo/stylised.tif demo/before_after.png

cat <<END

Look at:
  demo/before_after.png   the whole and a detail, before and after
  demo/stylised.tif       the stylised scene, a pyramidal GeoTIFF (QGIS, QuPath, any GDAL or libvips viewer)
  demo/scene.tif          the made-up scene
  demo/style.png          the made-up style
END
