// The finished blocks of a painting that is being made, right of the divider, in their places.
const OSD = window.OpenSeadragon;

export class Blocks {
  constructor(viewer) {
    this.viewer = viewer;
    this.shown = ""; // which job, and how many of its blocks, the newest item shows
    this.items = []; // the newest last; older ones stay until it is loaded
    this.clipped = new WeakMap();
    viewer.osd.addHandler("update-viewport", () => this.clip());
  }

  show(job) {
    const { facts } = this.viewer;
    const key = job && facts && job.done ? `${job.number} ${job.after} ${job.done}` : "";
    if (key === this.shown) return;
    this.shown = key;
    if (!key) return this.clear(0);
    this.viewer.osd.addTiledImage({
      tileSource: {
        width: facts.width, height: facts.height, tileSize: facts.tile, tileOverlap: 0, minLevel: Math.min(8, facts.levels - 1), maxLevel: facts.levels - 1,
        getTileUrl: (level, x, y) => `blocks/${job.number}/${level}/${x}_${y}.png?done=${job.done}`,
      },
      success: ({ item }) => {
        if (this.shown !== key) return this.viewer.osd.world.removeItem(item);
        this.items.push(item);
        this.clip();
        item.addHandler("fully-loaded-change", ({ fullyLoaded }) => fullyLoaded && item === this.items.at(-1) && this.clear(1));
      },
    });
  }

  // Removes all but the newest.
  clear(newest) {
    for (const item of this.items.splice(0, this.items.length - newest)) this.viewer.osd.world.removeItem(item);
  }

  clip() {
    const { osd, swipe, facts } = this.viewer;
    const share = this.viewer.wasTwo ? 0 : swipe / 100; // side by side there is no divider
    const at = osd.viewport.pointFromPixel(new OSD.Point(osd.viewport.getContainerSize().x * share, 0), true);
    for (const item of this.items) {
      if (osd.world.getIndexOfItem(item) < 0) continue; // another image was opened
      const x = Math.min(Math.max(item.viewportToImageCoordinates(at).x, 0), facts.width);
      if (this.clipped.get(item) === x) continue; // a new clip has all drawn anew, which calls this again
      this.clipped.set(item, x);
      item.setOpacity(x >= facts.width ? 0 : 1);
      if (x < facts.width) item.setClip(new OSD.Rect(x, 0, facts.width - x, facts.height));
    }
  }
}
