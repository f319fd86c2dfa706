// The list of the polygons that were drawn, each with the style that it has.
import { strings } from "./strings.js";
import { ask, send } from "./ask.js";

const $ = (id) => document.getElementById(id);

export class Places {
  constructor(drawing, styles, { onMask, onTrouble }) {
    this.drawing = drawing;
    this.styles = styles;
    this.on = { mask: onMask, trouble: onTrouble };
    this.mask = "";
    this.last = null; // the style of the newest polygon, which the next one gets too
  }

  get polygons() { return this.drawing.polygons; }

  add(corners) {
    const others = [...this.styles.titles.keys()].filter((name) => name && !this.styles.mixed.some(([one]) => one === name));
    return this.put([...this.polygons, { style: this.last ?? others[0] ?? "", corners }]);
  }

  async put(polygons) {
    try {
      const mask = polygons.length ? (await send("api/draw", { polygons })).mask : "";
      this.mask = mask;
      this.list(polygons);
      this.on.mask(mask);
    } catch (error) {
      this.on.trouble(error.message);
    }
  }

  // What the state of the page says.
  async show(mask) {
    if (mask === this.mask) return;
    this.mask = mask;
    try {
      const found = mask ? (await ask("api/drawn", { mask })).polygons : [];
      if (mask === this.mask) this.list(found);
    } catch {
      this.list([]); // the look itself is refused with the reason
    }
  }

  list(polygons) {
    this.drawing.polygons = polygons;
    this.drawing.draw();
    $("places-list").replaceChildren(...polygons.map((one, n) => this.row(one, n)));
  }

  row({ style }, n) {
    const item = document.createElement("li");
    const number = Object.assign(document.createElement("span"), { textContent: n + 1 });
    const select = document.createElement("select");
    select.setAttribute("aria-label", strings.placeStyle(n + 1));
    for (const [name, title] of this.styles.titles) select.append(new Option(name ? title : strings.placeKept, name, false, name === style));
    select.addEventListener("change", () => {
      this.last = select.value;
      this.put(this.polygons.map((one, k) => (k === n ? { ...one, style: select.value } : one)));
    });
    const remove = Object.assign(document.createElement("button"), { textContent: "×", className: "quiet" });
    remove.setAttribute("aria-label", strings.placeRemove(n + 1));
    remove.addEventListener("click", () => this.put(this.polygons.filter((_, k) => k !== n)));
    item.append(number, select, remove);
    return item;
  }
}
