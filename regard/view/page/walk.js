// Walking back, link by link: from a token to one that it looks at, in the layer below, and on. The way is kept in the
// address.

import { byId, make } from "./dom.js";
import { set, state } from "./state.js";
import { number, tag } from "./words.js";

const MOST = 6;
let due = null; // {layer, row}: where the strongest head is still to be chosen

const steps = () => (state.trail ? state.trail.split("_").map((step) => step.split(".").map(Number)) : []);

// Whether an address holds a way that this picture has.
export const isTrail = (picture, text) => text === "" || (/^(\d+\.){3}\d+(_(\d+\.){3}\d+)*$/.test(text) && text.split("_").every((step) => {
  const [layer, head, row, key] = step.split(".").map(Number);
  return picture.has(layer, head) && row < picture.axis(layer, "query").length && key < picture.axis(layer, "key").length;
}));

// The layer before this one whose queries are the keys of this one; null at the bottom.
function below(picture) {
  const { key } = picture.layer(state.layer);
  for (let place = state.layer - 1; place >= 0; place--) {
    const layer = picture.layer(place);
    if (layer.query === key && layer.key === key && layer.heads.length) return place;
  }
  return null;
}

export function drawWalk(picture) {
  const body = byId("walk");
  const row = state.row;
  const parts = picture.scene.signed || row === null ? [] : [...way(picture), ...inOtherHeads(picture, row), ...follow(picture, row)];
  body.hidden = !parts.length;
  body.replaceChildren(...parts);
}

// The steps so far, each a way back to where it began.
function way(picture) {
  const taken = steps();
  if (!taken.length) return [];
  const items = taken.map(([layer, head, row, key], nth) => make("li", {}, make("button", {
    type: "button", onclick: () => set({ layer, head, row, key, trail: taken.slice(0, nth).map((step) => step.join(".")).join("_") }),
  }, make("bdi", { text: tag(picture.axis(layer, "query").text[row], 16) }), make("span", { class: "where", text: ` ${row}` }), make("span", { class: "arrow", text: ` ←${picture.headName(layer, head)} ` }), make("bdi", { text: tag(picture.axis(layer, "key").text[key], 16) }), make("span", { class: "where", text: ` ${key}` }))));
  return [make("h3", { text: "The way back" }), make("ol", { class: "way", "aria-label": "Links followed so far" }, ...items)];
}

function follow(picture, row) {
  const place = below(picture), known = picture.links(state.layer, state.head, row);
  if (place === null || !known || known.band > 1) return [];
  const axis = picture.axis(state.layer, "key");
  const links = known.links.filter((link) => link.key !== row).slice(0, 4);
  if (!links.length) return [];
  const buttons = links.map((link) => make("button", {
    type: "button", class: "head", "aria-label": `Follow the link to ${axis.text[link.key]} ${link.key} into layer ${picture.layerName(place)}`,
    onclick: () => go(picture, place, row, link.key),
  }, make("bdi", { text: tag(axis.text[link.key], 14) }), make("span", { class: "where", text: ` ${link.key}` })));
  return [make("h3", { text: `Follow into layer ${picture.layerName(place)}` }), make("div", { class: "find" }, ...buttons)];
}

function go(picture, place, row, key) {
  const step = [state.layer, state.head, row, key].join(".");
  due = { layer: place, row: key };
  const head = picture.layer(place).heads.includes(state.head) ? state.head : picture.layer(place).heads[0];
  set({ layer: place, head, row: key, key: null, trail: state.trail ? `${state.trail}_${step}` : step });
  settle(picture);
}

// Once the links of all heads are known, the head with the strongest one to another token is chosen.
export function settle(picture) {
  if (!due || due.layer !== state.layer || due.row !== state.row) return;
  const best = strongest(picture, due.row);
  if (!best) return;
  due = null;
  if (best.length) set({ head: best[0].head });
}

// The strongest link of each head of the layer from a row, those to itself and to the first token last; null while
// they are not known.
function strongest(picture, row) {
  const { heads } = picture.layer(state.layer), same = picture.layer(state.layer).query === picture.layer(state.layer).key;
  const list = [];
  const asked = picture.deep ? picture.asked.step(picture.scene.batch, state.layer, heads[0], row) : null;
  if (picture.deep && !asked) return null;
  for (const head of heads) {
    const links = asked ? (asked.about.links[head] || []).map(([key, weight]) => ({ key, weight })) : ofRow(picture, head, row);
    const telling = links.find(({ key }) => !same || (key !== row && key > 0)) || links[0];
    if (telling) list.push({ head, ...telling, idle: same && (telling.key === row || telling.key === 0) });
  }
  return list.sort((a, b) => a.idle - b.idle || b.weight - a.weight);
}

function ofRow(picture, head, row) {
  const known = picture.links(state.layer, head, row);
  return known && known.band === 1 ? known.links : [];
}

function inOtherHeads(picture, row) {
  const list = strongest(picture, row);
  if (!list || list.length < 2) return [];
  const axis = picture.axis(state.layer, "key");
  const lines = list.slice(0, MOST).map(({ head, key, weight }) => make("button", {
    type: "button", class: "link", "aria-pressed": String(head === state.head), onclick: () => set({ head, key }),
  }, make("span", { class: "where", text: picture.headName(state.layer, head) }), make("span", { class: "pair" }, make("span", { class: "arrow", text: "← " }), make("bdi", { text: tag(axis.text[key], 16) }), make("span", { class: "where", text: ` ${key}` })), make("span", { text: number(weight) })));
  return [make("h3", { text: `This token in layer ${picture.layerName(state.layer)}` }), make("div", { class: "others" }, ...lines)];
}
