// The page: it shows what the studio says, and asks it for tiles. What a tile or a style is, the studio alone knows.
import { strings } from "./strings.js";
import { Viewer } from "./viewer.js";
import { ask, askAhead } from "./ask.js";
import { openFiles, uploadImage } from "./files.js";
import { Making } from "./making.js";
import { onInput, showResult } from "./results.js";
import { Drawing, boxOf } from "./drawing.js";
import { Places } from "./places.js";
import { Styles, mixtureOf } from "./styles.js";

const $ = (id) => document.getElementById(id);
const FIRST = { image: "", style: "", model: "", alpha: "100", colours: "none", statistics: "auto", stroke: "1", mask: "", region: "" };
const CHOICES = ["colours", "stroke", "statistics", "model"];
const NEAR_MS = 100; // a style under the pointer for so long may be chosen next
const LEVELS_MS = 1000; // how often it is looked how far coarser levels are painted
const COPIED_MS = 1600; // for so long a button says that it has copied
const look = { ...FIRST };
let asked = 0; // the number of the newest request for a look; older answers are dropped
let answered = 0; // the newest that is answered
let tellsLevel = false; // whether it is told how far a coarser level is
let name = ""; // what the image is called
let step = 0; // how many changes can be undone
let last = 0; // the newest change
let start, viewer, making, drawing, places, styles;

function fillWords() {
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = strings[node.dataset.text];
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", strings[node.dataset.label]);
  for (const node of document.querySelectorAll("[data-title]")) node.title = strings[node.dataset.title];
  for (const [key, what] of strings.keyList) {
    $("keys-list").append(Object.assign(document.createElement("dt"), { textContent: key }), Object.assign(document.createElement("dd"), { textContent: what }));
  }
}

function say(text) { $("said").textContent = text; }

function sorry(text) {
  $("sorry-text").textContent = text;
  $("sorry").hidden = !text;
}

function busy(text, part) {
  $("busy").hidden = !text;
  $("busy-text").textContent = text ?? "";
  $("busy-bar").hidden = part === undefined;
  if (part !== undefined) $("busy-bar").value = part;
}

// The link: all of the state stands behind the # of the address, which no server sees.
function readLink() {
  const words = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(look)) look[name] = words.get(name) ?? FIRST[name];
  const place = ["x", "y", "zoom"].map((name) => Number(words.get(name)));
  const swipe = Number(words.get("swipe") ?? 50);
  return {
    place: words.has("zoom") && place.every(Number.isFinite) ? place : null,
    swipe: Number.isFinite(swipe) ? swipe : 50,
    beside: words.get("beside") === "1",
  };
}

function writeLink(push) {
  const words = new URLSearchParams(look);
  const place = viewer.place();
  if (place) for (const [k, name] of ["x", "y", "zoom"].entries()) words.set(name, place[k]);
  words.set("swipe", Math.round(viewer.swipe));
  if (viewer.isBeside) words.set("beside", "1");
  note(words, push);
}

function note(words, push) {
  if (push) last = ++step;
  history[push ? "pushState" : "replaceState"]({ step, last }, "", `#${words}`);
  showSteps();
}

function showSteps() {
  $("undo").disabled = step === 0;
  $("redo").disabled = step >= last;
}

function showControls() {
  const paints = Boolean(look.style || look.mask);
  $("alpha").value = look.alpha;
  $("alpha-value").textContent = strings.percent(look.alpha);
  for (const name of CHOICES) $(name).value = look[name];
  styles.show(look.style, !look.mask);
  $("colours").querySelector("option[value=coral]").disabled = !ownAlone();
  for (const option of $("statistics").options) option.disabled = !canMeasure(look.model, option.value);
  $("label-after").textContent = styles.title(look.style) || strings.places;
  $("label-before").textContent = strings.before;
  $("label-before").hidden = $("label-after").hidden = !paints;
  $("divider").hidden = !paints || viewer.isBeside;
  $("beside").setAttribute("aria-pressed", viewer.isBeside);
  $("make").disabled = !look.image || !paints;
  for (const id of ["draw", "region-drag", "region-view"]) $(id).disabled = !look.image;
  showRegion();
  showResult();
}

// Colours can be given to pictures alone, not to styles that come with the network.
const ownAlone = () => look.style !== "" && mixtureOf(look.style).every(([name]) => name.startsWith(":"));

const canMeasure = (model, statistics) => start.statistics[model]?.includes(statistics) ?? true;

function showRegion() {
  const box = look.region ? look.region.split(",").map(Number) : null;
  drawing.region = box;
  drawing.draw();
  $("region-value").textContent = box ? strings.regionValue(box[2], box[3]) : strings.regionWhole;
  $("region-none").disabled = !box;
}

