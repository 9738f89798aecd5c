// One scene with its arrays at hand, and what its source adds while it is looked at. Layers are named by their place,
// rows and keys by their slot.

import { inflated, part, whole } from "./arrays.js";
import { cellAt, exactAt } from "./deep.js";
import { sourceOf } from "./source.js";
import { Asked } from "./wanted.js";

const MOST_LINKS = 16;

export class Picture {
  static async of(scene) {
    return new Picture(scene, await inflated(scene.arrays));
  }

  constructor(scene, buffers) {
    this.scene = scene;
    this.buffers = buffers;
    this.columns = [...new Set(scene.layers.flatMap((layer) => layer.heads))].sort((a, b) => a - b);
    this.oneStack = new Set(scene.layers.map((layer) => `${layer.stack} ${layer.kind}`)).size <= 1;
    this.kept = new Map();
    this.suffix = ""; // ":norm" shows what is weighed by value norms instead of plain weights
    this.source = sourceOf(scene.served);
    this.deep = Boolean(this.source && scene.served.deep);
    this.asked = new Asked(this.source);
  }

  // Whether maps of another weighting are there, such as "norm".
  weightings() {
    const labels = this.scene.layers.flatMap((layer) => Object.keys(layer.maps));
    return [...new Set(labels.filter((label) => label.startsWith("overview")).map((label) => label.split(":")[1] || ""))];
  }

  weighBy(of) {
    this.suffix = of ? `:${of}` : "";
  }

  layer(place) {
    return this.scene.layers[place];
  }

  has(place, head) {
    return place >= 0 && place < this.scene.layers.length && this.layer(place).heads.includes(head);
  }

  axis(place, side) {
    return this.scene.axes[this.layer(place)[side]];
  }

  layerName(place) {
    return this.oneStack ? String(this.layer(place).index) : this.layer(place).title;
  }

  headName(place, head) {
    return this.layerName(place) + (this.oneStack ? "." : " · ") + head;
  }

  statistic(label) {
    return this.scene.statistics.find((about) => about.label === label) || null;
  }

  summary(label, place, head) {
    const numbers = this.layer(place).summaries[label];
    return numbers ? numbers[this.layer(place).heads.indexOf(head)] : null;
  }

  // ---- what a head brings ----------------------------------------------------------------------------------------

  // The layer's rows, keys, bins, tops and maps that hold this head, from the scene or from what its source gave.
  parts(place, head) {
    return (this.deep && this.asked.head(this.scene.batch, place, head)) || this.layer(place);
  }

