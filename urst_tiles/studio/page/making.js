// The dialog that plans the whole painting, and the job that makes it.
import { strings } from "./strings.js";
import { ask, send } from "./ask.js";

const $ = (id) => document.getElementById(id);
const WATCH_MS = 1000;

export class Making {
  constructor() {
    this.look = null;
    this.watching = 0;
    this.planned = 0;
    $("making-close").addEventListener("click", () => $("making").close());
    $("output").addEventListener("change", () => this.plan());
    $("begin").addEventListener("click", () => this.begin());
    $("job-stop").addEventListener("click", () => send("api/stop").catch(() => {}));
  }

  open(look) {
    this.look = { ...look };
    $("output").value = "";
    $("making").showModal();
    return this.plan();
  }

  async plan() {
    const mine = ++this.planned;
    $("begin").disabled = true;
    this.sorry("");
    this.rows([["", strings.planning]]);
    $("command").textContent = "";
    try {
      const plan = await ask("api/plan", { ...this.look, output: $("output").value });
      if (mine !== this.planned) return;
      $("output").value = plan.output;
      this.rows([
        [strings.plan.size, strings.planSize(plan)], [strings.plan.memory, strings.bytes(plan.memory)], [strings.plan.disk, strings.bytes(plan.disk)],
        [strings.plan.time, strings.duration(plan.seconds)], [strings.plan.folder, plan.folder],
        ...(plan.files.length ? [[strings.plan.files, plan.files.join(", ")]] : []),
      ]);
      $("command").textContent = plan.command;
      this.sorry(plan.exists ? strings.exists : "");
      $("begin").disabled = plan.exists;
    } catch (error) {
      if (mine !== this.planned) return;
      this.rows([]);
      this.sorry(error.message);
    }
  }

  rows(rows) {
    $("plan").replaceChildren(...rows.flatMap(([name, value]) => [
      Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value }),
    ]));
  }

  sorry(text) {
    $("making-sorry").textContent = text;
    $("making-sorry").hidden = !text;
  }

  // The files that the command names are written before it is copied.
  async keep() {
    try {
      await send("api/keep", { ...this.look, output: $("output").value });
    } catch (error) {
      this.sorry(error.message);
    }
  }

  async begin() {
    try {
      await send("api/make", { ...this.look, output: $("output").value });
      $("making").close();
      this.watch();
    } catch (error) {
      this.sorry(error.message);
    }
  }

  async watch() {
    clearTimeout(this.watching);
    const { job } = await ask("api/status").catch(() => ({ job: { state: "none" } }));
    $("job").hidden = job.state === "none";
    $("job-stop").hidden = $("job-bar").hidden = job.state !== "running";
    if (job.state === "none") return;
    const named = { ...job, stage: job.stage && (strings.stages[job.stage] ?? job.stage) };
    const text = strings.job[job.state](named);
    if ($("job-text").textContent !== text) $("job-text").textContent = text;
    if (job.total) $("job-bar").value = job.done / job.total;
    else $("job-bar").removeAttribute("value");
    if (job.state === "running") this.watching = setTimeout(() => this.watch(), WATCH_MS);
  }
}