async function showLook(isNewImage, place) {
  const mine = ++asked;
  showResult({});
  showControls();
  places.show(look.mask);
  sorry("");
  if (!look.image) return;
  busy(isNewImage ? strings.opening : strings.painting($("label-after").textContent));
  const watching = setInterval(watchOpening, 500);
  try {
    const facts = await ask("api/look", look);
    if (mine !== asked) return;
    if (isNewImage) {
      $("empty").hidden = true;
      name = facts.name;
      $("image-name").textContent = name;
      $("facts").textContent = strings.facts(facts.width, facts.height, strings.megapixels(facts.width * facts.height / 1e6));
      document.title = `${name} · urst-tiles studio`;
      viewer.openImage(facts, place);
      styles.showSwatches(facts.before);
    }
    viewer.showAfter(facts);
    making.watch(); // finished blocks may lie over it
    showResult(facts);
  } catch (error) {
    if (mine === asked) sorry(error.message);
  } finally {
    clearInterval(watching);
    if (mine === asked) {
      answered = mine;
      busy(null);
    }
  }
}

async function watchOpening() {
  const { opening } = await ask("api/status").catch(() => ({}));
  if (opening && !$("busy").hidden) busy(strings.stage(opening.stage), opening.done / Math.max(1, opening.total));
}

// A painting over coarser levels is measured when it is first looked at so closely, which takes long.
async function watchLevels() {
  if (answered !== asked) return;
  const waits = look.model !== "lite" && viewer.loading.going.size;
  const { opening } = waits ? await ask("api/status").catch(() => ({})) : {};
  if (opening) busy(strings.stage(opening.stage), opening.done / Math.max(1, opening.total));
  else if (tellsLevel && answered === asked) busy(null);
  tellsLevel = Boolean(opening);
}

function change(what) {
  what = onInput(what);
  const isNewImage = "image" in what && what.image !== look.image;
  if (isNewImage) what = { ...what, mask: "", region: "" }; // they lie on the image
  Object.assign(look, what);
  if (look.mask) look.style = mixtureOf(look.style)[0]?.[0] ?? "";
  if (look.colours === "coral" && !ownAlone()) look.colours = "none";
  if (isNewImage) note(new URLSearchParams(look), true);
  else writeLink(true);
  return showLook(isNewImage, null);
}

// A style that the pointer rests on is frozen before it is chosen.
let nearing = 0;
let ahead = null;
function near(style) {
  clearTimeout(nearing);
  ahead?.abort();
  ahead = null;
  if (!style || !look.image || look.mask || style === look.style) return;
  nearing = setTimeout(() => { ahead = askAhead({ ...look, style }); }, NEAR_MS);
}

function changeRegion(box) {
  look.region = box ? box.join(",") : "";
  writeLink(true);
  showRegion();
}

function besides(isBeside) {
  viewer.showBeside(isBeside);
  showControls();
  writeLink(true);
}

function fillChoices() {
  const words = { colours: strings.colourWords, stroke: strings.strokeWords, statistics: strings.statisticsWords, model: strings.modelWords };
  const values = { colours: start.colours, stroke: start.strokes, statistics: [...new Set(Object.values(start.statistics).flat())], model: start.models };
  for (const name of CHOICES) for (const value of values[name]) $(name).append(new Option(words[name][value] ?? value, value));
  $("model-row").hidden = start.models.length < 2;
}

// Puts a text where it can be pasted; the button that was pressed says so for a while.
async function copy(text, told, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(told);
  button.textContent = strings.copied;
  setTimeout(() => { button.textContent = strings[button.dataset.text]; }, COPIED_MS);
}

// The address by which programs for maps have what is shown as a layer.
async function copyLayer() {
  try {
    await copy((await ask("api/layer", look)).xyz, strings.layerCopied, $("layer"));
  } catch (error) {
    sorry(error.message);
  }
}

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  if (event.target.matches("input[type=text], select")) return;
  const key = event.key.toLowerCase();
  const back = { z: () => (event.shiftKey ? history.forward() : step && history.back()), y: () => history.forward() };
  const onControl = event.target.matches("button, input, [role=slider]");
  const keys = {
    "1": () => viewer.fullScale(), "0": () => viewer.whole(), "+": () => viewer.zoomBy(2), "=": () => viewer.zoomBy(2), "-": () => viewer.zoomBy(0.5),
    "[": () => viewer.swipeTo(viewer.swipe - 5), "]": () => viewer.swipeTo(viewer.swipe + 5), f: () => viewer.flip(), b: () => besides(!viewer.isBeside),
    s: () => (document.querySelector("#gallery input:checked") ?? document.querySelector("#gallery input")).focus(),
    p: () => look.image && draw("polygon"), r: () => look.image && draw("box"),
    o: () => $("choose").click(), m: () => $("make").click(), "?": () => $("help").showModal(),
  };
  const command = event.ctrlKey || event.metaKey;
  if (event.altKey || (command && !back[key])) return;
  if (!command && !(onControl && " Enter".includes(event.key)) && drawing.key(event.key)) return stop(event);
  const act = command ? back[key] : keys[key];
  if (!act) return;
  stop(event);
  act();
}

function stop(event) {
  event.preventDefault();
  event.stopPropagation();
}

