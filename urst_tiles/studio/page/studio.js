// The page: it shows what the studio says, and asks it for tiles. What a tile or a style is, the studio alone knows.
import { strings } from "./strings.js";
import { Viewer } from "./viewer.js";
import { ask } from "./ask.js";
import { openFiles } from "./files.js";
import { Making } from "./making.js";
import { wireLayer } from "./layers.js";
import { onInput, showResult } from "./results.js";

const $ = (id) => document.getElementById(id);
const FIRST = { image: "", style: "", model: "lite", alpha: "100", colours: "none" };
const look = { ...FIRST };
let asked = 0; // the number of the newest request for a look; older answers are dropped
let start = null;
let viewer = null;
let making = null;

function fillWords() {
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = strings[node.dataset.text];
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", strings[node.dataset.label]);
  for (const node of document.querySelectorAll("[data-title]")) node.title = strings[node.dataset.title];
  for (const [key, what] of strings.keyList) {
    $("keys-list").append(Object.assign(document.createElement("dt"), { textContent: key }), Object.assign(document.createElement("dd"), { textContent: what }));
  }
}

export function say(text) { $("said").textContent = text; }

export function sorry(text) {
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
  return { place: words.has("zoom") && place.every(Number.isFinite) ? place : null, swipe: Number.isFinite(swipe) ? swipe : 50 };
}

function writeLink(push) {
  const words = new URLSearchParams(look);
  const place = viewer.place();
  if (place) for (const [k, name] of ["x", "y", "zoom"].entries()) words.set(name, place[k]);
  words.set("swipe", Math.round(viewer.swipe));
  history[push ? "pushState" : "replaceState"](null, "", `#${words}`);
}

function showControls() {
  $("alpha").value = look.alpha;
  $("alpha-value").textContent = strings.percent(look.alpha);
  $("colours").checked = look.colours === "luminance";
  $("model").value = look.model;
  const input = document.querySelector(`#gallery input[value="${CSS.escape(look.style)}"]`);
  if (input) input.checked = true;
  const title = start.styles.find((style) => style.name === look.style)?.title;
  $("label-after").textContent = title ?? "";
  $("label-before").textContent = strings.before;
  $("label-before").hidden = $("label-after").hidden = $("divider").hidden = !look.style;
  $("make").disabled = !look.image || !look.style;
  showResult();
}

async function showLook(isNewImage, place) {
  const mine = ++asked;
  showResult({});
  showControls();
  sorry("");
  if (!look.image) return;
  busy(isNewImage ? strings.opening : strings.painting($("label-after").textContent));
  const watching = isNewImage ? setInterval(watchOpening, 500) : 0;
  try {
    const facts = await ask("api/look", look);
    if (mine !== asked) return;
    if (isNewImage) {
      $("empty").hidden = true;
      $("image-name").textContent = look.image;
      $("facts").textContent = strings.facts(facts.width, facts.height, strings.megapixels(facts.width * facts.height / 1e6));
      document.title = `${look.image} · urst-tiles studio`;
      viewer.openImage(facts, place);
      showSwatches(facts.before);
    }
    viewer.showAfter(facts);
    showResult(facts);
  } catch (error) {
    if (mine === asked) sorry(error.message);
  } finally {
    clearInterval(watching);
    if (mine === asked) busy(null);
  }
}

async function watchOpening() {
  const { opening } = await ask("api/status").catch(() => ({}));
  if (opening && !$("busy").hidden) busy(strings.stages[opening.stage] ?? strings.opening, opening.done / Math.max(1, opening.total));
}

function change(what) {
  what = onInput(what);
  const isNewImage = "image" in what && what.image !== look.image;
  Object.assign(look, what);
  if (isNewImage) history.pushState(null, "", `#${new URLSearchParams(look)}`);
  else writeLink(true);
  return showLook(isNewImage, null);
}

