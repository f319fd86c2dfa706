// The address by which programs for maps have what is shown as a layer.
import { strings } from "./strings.js";
import { ask } from "./ask.js";

const $ = (id) => document.getElementById(id);

// look: what is shown; copy: puts a text where it can be pasted, and says so.
export function wireLayer({ look, copy, sorry }) {
  const button = Object.assign(document.createElement("button"), { id: "layer", type: "button", textContent: strings.copyLayer, title: strings.copyLayerWhy });
  $("link").after(button);
  button.addEventListener("click", async () => {
    try {
      await copy((await ask("api/layer", look)).xyz, strings.layerCopied);
      button.textContent = strings.copied;
      setTimeout(() => { button.textContent = strings.copyLayer; }, 1600);
    } catch (error) {
      sorry(error.message);
    }
  });
}
