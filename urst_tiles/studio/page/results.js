// A finished painting beside the image that it was made from.
import { strings } from "./strings.js";

const $ = (id) => document.getElementById(id);
let last = {}; // the facts of the look that is shown
let input = null; // what the painting that is shown was made from

// Says which painting is shown, and why there is nothing beside it; facts are those of api/look.
export function showResult(facts = last) {
  last = facts;
  const { result, after } = facts;
  input = result?.input ?? null;
  $("result-said").textContent = result?.said ?? "";
  $("result-said").hidden = !result?.said;
  if (!result) return;
  $("label-after").textContent = strings.finishedPainting(result.style);
  $("label-before").textContent = result.input ?? strings.before;
  for (const id of ["label-before", "label-after"]) $(id).hidden = !after;
  $("divider").hidden = !after || $("beside").getAttribute("aria-pressed") === "true";
}

// A style that is chosen beside a finished painting is one for the image that it was made from.
export const onInput = (what) => (what.style && input ? { image: input, ...what } : what);
