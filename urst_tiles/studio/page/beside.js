// A second view, of the image as it is, that moves with the first.
import { strings } from "./strings.js";

const OSD = window.OpenSeadragon;
const CLOSE = 1e-9;

export class Beside {
  constructor(first, element, settings) {
    this.first = first;
    this.element = element;
    this.settings = settings;
    this.osd = null;
    this.leader = first;
    this.source = null;
    first.addHandler("canvas-press", () => { this.leader = first; });
    first.addHandler("canvas-scroll", () => { this.leader = first; });
    first.addHandler("update-viewport", () => { if (this.leader === first) this.follow(first, this.osd); });
  }

  // Shows an image; null hides the view. The first view lays itself out before.
  show(source) {
    this.element.hidden = !source;
    if (!source) {
      this.leader = this.first;
      return;
    }
    this.osd ??= this.made();
    if (this.source === source) return this.follow(this.first, this.osd);
    this.source = source;
    this.osd.world.removeAll();
    this.osd.addTiledImage({ tileSource: source, success: () => this.follow(this.first, this.osd) });
  }

  made() {
    const osd = OSD({ ...this.settings, element: this.element });
    osd.canvas.setAttribute("aria-label", strings.before);
    osd.canvas.setAttribute("role", "application");
    for (const event of ["canvas-press", "canvas-scroll", "canvas-key"]) osd.addHandler(event, () => { this.leader = osd; });
    osd.addHandler("update-viewport", () => { if (this.leader === osd) this.follow(osd, this.first); });
    return osd;
  }

  follow(leader, other) {
    if (!other || this.element.hidden || !other.world.getItemCount()) return;
    const [zoom, centre] = [leader.viewport.getZoom(true), leader.viewport.getCenter(true)];
    const [hers, there] = [other.viewport.getZoom(true), other.viewport.getCenter(true)];
    if (Math.abs(zoom / hers - 1) < CLOSE && centre.distanceTo(there) < CLOSE) return;
    other.viewport.zoomTo(zoom, null, true);
    other.viewport.panTo(centre, true);
  }
}
