// Tiles on their way: those that nobody would see any more are dropped, and the studio does not make them.
import { strings } from "./strings.js";

export class Loading {
  constructor(onTrouble) {
    this.approximate = new WeakSet();
    this.going = new Map(); // tile -> what stops it
    this.downloads = {
      downloadTileStart: (job) => this.start(job, onTrouble),
      downloadTileAbort: (job) => this.going.get(job.tile)?.abort(),
    };
  }

  async start(job, onTrouble) {
    const { tile } = job;
    const stop = new AbortController();
    this.going.set(tile, stop);
    try {
      const answer = await fetch(job.src, { signal: stop.signal });
      if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? strings.tileFailed);
      if (answer.headers.get("X-Approximate") === "yes") this.approximate.add(tile);
      const data = await answer.blob();
      this.going.delete(tile);
      job.finish(data, null, "rasterBlob");
    } catch (error) {
      this.going.delete(tile);
      const dropped = stop.signal.aborted;
      job.fail(error.message, null);
      if (dropped) tile.exists = true; // so that it can be asked for again
      else onTrouble(error instanceof TypeError ? strings.notAnswering : error.message);
    }
  }

  // Stops all tiles of which isOut is true.
  drop(isOut) {
    for (const [tile, stop] of this.going) if (isOut(tile)) stop.abort();
  }
}
