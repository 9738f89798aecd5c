// The links of a layer as lines between two columns of tokens, queries at the left, keys at the right; several heads may
// be overlaid, each in its own colour, as wide and as dark as the weight.

import { byId, make, makeSvg } from "./dom.js";
import { set, shownRow, state } from "./state.js";
import { number, tag } from "./words.js";

const LEAST = 0.02, MOST_LINES = 6000, STEP = 17, WIDTH = 520, COLUMN = 150;
const HUES = [252, 28, 150, 330, 200, 85, 0, 290, 175, 55, 225, 120];

let drawn = null; // {lines: [{element, row, key}]}

export const hueOf = (at) => `hsl(${HUES[at % HUES.length]} ${at % 24 < 12 ? 75 : 45}% var(--hue-light))`;

// Which heads are overlaid: those that were chosen, else the shown one.
function chosen(picture) {
  const { heads } = picture.layer(state.layer);
  const asked = state.lines.split("-").filter(Boolean).map(Number).filter((head) => heads.includes(head));
  return asked.includes(state.head) ? asked : [state.head];
}

export function drawLines(picture, shown) {
  const holder = byId("lines");
  drawn = null;
  if (!shown) return holder.replaceChildren();
  const heads = chosen(picture), links = linksOf(picture, heads);
  const [queries, keys] = ["query", "key"].map((side) => picture.axis(state.layer, side));
  const height = 24 + STEP * Math.max(queries.length, keys.length);
  const svg = makeSvg("svg", { viewBox: `0 0 ${WIDTH + 2 * COLUMN} ${height}`, class: "lines", role: "img", "aria-label": `Links of head ${picture.headName(state.layer, state.head)}: queries left, keys right` });
  svg.append(caption(COLUMN - 8, "end", "query: looks"), caption(COLUMN + WIDTH + 8, "start", "key: is looked at"));
  const group = makeSvg("g", {});
  drawn = { lines: links.list.map((link) => line(group, link, heads)) };
  svg.append(group, ...column(queries, COLUMN - 8, "end", true), ...column(keys, COLUMN + WIDTH + 8, "start", picture.layer(state.layer).query === picture.layer(state.layer).key));
  const tokens = make("div", { class: "scroll" }, svg);
  holder.replaceChildren(toggles(picture, heads), tokens, make("p", { class: "hint", text: links.said }));
  hintLines();
}

const place = (slot) => 24 + STEP * (slot + 0.5);

function caption(x, anchor, text) {
  return makeSvg("text", { x, y: 12, "text-anchor": anchor, class: "soft", text });
}

function column(axis, x, anchor, picks) {
  return axis.text.map((text, slot) => makeSvg("text", {
    x, y: place(slot) + 4, "text-anchor": anchor, text: tag(text, 18), "data-slot": slot,
    onpointerenter: () => picks && set({ hoverRow: slot }), onpointerleave: () => picks && set({ hoverRow: null }),
    onclick: () => picks && set({ row: state.row === slot ? null : slot, key: null }),
  }));
}

function line(group, { head, row, key, weight }, heads) {
  const element = makeSvg("line", { x1: COLUMN, y1: place(row), x2: COLUMN + WIDTH, y2: place(key), "stroke-width": (0.6 + 2.6 * weight).toFixed(2), "stroke-opacity": Math.min(1, 0.05 + 0.95 * weight).toFixed(3) });
  element.style.stroke = hueOf(heads.length > 1 ? head : 0);
  element.append(makeSvg("title", { text: `head ${head}: ${number(weight)}` }));
  group.append(element);
  return { element, row, key };
}

function toggles(picture, heads) {
  const { heads: all } = picture.layer(state.layer);
  const flip = (head) => {
    const next = heads.includes(head) ? heads.filter((other) => other !== head) : [...heads, head].sort((a, b) => a - b);
    if (next.length) set({ lines: next.join("-"), head: next.includes(state.head) ? state.head : next[0] });
  };
  const every = make("button", { type: "button", text: heads.length === all.length ? "one" : "all", onclick: () => set({ lines: heads.length === all.length ? "" : all.join("-") }) });
  return make("div", { class: "toggles", role: "group", "aria-label": "Heads that are overlaid" }, make("span", { class: "hint", text: "heads" }), ...all.map((head) => {
    const button = make("button", { type: "button", "aria-pressed": String(heads.includes(head)), text: head, onclick: () => flip(head) });
    button.style.setProperty("--hue", hueOf(heads.length > 1 || !heads.includes(head) ? head : 0));
    return button;
  }), every);
}

// {list: [{head, row, key, weight}], said}: all weights of at least LEAST where the map is exact, else the strongest
// links of each row.
function linksOf(picture, heads) {
  const list = [];
  let whole = true;
  for (const head of heads) {
    const map = picture.map(state.layer, head, "max");
    if (map && map.exact) {
      map.values.forEach((weight, at) => weight >= LEAST && list.push({ head, row: Math.floor(at / map.keys), key: at % map.keys, weight }));
      continue;
    }
    whole = false;
    const rows = picture.axis(state.layer, "query").length;
    for (let row = 0; row < rows; row++) {
      const found = picture.links(state.layer, head, row);
      if (!found) continue;
      for (const link of found.links) if (link.weight >= LEAST && link.row === row) list.push({ head, ...link });
    }
  }
  list.sort((a, b) => a.weight - b.weight);
  const dropped = Math.max(0, list.length - MOST_LINES);
  const kind = whole ? `Every weight of at least ${LEAST}` : `Of the strongest links kept for each row, those of at least ${LEAST}`;
  return { list: list.slice(dropped), said: `${kind}${dropped ? `, the ${MOST_LINES} largest of them` : ""}; wider and darker is more. Point at a token to see its links alone, click to lock.` };
}

// Only the links of the shown row, if there is one.
export function hintLines() {
  if (!drawn) return;
  const row = shownRow();
  for (const { element, row: at } of drawn.lines) element.classList.toggle("dim", row !== null && at !== row);
  for (const text of byId("lines").querySelectorAll("text[data-slot]")) text.classList.toggle("row", text.getAttribute("text-anchor") === "end" && Number(text.dataset.slot) === row);
}
