// The paintings that are being made, and what can be done to each; their finished blocks lie over the view.
import { strings } from "./strings.js";
import { ask, send } from "./ask.js";
import { Blocks } from "./blocks.js";

const $ = (id) => document.getElementById(id);
const WATCH_MS = 1000;
const IDLE_MS = 5000; // another page may add to the queue

function button(text, title, act) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: text, title, className: "quiet" });
  if (title !== text) made.setAttribute("aria-label", title);
  made.addEventListener("click", act);
  return made;
}

export class Queue {
  // viewer: what is shown; onShow: opens an image.
  constructor({ viewer, onShow }) {
    this.viewer = viewer;
    this.blocks = new Blocks(viewer);
    this.onShow = onShow;
    this.watching = 0;
    this.seen = "";
    document.addEventListener("visibilitychange", () => document.hidden || this.watch());
  }

  async act(what, number) {
    try {
      await send("api/queue", { do: what, number });
    } catch (error) {
      $("job-text").textContent = error.message;
    }
    await this.watch();
  }

  async watch() {
    clearTimeout(this.watching);
    const { queue } = await ask("api/status").catch(() => ({}));
    if (queue) this.show(queue);
    const busy = queue?.jobs.some((job) => job.state === "running");
    if (!document.hidden) this.watching = setTimeout(() => this.watch(), busy ? WATCH_MS : IDLE_MS);
  }

  show({ held, jobs }) {
    $("job").hidden = !jobs.length;
    const now = jobs.find((job) => job.state === "running") ?? jobs.find((job) => job.state === "paused") ?? jobs.at(-1);
    if (!now) return this.blocks.show(null);
    const said = strings.job[now.state]({ ...now, stage: now.stage && strings.stage(now.stage) });
    if ($("job-text").textContent !== said) $("job-text").textContent = said;
    $("job-bar").hidden = now.state !== "running";
    if (now.total) $("job-bar").value = now.done / now.total;
    else $("job-bar").removeAttribute("value");
    this.blocks.show(jobs.find((job) => ["running", "paused"].includes(job.state) && job.after === this.viewer.facts?.after) ?? null);
    const seen = JSON.stringify([held, jobs.map((job) => [job.number, job.state])]);
    if (seen === this.seen) return; // what has the focus stays
    this.seen = seen;
    $("queue").replaceChildren(...jobs.map((job) => this.entry(job)));
    const open = jobs.some((job) => ["waiting", "running", "paused"].includes(job.state));
    const table = Object.assign(document.createElement("a"), { href: "api/jobs.toml", download: "jobs.toml", textContent: strings.queueTable, title: strings.queueTableWhy });
    $("job-tools").replaceChildren(...(open ? [table, held ? button(strings.resume, strings.resume, () => this.act("resume")) : button(strings.pause, strings.pause, () => this.act("pause"))] : []));
  }

  entry(job) {
    const item = document.createElement("li");
    item.append(Object.assign(document.createElement("span"), { textContent: `${job.output} (${strings.queueState[job.state]})` }));
    if (["waiting", "paused"].includes(job.state)) {
      item.append(button("↑", strings.earlier(job.output), () => this.act("up", job.number)), button("↓", strings.later(job.output), () => this.act("down", job.number)));
    }
    if (job.state === "done") item.append(button(strings.show, strings.showFinished(job.output), () => this.onShow(job.output)));
    item.append(button("×", strings.remove(job.output), () => this.act("remove", job.number)));
    return item;
  }
}
