// The deep-zoom view: the image, over it the painting right of the divider.
import { strings } from "./strings.js";
import { Beside } from "./beside.js";
import { Loading } from "./loading.js";

const $ = (id) => document.getElementById(id);
const OSD = window.OpenSeadragon;
const NEXT_TO_NONE = 1e-9;
const PATIENCE_MS = 3600000; // a tile of a painting may wait for the levels above it
const SETTLED_MS = 250; // a view that has not moved for so long stands in the link

// An image of these facts, whose tiles have the addresses that getTileUrl tells.
export const tileSource = (facts, getTileUrl) => ({
  width: facts.width, height: facts.height, tileSize: facts.tile, tileOverlap: 0,
  minLevel: Math.min(8, facts.levels - 1), maxLevel: facts.levels - 1, getTileUrl,
});

// 1, 2 or 5 times a power of ten, at most n.
function round(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return [5, 2, 1].find((k) => k * power <= n) * power;
}

export class Viewer {
  constructor({ onMove, onTrouble, onView }) {
    this.facts = null;
    this.openings = 0; // how many images were opened, the same one also several times
    this.swipe = 50;
    this.before = null;
    this.afters = []; // the newest last; older ones stay until it is loaded
    this.clipped = new WeakMap(); // where the clip of each begins
    this.onMove = onMove;
    this.onView = onView;
    this.loading = new Loading(onTrouble);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const settings = {
      showNavigationControl: false, drawer: "canvas", imageLoaderLimit: 4, timeout: PATIENCE_MS,
      maxZoomPixelRatio: 8, visibilityRatio: 0.4, animationTime: still ? 0 : 0.6, springStiffness: 9, maxImageCacheCount: 120,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, gestureSettingsTouch: { dblClickToZoom: true },
      tabIndex: 0, immediateRender: false, blendTime: 0,
    };
    this.osd = OSD({ ...settings, element: $("view") });
    this.beside = new Beside(this.osd, $("view-before"), settings);
    this.isBeside = false;
    this.osd.canvas.setAttribute("aria-label", strings.viewer);
    this.osd.canvas.setAttribute("role", "application");
    this.osd.addHandler("update-viewport", () => this.moved());
    this.wireDivider();
  }

  get after() { return this.afters.at(-1) ?? null; }

  tiles(facts, state) {
    return { ...this.loading.downloads, ...tileSource(facts, (level, x, y) => `tiles/${state}/${level}/${x}_${y}.png`) };
  }

  openImage(facts, place) {
    this.facts = facts;
    this.openings += 1;
    this.afters = [];
    this.before = null;
    this.osd.world.removeAll();
    this.osd.addTiledImage({
      tileSource: this.tiles(facts, facts.before), index: 0,
      success: ({ item }) => {
        this.before = item;
        this.layOut();
        if (place) this.goTo(place);
        else this.osd.viewport.goHome(true);
        this.clip();
      },
    });
  }

  showAfter(facts) {
    this.osd.imageLoader.clear();
    this.loading.drop((tile) => this.afters.includes(tile.tiledImage));
    this.facts = { ...this.facts, after: facts.after };
    this.layOut();
    if (!facts.after) {
      for (const item of this.afters.splice(0)) this.osd.world.removeItem(item);
      return;
    }
    this.osd.addTiledImage({
      tileSource: this.tiles(facts, facts.after),
      success: ({ item }) => {
        this.afters.push(item);
        this.clip();
        const replace = () => {
          if (!item.getFullyLoaded()) return;
          item.removeHandler("fully-loaded-change", replace);
          for (const old of this.afters.splice(0, this.afters.indexOf(item))) this.osd.world.removeItem(old);
        };
        item.addHandler("fully-loaded-change", replace);
        while (this.afters.length > 2) this.osd.world.removeItem(this.afters.shift());
      },
    });
  }

  // Side by side, or the painting over the image.
  showBeside(isBeside) {
    this.isBeside = isBeside;
    if (this.facts) this.layOut();
  }

  layOut() {
    const two = this.isBeside && Boolean(this.facts.after);
    if ($("stage").classList.toggle("two", two) !== this.wasTwo) {
      this.wasTwo = two;
      const place = this.place();
      this.osd.forceResize();
      if (place) this.goTo(place);
    }
    if (two && this.source?.state !== this.facts.before) {
      this.source = { state: this.facts.before, tiles: this.tiles(this.facts, this.facts.before) };
    }
    this.beside.show(two ? this.source.tiles : null);
    if (this.before) this.clip();
  }

  // The painting, and what else is given, is seen right of the divider alone.
  clip(items = this.afters) {
    const width = this.osd.viewport.getContainerSize().x;
    const share = this.wasTwo ? 0 : this.swipe / 100; // side by side there is no divider
    const at = this.osd.viewport.pointFromPixel(new OSD.Point(width * share, 0), true);
    for (const item of items) {
      const x = Math.min(Math.max(item.viewportToImageCoordinates(at).x, 0), this.facts.width);
      if (this.clipped.get(item) === x) continue; // a new clip has all drawn anew, which calls this again
      this.clipped.set(item, x);
      item.setOpacity(x >= this.facts.width ? 0 : 1);
      if (x < this.facts.width) item.setClip(new OSD.Rect(x, 0, this.facts.width - x, this.facts.height));
    }
  }

  swipeTo(percent) {
    this.swipe = Math.min(100, Math.max(0, percent));
    const divider = $("divider");
    divider.style.left = `${this.swipe}%`;
    divider.setAttribute("aria-valuenow", Math.round(this.swipe));
    divider.setAttribute("aria-valuetext", strings.dividerAt(Math.round(this.swipe)));
    if (this.before) this.clip();
  }

