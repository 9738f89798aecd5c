// One scene with its arrays at hand. Layers are named by their place, rows and keys by their slot.

import { inflated, part, whole } from "./arrays.js";

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

  // Numbers along the query axis ("rows") or key axis ("keys"), means over bands of `band` tokens; null if undefined.
  track(kind, label, place, head) {
    const about = this.layer(place)[kind][label];
    if (!about) return null;
    return { values: this.#part(about.values, place, head), band: about.band };
  }

  bins(place, head) {
    const reference = this.layer(place).bins.distances;
    return reference ? this.#part(reference, place, head) : null;
  }

  // All numbers of an array, or null where there is none.
  whole(reference) {
    return reference ? whole(this.buffers, reference) : null;
  }

  positions(place, side) {
    return this.#once(`positions ${this.layer(place)[side]}`, () => whole(this.buffers, this.axis(place, side).positions));
  }

  // {values, count, rows, keys, cell, exact, allowed}: allowed is how many keys a row of each row cell may see.
  map(place, head, which) {
    const about = this.layer(place).maps[`overview${this.suffix}`];
    if (!about) return null;
    return this.#once(`map${this.suffix} ${place} ${head} ${which}`, () => {
      const [, rows, keys] = about.mean.shape;
      const values = this.#part(about[which], place, head);
      const at = Math.min(this.layer(place).heads.indexOf(head), about.count.shape[0] - 1);
      const count = part(this.buffers, about.count, at);
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

  // The strongest links of a row (or of its band): {links: [{row, key, weight}], rest, band}; null where none are known.
  links(place, head, row) {
    const top = this.layer(place).tops[`top${this.suffix}`];
    if (!top) return this.#linksOfMap(place, head, row);
    const [, , kept] = top.weights.shape;
    const at = Math.floor(row / top.band) * kept;
    const [weights, keys, rows] = [top.weights, top.keys, top.rows].map((r) => (r ? this.#part(r, place, head) : null));
    const links = [];
    for (let i = at; i < at + kept; i++) {
      if (weights[i] > 0) links.push({ row: rows ? rows[i] : row, key: keys[i], weight: weights[i] });
    }
    return { links, rest: top.rest ? this.#part(top.rest, place, head)[row] : null, band: top.band, exact: true };
  }

  // From an exact map; for a difference, the largest changes.
  #linksOfMap(place, head, row) {
    const map = this.map(place, head, "max");
    if (!map || !map.exact) return null;
    const links = [];
    for (let key = 0; key < map.keys; key++) {
      const weight = map.values[row * map.keys + key];
      if (weight !== 0) links.push({ row, key, weight });
    }
    links.sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight) || a.key - b.key);
    const rest = links.slice(8).reduce((total, link) => total + link.weight, 0);
    return { links: links.slice(0, 8), rest: links.length > 8 ? rest : 0, band: 1, exact: this.scene.exact };
  }

  // One weight: {value, exact, cell} where cell is the pairs it stands for; null where nothing is known.
  weight(place, head, row, key, which) {
    const map = this.map(place, head, which);
    const known = this.links(place, head, row);
    const link = known && known.links.find((link) => link.row === row && link.key === key);
    if (link && !this.scene.signed) return { value: link.weight, exact: true, cell: [1, 1], seen: true };
    if (!map) return null;
    const at = Math.floor(row / map.cell[0]) * map.keys + Math.floor(key / map.cell[1]);
    return { value: map.values[at], exact: map.exact && this.scene.exact, cell: map.cell, seen: map.count[at] > 0 };
  }

  #part(reference, place, head) {
    return part(this.buffers, reference, this.layer(place).heads.indexOf(head));
  }

  #once(key, compute) {
    if (!this.kept.has(key)) {
      if (this.kept.size > 64) this.kept.clear();
      this.kept.set(key, compute());
    }
    return this.kept.get(key);
  }
}
