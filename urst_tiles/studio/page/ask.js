// Asking the studio: an answer, or an error whose message is a sentence.
import { strings } from "./strings.js";

async function answer(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Error(strings.notAnswering);
  }
  const words = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(words.error ?? strings.notAnswering);
  return words;
}

export const ask = (path, words = {}) => answer(`${path}?${new URLSearchParams(words)}`);

// Has the studio begin what may be asked for next; returns what stops it.
export function askAhead(words) {
  const stop = new AbortController();
  fetch(`api/ahead?${new URLSearchParams(words)}`, { signal: stop.signal }).catch(() => {});
  return stop;
}

export const upload = (file, use) =>
  answer(`api/upload?${new URLSearchParams({ name: file.name, use })}`, { method: "POST", body: file });

export const send = (path, words = {}) =>
  answer(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(words) });
