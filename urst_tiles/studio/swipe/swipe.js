// A page that needs no server: an image, and over it its painting right of the divider. facts.js has what is shown.
(() => {
  const $ = (id) => document.getElementById(id);
  const { before, after, names } = window.facts;
  const said = (percent) => `the painting from ${percent} % of the width on`;
  const source = ({ folder, kind, width, height, tile, levels }) => ({
    width, height, tileSize: tile, tileOverlap: 0, minLevel: 0, maxLevel: levels - 1,
    getTileUrl: (level, x, y) => `${folder}/${level}/${x}_${y}.${kind}`,
  });
  document.title = names.after;
  $("before").textContent = names.before;
  $("after").textContent = names.style;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const osd = window.OpenSeadragon({
    element: $("view"), showNavigationControl: false, drawer: "canvas", crossOriginPolicy: false, maxZoomPixelRatio: 8, visibilityRatio: 0.4,
    animationTime: still ? 0 : 0.6, springStiffness: 9, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, tabIndex: 0, blendTime: 0,
  });
  osd.canvas.setAttribute("aria-label", "The image, before and after");
  let swipe = 50;
  let painting = null;
  let clipped = null;

  function clip() {
    if (!painting) return;
    const at = osd.viewport.pointFromPixel(new window.OpenSeadragon.Point(osd.viewport.getContainerSize().x * swipe / 100, 0), true);
    const x = Math.min(Math.max(painting.viewportToImageCoordinates(at).x, 0), after.width);
    if (x === clipped) return; // a new clip has all drawn anew, which calls this again
    clipped = x;
    painting.setOpacity(x >= after.width ? 0 : 1);
    if (x < after.width) painting.setClip(new window.OpenSeadragon.Rect(x, 0, after.width - x, after.height));
  }

  function swipeTo(percent) {
    swipe = Math.min(100, Math.max(0, percent));
    $("divider").style.left = `${swipe}%`;
    $("divider").setAttribute("aria-valuenow", Math.round(swipe));
    $("divider").setAttribute("aria-valuetext", said(Math.round(swipe)));
    clip();
  }

  osd.addTiledImage({ tileSource: source(before), index: 0 });
  osd.addTiledImage({ tileSource: source(after), success: ({ item }) => { painting = item; clip(); } });
  osd.addHandler("update-viewport", clip);
  const divider = $("divider");
  divider.addEventListener("pointerdown", (event) => { divider.setPointerCapture(event.pointerId); event.preventDefault(); divider.focus(); });
  divider.addEventListener("pointermove", (event) => { if (divider.hasPointerCapture(event.pointerId)) swipeTo(100 * event.clientX / innerWidth); });
  divider.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    swipeTo(swipe + steps[event.key]);
  });
  document.addEventListener("keydown", (event) => {
    const steps = { "[": swipe - 5, "]": swipe + 5, f: swipe === 100 ? 0 : 100 };
    if (!event.ctrlKey && !event.metaKey && !event.altKey && event.key in steps) swipeTo(steps[event.key]);
  });
  swipeTo(50);
})();