  flip() {
    this.swipeTo(this.swipe === 100 ? 0 : 100);
    this.onMove();
  }

  wireDivider() {
    const divider = $("divider");
    divider.addEventListener("pointerdown", (event) => { divider.setPointerCapture(event.pointerId); event.preventDefault(); divider.focus(); });
    divider.addEventListener("pointermove", (event) => {
      if (!divider.hasPointerCapture(event.pointerId)) return;
      const { left, width } = $("stage").getBoundingClientRect();
      this.swipeTo(100 * (event.clientX - left) / width);
    });
    divider.addEventListener("pointerup", () => this.onMove());
    divider.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.swipeTo(this.swipe + steps[event.key]);
      this.onMove();
    });
  }

  moved() {
    if (!this.before) return;
    if (this.afters.length) this.clip();
    this.sharpen();
    this.loading.drop((tile) => this.isOut(tile));
    this.onView();
    const { x, y, zoom } = this.middle();
    $("where").textContent = strings.where(x, y, zoom < 0.095 ? (100 * zoom).toPrecision(2) : Math.round(100 * zoom));
    this.showScale(zoom / devicePixelRatio);
    clearTimeout(this.settling);
    this.settling = setTimeout(() => { this.snap(); this.onMove(); }, SETTLED_MS);
    const shown = this.after && (this.wasTwo || this.swipe < 100) ? this.after.getTilesToDraw() : [];
    $("approximate").hidden = !shown.some((one) => this.loading.approximate.has(one.tile));
  }

  // Whether nobody would see a tile: it lies out of the view, or is finer than what is looked at.
  isOut(tile) {
    if (tile.tiledImage?.viewer !== this.osd) return false;
    const view = this.osd.viewport.getBounds(true);
    const target = this.osd.viewport.getBounds(false); // where the view is going to
    const { bounds } = tile;
    const meets = (box) => bounds.x < box.x + box.width && box.x < bounds.x + bounds.width && bounds.y < box.y + box.height && box.y < bounds.y + bounds.height;
    const finest = this.facts.levels - 1 + Math.ceil(Math.log2(Math.max(NEXT_TO_NONE, this.middle().zoom)));
    return !(meets(view) || meets(target)) || tile.level > Math.max(finest, 8) + 1;
  }

  screenAt(x, y) {
    const point = this.before.imageToViewerElementCoordinates(new OSD.Point(x, y));
    return [point.x, point.y];
  }

  imageAt(x, y) {
    const point = this.before.viewerElementToImageCoordinates(new OSD.Point(x, y));
    return [point.x, point.y];
  }

  // How many pixels of the image so many of the screen are.
  pixelsOfScreen(n) { return n / this.before.viewportToImageZoom(this.osd.viewport.getZoom(true)); }

  // The part of the image in view, [x, y, w, h].
  inView() {
    const { clientWidth, clientHeight } = $("view");
    return [this.imageAt(0, 0), this.imageAt(clientWidth, clientHeight)];
  }

  // OpenSeadragon draws tiles without overlap a pixel too large, so that no gap is seen between them. At full scale
  // there is none, and pixels stay as they are.
  sharpen() {
    const overlap = this.atFullScale() ? NEXT_TO_NONE : 0;
    for (const { source } of [this.before, ...this.afters]) {
      if (source.tileOverlap !== overlap) this.osd.forceRedraw();
      source.tileOverlap = overlap;
    }
  }

  atFullScale() {
    return Math.abs(this.osd.viewport.getZoom(true) / this.before.imageToViewportZoom(1 / devicePixelRatio) - 1) < 1e-3;
  }

  // At full scale pixels of the image lie on those of the screen, so that none is mixed with its neighbours.
  snap() {
    if (!this.atFullScale()) return;
    const scale = this.before.imageToViewportZoom(1 / devicePixelRatio);
    const corner = this.before.viewerElementToImageCoordinates(new OSD.Point(0, 0));
    const move = new OSD.Point(Math.round(corner.x) - corner.x, Math.round(corner.y) - corner.y);
    if (Math.abs(move.x) + Math.abs(move.y) < 0.001) return;
    this.osd.viewport.zoomTo(scale, null, true);
    this.osd.viewport.panBy(move.divide(this.facts.width), true);
  }

  middle() {
    const centre = this.before.viewportToImageCoordinates(this.osd.viewport.getCenter(true));
    const zoom = this.before.viewportToImageZoom(this.osd.viewport.getZoom(true)) * devicePixelRatio;
    return { x: Math.round(centre.x), y: Math.round(centre.y), zoom };
  }

  showScale(zoom) {
    const microns = this.facts.microns;
    const length = round(120 / zoom * (microns ?? 1));
    $("scale").hidden = !Number.isFinite(length);
    $("scale").firstElementChild.style.width = `${length / (microns ?? 1) * zoom}px`;
    $("scale").lastElementChild.textContent = microns ? strings.length(length) : strings.pixels(length);
  }

  // x and y of the middle in pixels of the image, and the zoom.
  place() {
    if (!this.before) return null;
    const { x, y, zoom } = this.middle();
    return [x, y, Number(zoom.toPrecision(5))];
  }

  goTo([x, y, zoom]) {
    this.osd.viewport.zoomTo(this.before.imageToViewportZoom(zoom / devicePixelRatio), null, true);
    this.osd.viewport.panTo(this.before.imageToViewportCoordinates(new OSD.Point(x, y)), true);
  }

  fullScale() { if (this.before) this.osd.viewport.zoomTo(this.before.imageToViewportZoom(1 / devicePixelRatio)); }

  whole() { this.osd.viewport.goHome(); }

  zoomBy(factor) { this.osd.viewport.zoomBy(factor).applyConstraints(); }
}
