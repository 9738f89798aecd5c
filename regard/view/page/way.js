// A token's way through the layers: rollout (Abnar and Zuidema 2020) of the weights, or of what they carry by norm
// (Kobayashi 2020) where that was watched. As regard/view/way.py where a source computes it.

import { css } from "./colour.js";
import { byId, make } from "./dom.js";
import { set, shownRow, state } from "./state.js";
import { number, tag } from "./words.js";

const MOST = 5;

export function drawWay(picture, shown) {
  const holder = byId("way"), row = shownRow();
  holder.hidden = !shown;
  if (!shown) return;
  const layer = picture.layer(state.layer), texts = picture.axis(state.layer, "key").text;
  if (layer.query !== layer.key) return say(holder, "The queries of this layer are not its keys: there is no way down from here.");
  if (row === null) return say(holder, "Choose a token in the text: here appears where it came from, layer by layer.");
  const layers = below(picture, state.layer), shares = sharesOf(picture, layers, row);
  if (!shares) return say(holder, picture.deep ? picture.asked.why("way", { batch: picture.scene.batch, layer: state.layer, head: layer.heads[0], row }) || "…" : "Exact weights of all layers are needed, which this file does not hold; open the Trace with regard see FILE --open.");
  const named = picture.suffix ? "by norm: a head’s share is ‖a v‖ of its layer (Kobayashi 2020), the rest as rollout" : "rollout (Abnar and Zuidema 2020): heads averaged, half of each token passes by";
  holder.replaceChildren(make("p", { class: "hint", text: `Where “${tag(texts[row])}” of layer ${picture.layerName(state.layer)} comes from, ${named}. A proxy: what the networks between the layers do is left out.` }), ...layers.map((at, n) => line(picture, at, shares[n], texts, row)));
}

const say = (holder, text) => holder.replaceChildren(make("p", { class: "hint", text }));

const below = (picture, top) => {
  const same = ({ stack, kind, query, key }) => `${stack} ${kind} ${query} ${key}`, wanted = same(picture.layer(top));
  return Array.from({ length: top + 1 }, (_, at) => top - at).filter((at) => same(picture.layer(at)) === wanted);
};

// One array of shares per layer, the top first; null where they are not at hand.
export function sharesOf(picture, layers, row) {
  if (picture.deep) return picture.suffix ? null : fromSource(picture, layers, row);
  let now = null;
  const found = [];
  for (const at of layers) {
    const mean = meanOf(picture, at);
    if (!mean) return null;
    now = now || Float64Array.from({ length: mean.size }, (_, slot) => Number(slot === row));
    const next = now.map((x) => x / 2);
    now.forEach((x, from) => {
      if (x) for (let to = 0; to < mean.size; to++) next[to] += (x / 2) * mean.values[from * mean.size + to];
    });
    found.push((now = next));
  }
  return found;
}

function fromSource(picture, layers, row) {
  const given = picture.asked.way(picture.scene.batch, layers[0], picture.layer(layers[0]).heads[0], row);
  if (!given) return null;
  const size = given.numbers.length / layers.length;
  return layers.map((_, n) => given.numbers.subarray(n * size, (n + 1) * size));
}

// The mean of a layer's heads, each row of what is weighed by norms divided by its sum: {size, values}.
function meanOf(picture, at) {
  const heads = picture.layer(at).heads.map((head) => picture.map(at, head, "max"));
  if (heads.some((map) => !map || !map.exact || map.rows !== map.keys)) return null;
  const size = heads[0].rows, values = new Float64Array(size * size);
  for (const map of heads) for (let i = 0; i < values.length; i++) if (map.count[i]) values[i] += map.values[i] / heads.length;
  if (picture.suffix) {
    for (let row = 0; row < size; row++) {
      const total = values.subarray(row * size, (row + 1) * size).reduce((a, b) => a + b, 0);
      if (total) for (let key = 0; key < size; key++) values[row * size + key] /= total;
    }
  }
  return { size, values };
}

function line(picture, at, shares, texts, row) {
  const canvas = make("canvas", { width: Math.min(shares.length, 1024), height: 1, "aria-hidden": true }), context = canvas.getContext("2d"), wide = shares.length / canvas.width;
  for (let x = 0; x < canvas.width; x++) {
    const most = shares.slice(Math.floor(x * wide), Math.max(Math.floor(x * wide) + 1, Math.floor((x + 1) * wide))).reduce((a, b) => Math.max(a, b), 0);
    context.fillStyle = css("sequential", most ** 0.4);
    context.fillRect(x, 0, 1, 1);
  }
  const best = Array.from(shares.keys()).sort((a, b) => shares[b] - shares[a] || a - b).slice(0, MOST).filter((slot) => shares[slot] > 0);
  return make("div", { class: "step" }, make("span", { class: "where", text: `layer ${picture.layerName(at)}` }), canvas, make("span", {}, ...best.map((slot) => make("button", {
    type: "button", class: slot === row ? "own" : null, title: `token ${slot}`, "data-share": String(shares[slot]), text: `${tag(texts[slot] || String(slot), 14)} ${number(shares[slot])}`,
    onclick: () => set({ layer: at, row: slot, key: null }),
  }))));
}
