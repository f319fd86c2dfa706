// The dialog in which an image is chosen.
import { strings } from "./strings.js";
import { ask, upload } from "./ask.js";

const $ = (id) => document.getElementById(id);
let chosen = null;

function entry(name, detail, act) {
  const item = document.createElement("li");
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.append(Object.assign(document.createElement("span"), { textContent: name }), Object.assign(document.createElement("small"), { textContent: detail }));
  button.addEventListener("click", act);
  item.append(button);
  return item;
}

function line(text) {
  const item = document.createElement("li");
  item.append(Object.assign(document.createElement("p"), { textContent: text }));
  return item;
}

async function show(folder) {
  const list = $("files-list");
  try {
    const found = await ask("api/files", { folder });
    $("files-folder").textContent = `${found.folder || "."}/`;
    const items = [];
    if (found.above !== null) items.push(entry("../", strings.folderAbove, () => show(found.above)));
    for (const one of found.folders) items.push(entry(`${one.name}/`, "", () => show(one.path)));
    for (const one of found.images) items.push(entry(one.name, one.bytes === null ? strings.folder : strings.bytes(one.bytes), () => { $("files").close(); chosen(one.path); }));
    if (found.more) items.push(line(strings.andMore(found.more)));
    if (!found.images.length) items.push(line(strings.nothingHere));
    list.replaceChildren(...items);
    $("files-recent").replaceChildren(...found.recent.map((one) => entry(one.name, "", () => { $("files").close(); chosen(one.path); })));
    $("files-recent-part").hidden = !found.recent.length;
  } catch (error) {
    list.replaceChildren(line(error.message));
  }
  list.querySelector("button")?.focus();
}

export function openFiles(image, onChosen) {
  chosen = onChosen;
  $("files").showModal();
  show(image.includes("/") ? image.slice(0, image.lastIndexOf("/")) : "");
}

export async function uploadImage(file, onUploaded) {
  const { word } = await upload(file, "image");
  return onUploaded(word);
}

$("files-upload").addEventListener("click", () => $("files-file").click());
$("files-file").addEventListener("change", async () => {
  const [file] = $("files-file").files;
  $("files-file").value = "";
  if (!file) return;
  try {
    await uploadImage(file, (word) => { $("files").close(); chosen(word); });
  } catch (error) {
    $("files-list").replaceChildren(line(error.message));
  }
});
$("files-close").addEventListener("click", () => $("files").close());