function draw(kind) {
  drawing.begin(kind);
  $("view").querySelector(".openseadragon-canvas")?.focus(); // so that arrows move the image
}

// Files that are dropped on the image are opened, those on the styles are styles.
function wireDrops() {
  const isFiles = (event) => event.dataTransfer?.types.includes("Files");
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => isFiles(event) && event.preventDefault());
  const targets = { stage: (files) => open(files[0]), left: (files) => files.forEach((file) => styles.bring(file)) };
  for (const [id, act] of Object.entries(targets)) {
    const mark = (on) => (event) => $(id).classList.toggle("dropping", on && Boolean(isFiles(event)));
    for (const name of ["dragenter", "dragover"]) $(id).addEventListener(name, mark(true));
    for (const name of ["dragleave", "drop"]) $(id).addEventListener(name, mark(false));
    $(id).addEventListener("drop", (event) => { if (event.dataTransfer.files.length) act([...event.dataTransfer.files]); });
  }
}

async function open(file) {
  busy(strings.uploading(file.name));
  try {
    await uploadImage(file, (image) => change({ image }));
  } catch (error) {
    busy(null);
    sorry(error.message);
  }
}

function wire() {
  $("alpha").addEventListener("input", () => { $("alpha-value").textContent = strings.percent($("alpha").value); });
  $("alpha").addEventListener("change", () => change({ alpha: $("alpha").value }));
  for (const name of CHOICES.filter((each) => each !== "model")) $(name).addEventListener("change", () => change({ [name]: $(name).value }));
  $("model").addEventListener("change", () => {
    const model = $("model").value;
    change({ model, statistics: canMeasure(model, look.statistics) ? look.statistics : "auto" });
  });
  for (const id of ["choose", "choose-first"]) $(id).addEventListener("click", () => openFiles(look.image, (image) => change({ image })));
  $("keys").addEventListener("click", () => $("help").showModal());
  $("help-close").addEventListener("click", () => $("help").close());
  $("sorry-close").addEventListener("click", () => sorry(""));
  $("link").addEventListener("click", () => { writeLink(false); copy(location.href, strings.linkCopied, $("link")); });
  $("layer").addEventListener("click", copyLayer);
  $("copy").addEventListener("click", async () => { await making.keep(); copy($("command").textContent, strings.copied, $("copy")); });
  $("undo").addEventListener("click", () => history.back());
  $("redo").addEventListener("click", () => history.forward());
  $("in").addEventListener("click", () => viewer.zoomBy(2));
  $("out").addEventListener("click", () => viewer.zoomBy(0.5));
  $("full").addEventListener("click", () => viewer.fullScale());
  $("whole").addEventListener("click", () => viewer.whole());
  $("beside").addEventListener("click", () => besides(!viewer.isBeside));
  $("draw").addEventListener("click", () => draw("polygon"));
  $("region-drag").addEventListener("click", () => draw("box"));
  $("region-view").addEventListener("click", () => changeRegion(boxOf(...viewer.inView(), viewer.facts)));
  $("region-none").addEventListener("click", () => changeRegion(null));
  $("make").addEventListener("click", () => making.open(look));
  document.addEventListener("keydown", onKey, true);
  addEventListener("popstate", (event) => {
    step = event.state?.step ?? 0;
    last = Math.max(step, last);
    showSteps();
    const image = look.image;
    const { place, swipe, beside } = readLink();
    viewer.swipeTo(swipe);
    viewer.showBeside(beside);
    if (!event.state && place && look.image === image) viewer.goTo(place); // an address that was edited, and no undo
    showLook(look.image !== image, place);
  });
  wireDrops();
}

async function begin() {
  fillWords();
  viewer = new Viewer({ onMove: () => look.image && writeLink(false), onTrouble: sorry, onView: () => drawing?.draw() });
  making = new Making({ viewer, onShow: (image) => change({ image, style: "" }) });
  try {
    start = await ask("api/start");
  } catch (error) {
    sorry(error.message);
    return;
  }
  styles = new Styles(start, { onStyle: (style) => change({ style }), onNear: near, onTrouble: sorry, busy });
  drawing = new Drawing(viewer, { onBox: changeRegion, onPolygon: (corners) => places.add(corners), onKind: (kind) => { for (const [id, one] of [["draw", "polygon"], ["region-drag", "box"]]) $(id).setAttribute("aria-pressed", kind === one); } });
  places = new Places(drawing, styles, { onMask: (mask) => change({ mask }), onTrouble: sorry });
  fillChoices();
  FIRST.image = start.image;
  FIRST.model = start.model;
  const { place, swipe, beside } = readLink();
  step = history.state?.step ?? 0;
  last = Math.max(history.state?.last ?? 0, step);
  showSteps();
  wire();
  viewer.swipeTo(swipe);
  viewer.showBeside(beside);
  making.watch();
  setInterval(watchLevels, LEVELS_MS);
  await showLook(true, place);
}

begin();
