// The styles: the gallery, pictures of one's own, and mixtures.
import { strings } from "./strings.js";
import { upload } from "./ask.js";

const $ = (id) => document.getElementById(id);
const MOST = 6;

// A mixture as text: "a=60,b=40"; a single style is its name alone.
export const mixtureOf = (style) => (style.includes("=")
  ? style.split(",").map((text) => { const k = text.lastIndexOf("="); return [text.slice(0, k), Number(text.slice(k + 1))]; })
  : style ? [[style, 100]] : []);

const textOf = (mixed) => (mixed.length > 1 ? mixed.map((one) => one.join("=")).join(",") : mixed[0]?.[0] ?? "");

export class Styles {
  constructor({ styles, uploads }, { onStyle, onNear, onTrouble, busy }) {
    this.titles = new Map([["", strings.none]]);
    this.swatches = "";
    this.mixed = [];
    this.on = { style: onStyle, near: onNear, trouble: onTrouble, busy };
    for (const { name, title } of [{ name: "", title: strings.none }, ...uploads, ...styles]) $("gallery").append(this.tile(name, title));
    $("own").addEventListener("click", () => $("own-file").click());
    $("own-file").addEventListener("change", () => {
      const files = [...$("own-file").files];
      $("own-file").value = "";
      for (const file of files) this.bring(file);
    });
    $("mix").addEventListener("change", () => {
      this.kinds();
      if (!$("mix").checked && this.mixed.length > 1) this.choose(this.mixed.slice(0, 1));
      this.sliders();
    });
  }

  tile(name, title) {
    this.titles.set(name, title);
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: $("mix").checked ? "checkbox" : "radio", name: "style", value: name });
    const image = Object.assign(document.createElement("img"), { alt: "", loading: "lazy", width: 128, height: 128 });
    const text = Object.assign(document.createElement("span"), { textContent: title });
    input.addEventListener("change", () => this.picked(name, input.checked));
    label.addEventListener("pointerenter", () => this.on.near($("mix").checked ? "" : name));
    label.addEventListener("pointerleave", () => this.on.near(""));
    label.append(input, image, text);
    label.title = title;
    return label;
  }

  inputs() { return [...$("gallery").querySelectorAll("input")]; }

  kinds() {
    for (const input of this.inputs()) input.type = $("mix").checked ? "checkbox" : "radio";
    this.check();
  }

  picked(name, chosen) {
    if (!$("mix").checked || !name) return this.choose(name ? [[name, 100]] : []);
    const others = this.mixed.filter(([one]) => one !== name);
    if (chosen && others.length === MOST) {
      this.on.trouble(strings.mixAtMost(MOST));
      return this.check();
    }
    const next = chosen ? [...others, [name, 50]] : others;
    return this.choose(next.length > 1 ? next.map(([one, share]) => [one, Math.min(share, 100)]) : next);
  }

  choose(mixed) {
    this.mixed = mixed;
    this.on.style(textOf(mixed));
  }

  // What the state of the page says.
  show(style, mayMix) {
    this.mixed = mixtureOf(style);
    if (this.mixed.length > 1) $("mix").checked = true;
    $("mix").disabled = !mayMix;
    if (!mayMix) $("mix").checked = false;
    this.kinds();
    this.sliders();
  }

  check() {
    const chosen = new Set(this.mixed.map(([name]) => name));
    for (const input of this.inputs()) input.checked = input.value ? chosen.has(input.value) : !chosen.size;
  }

  sliders() {
    $("mixture").hidden = this.mixed.length < 2;
    const sum = this.mixed.reduce((total, [, share]) => total + share, 0);
    const shown = this.mixed.map(([name]) => name).join();
    if ($("mixture").dataset.shown !== shown) {
      $("mixture").dataset.shown = shown;
      $("mixture").replaceChildren(...this.mixed.map(([name], n) => this.slider(name, n)));
    }
    for (const [n, [, share]] of this.mixed.entries()) {
      const row = $("mixture").children[n];
      row.querySelector("input").value = share;
      row.querySelector("output").textContent = strings.percent(Math.round(100 * share / sum));
    }
  }

  slider(name, n) {
    const row = document.createElement("label");
    const text = Object.assign(document.createElement("span"), { textContent: this.titles.get(name) ?? name });
    const input = Object.assign(document.createElement("input"), { type: "range", min: 5, max: 100, step: 5 });
    input.addEventListener("input", () => { this.mixed[n][1] = Number(input.value); this.sliders(); });
    input.addEventListener("change", () => this.choose(this.mixed));
    row.append(text, document.createElement("output"), input);
    return row;
  }

  title(style) {
    return mixtureOf(style).map(([name]) => this.titles.get(name) ?? name).join(" + ");
  }

  async bring(file) {
    this.on.busy(strings.uploading(file.name));
    try {
      const { word, name } = await upload(file, "style");
      if (!this.titles.has(word)) {
        const tile = this.tile(word, name);
        $("gallery").children[0].after(tile);
        this.swatch(tile);
      }
      this.picked(word, true);
    } catch (error) {
      this.on.busy(null);
      this.on.trouble(error.message);
    }
  }

  showSwatches(before) {
    this.swatches = before;
    for (const label of $("gallery").children) this.swatch(label);
  }

  swatch(label) {
    const name = label.querySelector("input").value;
    label.querySelector("img").removeAttribute("src"); // that of the last image
    if (this.swatches) label.querySelector("img").src = name ? `swatches/${this.swatches}/${name}.jpg` : `swatches/${this.swatches}.jpg`;
  }
}
