// The finished blocks of a painting that is being made, right of the divider, in their places.
import { tileSource } from "./viewer.js";

export class Blocks {
  constructor(viewer) {
    this.viewer = viewer;
    this.shown = ""; // which job, how many of its blocks, and over which opening of its image, the newest item shows
    this.items = []; // the newest last; older ones stay until it is loaded
    viewer.osd.addHandler("update-viewport", () => this.clip());
  }

  show(job) {
    const { facts, openings } = this.viewer;
    const key = job && facts && job.blocks ? `${job.number} ${job.after} ${job.blocks} ${openings}` : "";
    if (key === this.shown) return;
    this.shown = key;
    if (!key) return this.clear(0);
    this.viewer.osd.addTiledImage({
      tileSource: tileSource(facts, (level, x, y) => `blocks/${job.number}/${level}/${x}_${y}.png?done=${job.blocks}&opening=${openings}`),
      success: ({ item }) => {
        if (this.shown !== key || this.viewer.openings !== openings) return this.viewer.osd.world.removeItem(item);
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
    const { world } = this.viewer.osd;
    this.viewer.clip(this.items.filter((item) => world.getIndexOfItem(item) >= 0)); // the others are of another image
  }
}