  #part(reference, place, head) {
    const parts = this.parts(place, head);
    return part(parts.buffers || this.buffers, reference, parts.heads.indexOf(head));
  }

  // Numbers along the query axis ("rows") or key axis ("keys"), means over bands of `band` tokens; null if undefined.
  track(kind, label, place, head) {
    const about = this.parts(place, head)[kind][label];
    if (!about) return null;
    return { values: this.#part(about.values, place, head), band: about.band };
  }

  bins(place, head) {
    const reference = this.parts(place, head).bins.distances;
    return reference ? this.#part(reference, place, head) : null;
  }

  // All numbers of an array, or null where there is none.
  whole(reference) {
    return reference ? whole(this.buffers, reference) : null;
  }

  // -log p of each token, natural log, where the model is one of language and the keys are its text; else null.
  losses(place) {
    const axis = this.axis(place, "key");
    return axis.loss && !this.scene.signed ? this.#once(`loss ${this.layer(place).key}`, () => whole(this.buffers, axis.loss)) : null;
  }

  positions(place, side) {
    return this.#once(`positions ${this.layer(place)[side]}`, () => whole(this.buffers, this.axis(place, side).positions));
  }

  // {values, count, rows, keys, cell, exact, allowed}: allowed is how many keys a row of each row cell may see.
  map(place, head, which) {
    const parts = this.parts(place, head), about = parts.maps[`overview${this.suffix}`];
    if (!about) return null;
    return this.#once(`map${this.suffix} ${place} ${head} ${which} ${about.mean.shape}`, () => {
      const [, rows, keys] = about.mean.shape;
      const values = this.#part(about[which], place, head);
      const at = Math.min(parts.heads.indexOf(head), about.count.shape[0] - 1);
      const count = part(parts.buffers || this.buffers, about.count, at);
      const valid = this.#validRows(place, about.cell[0], rows);
      const allowed = Float32Array.from({ length: rows }, (_, row) => {
        let total = 0;
        for (let key = 0; key < keys; key++) total += count[row * keys + key];
        return total / Math.max(1, valid[row]);
      });
      return { values, count, rows, keys, cell: about.cell, exact: about.exact, allowed, valid };
    });
  }

  #validRows(place, band, rows) {
    const axis = this.axis(place, "query");
    const valid = new Float32Array(rows);
    const padding = new Set(axis.padding);
    for (let slot = 0; slot < axis.length; slot++) valid[Math.floor(slot / band)] += padding.has(slot) ? 0 : 1;
    return valid;
  }

  // ---- rows, columns and pairs -----------------------------------------------------------------------------------

  // All weights of a row, NaN where it may not look: {weights, exact}; null where they are not at hand (yet).
  row(place, head, row) {
    if (this.deep && !this.suffix) {
      const given = this.asked.row(this.scene.batch, place, head, row);
      return given && { weights: given.numbers, exact: true, numbers: given.about.numbers };
    }
    const map = this.map(place, head, "max");
    if (!map || !map.exact) return null;
    const weights = Float32Array.from({ length: map.keys }, (_, key) => (map.count[row * map.keys + key] ? map.values[row * map.keys + key] : NaN));
    return { weights, exact: this.scene.exact, numbers: null };
  }

  // The weights that every query gives a key, as `row`.
  column(place, head, key) {
    if (this.deep && !this.suffix) {
      const given = this.asked.column(this.scene.batch, place, head, key);
      return given && { weights: given.numbers, exact: true };
    }
    const map = this.map(place, head, "max");
    if (!map || !map.exact) return null;
    return { weights: Float32Array.from({ length: map.rows }, (_, row) => (map.count[row * map.keys + key] ? map.values[row * map.keys + key] : NaN)), exact: this.scene.exact };
  }

  // The strongest links of a row (or of its band): {links: [{row, key, weight}], rest, band}; null where none are known.
  links(place, head, row) {
    if (this.deep && !this.suffix) return this.#strongest(this.row(place, head, row), row, MOST_LINKS);
    const top = this.parts(place, head).tops[`top${this.suffix}`];
    if (!top) return this.#strongest(this.row(place, head, row), row, 8);
    const [, , kept] = top.weights.shape;
    const at = Math.floor(row / top.band) * kept;
    const [weights, keys, rows] = [top.weights, top.keys, top.rows].map((r) => (r ? this.#part(r, place, head) : null));
    const links = [];
    for (let i = at; i < at + kept; i++) {
      if (weights[i] > 0) links.push({ row: rows ? rows[i] : row, key: keys[i], weight: weights[i] });
    }
    return { links, rest: top.rest ? this.#part(top.rest, place, head)[row] : null, band: top.band, exact: true };
  }

  // Of all weights of a row; for a difference, the largest changes.
  #strongest(given, row, most) {
    if (!given) return null;
    const links = [];
    given.weights.forEach((weight, key) => weight && weight === weight && links.push({ row, key, weight }));
    links.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight) || a.key - b.key);
    const rest = links.slice(most).reduce((total, link) => total + link.weight, 0);
    return { links: links.slice(0, most), rest: links.length > most ? rest : 0, band: 1, exact: given.exact };
  }

  // The share of every row that hidden keys hold: {slots, numbers}; null until the source gave it.
  mass(place, head, hide, special) {
    const given = this.asked.mass(this.scene.batch, place, head, hide, special);
    return given && { slots: given.about.slots, numbers: given.numbers };
  }

  // One weight: {value, exact, cell} where cell is the pairs it stands for; null where nothing is known.
  weight(place, head, row, key, which) {
    if (this.deep && !this.suffix) return this.#deepWeight(place, head, row, key) || this.#ofMap(place, head, row, key, which);
    const known = this.links(place, head, row);
    const link = known && known.links.find((link) => link.row === row && link.key === key);
    if (link && !this.scene.signed) return { value: link.weight, exact: true, cell: [1, 1], seen: true };
    return this.#ofMap(place, head, row, key, which);
  }

  #deepWeight(place, head, row, key) {
    const given = this.asked.rowAtHand(this.scene.batch, place, head, row);
    const value = given ? given.numbers[key] : (exactAt(this, row, key) || {}).value;
    if (value !== undefined) return { value, exact: true, cell: [1, 1], seen: value === value };
    const found = cellAt(this, row, key);
    return found && { value: found.value, exact: false, cell: found.cell, seen: found.value === found.value };
  }

  #ofMap(place, head, row, key, which) {
    const map = this.map(place, head, which);
    if (!map) return null;
    const at = Math.floor(row / map.cell[0]) * map.keys + Math.floor(key / map.cell[1]);
    return { value: map.values[at], exact: map.exact && this.scene.exact, cell: map.cell, seen: map.count[at] > 0 };
  }

  #once(key, compute) {
    if (!this.kept.has(key)) {
      if (this.kept.size > 64) this.kept.clear();
      this.kept.set(key, compute());
    }
    return this.kept.get(key);
  }
}