function fillGallery() {
  const styles = [{ name: "", title: strings.none }, ...start.styles];
  for (const { name, title } of styles) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "style", value: name });
    const image = Object.assign(document.createElement("img"), { alt: "", loading: "lazy", width: 128, height: 128 });
    const text = Object.assign(document.createElement("span"), { textContent: title });
    input.addEventListener("change", () => change({ style: name }));
    label.append(input, image, text);
    label.title = name;
    $("gallery").append(label);
  }
  for (const model of start.models) $("model").append(new Option(model, model));
  $("model-row").hidden = start.models.length < 2;
}

function showSwatches(before) {
  for (const label of $("gallery").children) {
    const name = label.querySelector("input").value;
    label.querySelector("img").removeAttribute("src"); // that of the last image
    label.querySelector("img").src = name ? `swatches/${before}/${name}.jpg` : `swatches/${before}.jpg`;
  }
}

async function copy(text, told) {
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
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input[type=text], select")) return;
  const keys = {
    "1": () => viewer.fullScale(), "0": () => viewer.whole(), "+": () => viewer.zoomBy(2), "=": () => viewer.zoomBy(2), "-": () => viewer.zoomBy(0.5),
    "[": () => viewer.swipeTo(viewer.swipe - 5), "]": () => viewer.swipeTo(viewer.swipe + 5), f: () => viewer.flip(),
    s: () => (document.querySelector("#gallery input:checked") ?? document.querySelector("#gallery input")).focus(),
    o: () => $("choose").click(), m: () => $("make").click(), "?": () => $("help").showModal(),
  };
  const act = keys[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  event.stopPropagation();
  act();
}

function wire() {
  $("alpha").addEventListener("input", () => { $("alpha-value").textContent = strings.percent($("alpha").value); });
  $("alpha").addEventListener("change", () => change({ alpha: $("alpha").value }));
  $("colours").addEventListener("change", () => change({ colours: $("colours").checked ? "luminance" : "none" }));
  $("model").addEventListener("change", () => change({ model: $("model").value }));
  for (const id of ["choose", "choose-first"]) $(id).addEventListener("click", () => openFiles(look.image, (image) => change({ image })));
  $("keys").addEventListener("click", () => $("help").showModal());
  $("help-close").addEventListener("click", () => $("help").close());
  $("sorry-close").addEventListener("click", () => sorry(""));
  $("link").addEventListener("click", () => { writeLink(false); copy(location.href, strings.linkCopied); $("link").textContent = strings.copied; setTimeout(() => { $("link").textContent = strings.copyLink; }, 1600); });
  $("copy").addEventListener("click", () => { copy($("command").textContent, strings.copied); $("copy").textContent = strings.copied; setTimeout(() => { $("copy").textContent = strings.copy; }, 1600); });
  $("in").addEventListener("click", () => viewer.zoomBy(2));
  $("out").addEventListener("click", () => viewer.zoomBy(0.5));
  $("full").addEventListener("click", () => viewer.fullScale());
  $("whole").addEventListener("click", () => viewer.whole());
  $("make").addEventListener("click", () => making.open(look));
  document.addEventListener("keydown", onKey, true);
  addEventListener("popstate", () => {
    const image = look.image;
    const { place, swipe } = readLink();
    viewer.swipeTo(swipe);
    showLook(look.image !== image, place);
  });
}

async function begin() {
  fillWords();
  viewer = new Viewer({ onMove: () => look.image && writeLink(false), onTrouble: sorry });
  making = new Making({ viewer, onShow: (image) => change({ image, style: "" }) });
  try {
    start = await ask("api/start");
  } catch (error) {
    sorry(error.message);
    return;
  }
  fillGallery();
  FIRST.image = start.image;
  const { place, swipe } = readLink();
  wire();
  wireLayer({ look, copy, sorry });
  viewer.swipeTo(swipe);
  making.watch();
  await showLook(true, place);
}

begin();
