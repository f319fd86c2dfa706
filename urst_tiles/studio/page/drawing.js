// What is drawn on the image: the part that is made, and polygons. Positions are pixels of the image.
import { strings } from "./strings.js";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const NEAR = 12; // pixels of the screen within which a click on the first corner closes a polygon
const LEAST = 4; // pixels of the screen that the sides of a box have

export class Drawing {
  constructor(viewer, { onBox, onPolygon, onKind }) {
    this.viewer = viewer;
    this.on = { box: onBox, polygon: onPolygon, kind: onKind };
    this.kind = null; // "box" or "polygon" while one is drawn
    this.corners = [];
    this.pointer = null;
    this.region = null; // [x, y, w, h]
    this.polygons = [];
    const marks = $("marks");
    marks.addEventListener("pointerdown", (event) => this.pressed(event));
    marks.addEventListener("pointermove", (event) => this.moved(event));
    marks.addEventListener("pointerup", (event) => this.released(event));
    marks.addEventListener("wheel", (event) => { event.preventDefault(); viewer.zoomBy(event.deltaY < 0 ? 1.25 : 0.8); }, { passive: false });
  }

  begin(kind) {
    if (!this.viewer.before) return;
    this.kind = this.kind === kind ? null : kind;
    this.corners = [];
    this.pointer = null;
    $("marks").classList.toggle("drawing", this.kind !== null);
    $("hint").textContent = this.kind === "box" ? strings.regionHint : strings.drawHint;
    $("hint").hidden = !this.kind;
    this.on.kind(this.kind);
    this.draw();
  }

  end() { if (this.kind) this.begin(this.kind); }

  at(event) {
    const { left, top } = $("view").getBoundingClientRect();
    return this.viewer.imageAt(event.clientX - left, event.clientY - top);
  }

  pressed(event) {
    event.preventDefault();
    $("marks").setPointerCapture(event.pointerId);
    if (this.kind === "box") this.corners = [this.at(event)];
    this.moved(event);
  }

  moved(event) {
    this.pointer = this.at(event);
    this.draw();
  }

  released(event) {
    this.pointer = this.at(event);
    if (this.kind === "box") this.endBox();
    else if (this.kind === "polygon") this.add(this.pointer);
  }

  endBox() {
    const box = this.corners.length ? boxOf(this.corners[0], this.pointer, this.viewer.facts) : null;
    this.end();
    const pixels = this.viewer.pixelsOfScreen(1);
    if (box && Math.min(box[2], box[3]) >= Math.max(1, LEAST * pixels)) this.on.box(box);
  }

  add(corner) {
    const [first] = this.corners;
    const near = first && Math.hypot(first[0] - corner[0], first[1] - corner[1]) < NEAR * this.viewer.pixelsOfScreen(1);
    if (near && this.corners.length > 2) return this.close();
    if (!near) this.corners.push(corner);
    this.draw();
  }

  close() {
    const corners = this.corners;
    this.end();
    if (corners.length > 2) this.on.polygon(corners);
  }

  // Whether a key was meant for what is being drawn.
  key(key) {
    if (!this.kind) return false;
    if (key === "Escape") this.end();
    else if (this.kind !== "polygon") return false;
    else if (key === "Enter") this.close();
    else if (key === "Backspace") this.corners.pop();
    else if (key === " ") this.add(this.viewer.imageAt($("view").clientWidth / 2, $("view").clientHeight / 2));
    else return false;
    this.draw();
    return true;
  }

  draw() {
    if (!this.viewer.before) return;
    const shapes = this.polygons.map(({ style, corners }, n) => this.shape("polygon", corners, style ? "styled" : "kept", n + 1));
    if (this.region) shapes.push(this.shape("polygon", cornersOf(this.region), "region"));
    if (this.kind === "box" && this.corners.length && this.pointer) {
      shapes.push(this.shape("polygon", cornersOf(boxOf(this.corners[0], this.pointer, this.viewer.facts)), "region"));
    }
    if (this.kind === "polygon") {
      const open = this.pointer ? [...this.corners, this.pointer] : this.corners;
      if (open.length > 1) shapes.push(this.shape("polyline", open, "open"));
      for (const corner of this.corners) shapes.push(this.dot(corner));
      shapes.push(this.cross());
    }
    $("marks").replaceChildren(...shapes.flat());
  }

  shape(kind, corners, name, number) {
    const there = corners.map(([x, y]) => this.viewer.screenAt(x, y));
    const shape = made(kind, { points: there.map((xy) => xy.join(",")).join(" "), class: name });
    if (!number) return [shape];
    const text = made("text", { x: there[0][0] + 6, y: there[0][1] + 18, class: "number" });
    text.textContent = number;
    return [shape, text];
  }

  dot(corner) {
    const [cx, cy] = this.viewer.screenAt(...corner);
    return made("circle", { cx, cy, r: 5, class: "corner" });
  }

  cross() {
    const [x, y] = [$("view").clientWidth / 2, $("view").clientHeight / 2];
    return made("path", { d: `M${x - 9} ${y}h18M${x} ${y - 9}v18`, class: "cross" });
  }
}

function made(kind, attributes) {
  const node = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// The box, [x, y, w, h] in whole pixels inside the image, between two corners.
export function boxOf([x0, y0], [x1, y1], { width, height }) {
  const inside = (n, most) => Math.min(Math.max(Math.round(n), 0), most);
  const [left, right] = [x0, x1].map((n) => inside(n, width)).sort((a, b) => a - b);
  const [top, bottom] = [y0, y1].map((n) => inside(n, height)).sort((a, b) => a - b);
  return [left, top, right - left, bottom - top];
}

const cornersOf = ([x, y, w, h]) => [[x, y], [x + w, y], [x + w, y + h], [x, y + h]];
