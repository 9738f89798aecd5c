// Answers that are kept, and questions under way: heads, rows, columns, hidden mass. Whoever reads what is not here yet
// gets null and is told when it came.

import { inflated } from "./arrays.js";

const KEPT = { head: 48, row: 64, column: 32, mass: 8, step: 64, way: 16 };
const PAUSE = 60; // milliseconds that a row under the pointer has to stay before it is asked for

const listeners = [];

// Called with what came: "head", "row", "column", "mass", "step" or "way".
export const onArrival = (listener) => listeners.push(listener);

export class Asked {
  constructor(source) {
    this.source = source;
    this.kept = Object.fromEntries(Object.keys(KEPT).map((what) => [what, new Map()]));
    this.under = new Set();
    this.timers = {};
    this.refused = new Map(); // name -> why
  }

  head(batch, layer, head) {
    return this.#get("head", { batch, layer, head }, 0);
  }

  row(batch, layer, head, row) {
    return this.#get("row", { batch, layer, head, row }, PAUSE);
  }

  rowAtHand(batch, layer, head, row) {
    return this.kept.row.get(nameOf({ batch, layer, head, row })) || null;
  }

  column(batch, layer, head, key) {
    return this.#get("column", { batch, layer, head, key }, PAUSE);
  }

  mass(batch, layer, head, hide, special) {
    return this.#get("mass", { batch, layer, head, hide, special: special ? 1 : 0 }, PAUSE);
  }

  step(batch, layer, head, row) {
    return this.#get("step", { batch, layer, head, row }, PAUSE);
  }

  way(batch, layer, head, row) {
    return this.#get("way", { batch, layer, head, row }, PAUSE);
  }

  why(what, fields) {
    return this.refused.get(`${what} ${nameOf(fields)}`) || "";
  }

  #get(what, fields, pause) {
    if (!this.source) return null;
    const name = nameOf(fields), kept = this.kept[what];
    if (kept.has(name)) return kept.get(name);
    const whole = `${what} ${name}`;
    if (this.under.has(whole) || this.refused.has(whole)) return null;
    if (!pause) this.#ask(what, fields, name);
    else {
      clearTimeout(this.timers[what]);
      this.timers[what] = setTimeout(() => this.#ask(what, fields, name), pause);
    }
    return null;
  }

  async #ask(what, fields, name) {
    const whole = `${what} ${name}`, kept = this.kept[what];
    this.under.add(whole);
    try {
      const answer = await this.source.ask(what, fields);
      kept.set(name, what === "head" ? { ...answer.about.layer, buffers: await inflated(answer.about.arrays) } : answer);
      if (kept.size > KEPT[what]) kept.delete(kept.keys().next().value);
    } catch (error) {
      this.refused.set(whole, error.message);
    }
    this.under.delete(whole);
    for (const listener of listeners) listener(what);
  }
}

const nameOf = (fields) => Object.values(fields).join(" ");
