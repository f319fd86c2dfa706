// The dialog that plans the whole painting and adds it to the queue.
import { strings } from "./strings.js";
import { ask, send } from "./ask.js";
import { Queue } from "./queue.js";

const $ = (id) => document.getElementById(id);

export class Making {
  // around: what the queue must know of the page, see there.
  constructor(around) {
    this.look = null;
    this.queue = new Queue(around);
    this.planned = 0;
    $("making-close").addEventListener("click", () => $("making").close());
    $("output").addEventListener("change", () => this.plan());
    $("begin").addEventListener("click", () => this.begin());
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

  watch() {
    return this.queue.watch();
  }
}
