// The text itself: tokens coloured by where the shown row looks (else by what they receive), and its links as arcs.
// Patches of an image are drawn as the grid they form.

import { css, inkOn, veil } from "./colour.js";
import { byId, make, makeSvg } from "./dom.js";
import { pictureUnder, soundOver } from "./media.js";
import { shadeOf } from "./shade.js";
import { set, shownKey, shownRow, state } from "./state.js";
import { tag } from "./words.js";

const MOST_TOKENS = 1200, MOST_FRAMES = 3000;

let drawn = null; // {query, key: {button of slot, first slot, element}, windows}

// Build the tokens again: for another layer's axes, or when the window of a long text moves.
export function drawStrips(picture) {
  const layer = picture.layer(state.layer), same = layer.query === layer.key;
  const holder = byId("strips");
  const key = strip(picture, "key", same ? "" : `keys · ${layer.key}`, same);
  const query = same ? key : strip(picture, "query", `queries · ${layer.query}`, false);
  drawn = { layer: state.layer, same, key, query, axes: `${layer.query} ${layer.key}` };
  holder.replaceChildren(...(same ? [key.element] : [query.element, key.element]));
  colourStrips(picture);
}

export function stripsFit(picture) {
  const layer = picture.layer(state.layer);
  if (!drawn || drawn.axes !== `${layer.query} ${layer.key}`) return false;
  const inside = (part, slot) => slot === null || slot === undefined || part.buttons.has(slot);
  return inside(drawn.query, state.row) && inside(drawn.key, state.key);
}

function strip(picture, side, role, same) {
  const axis = picture.axis(state.layer, side), buttons = new Map();
  const selected = side === "key" && !same ? state.key : state.row;
  const most = axis.kind === "frames" ? MOST_FRAMES : MOST_TOKENS;
  const begin = axis.length > most ? Math.max(0, Math.min(axis.length - most, (selected || 0) - most / 2)) : 0;
  const end = Math.min(axis.length, begin + most);
  const special = new Set(axis.special), padding = new Set(axis.padding);
  for (let slot = begin; slot < end; slot++) {
    const made = axis.prompt !== null && slot >= axis.prompt;
    buttons.set(slot, token(axis, slot, `token${special.has(slot) ? " special" : ""}${padding.has(slot) ? " padding" : ""}${made ? " made" : ""}`, side, same));
  }
  const inner = axis.kind === "patches" && axis.grid ? patches(picture, axis, buttons) : flow(picture, axis, buttons, begin, end);
  walkable(inner, buttons);
  const label = role ? make("span", { class: "role", text: role }) : null;
  return { element: make("div", { class: role ? "strip one-of-two" : "strip" }, label, inner), inner, buttons };
}

function token(axis, slot, kind, side, same) {
  const pick = () => (side === "query" || same ? set({ row: state.row === slot && (!same || state.key === null) ? null : slot, key: null }) : set({ key: slot }));
  const over = side === "query" || same ? { hoverRow: slot } : { hoverKey: slot };
  const out = side === "query" || same ? { hoverRow: null } : { hoverKey: null };
  return make("button", {
    type: "button", class: kind, "data-slot": slot, title: `${axis.text[slot]} (${slot})`,
    onclick: pick, onpointerenter: (event) => event.pointerType === "mouse" && set(over), onpointerleave: () => set(out),
  });
}

// One stop for the Tab key; arrows walk from token to token.
function walkable(inner, buttons) {
  const all = [...buttons.values()];
  all.forEach((button, nth) => (button.tabIndex = nth ? -1 : 0));
  inner.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const next = step && all[all.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    document.activeElement.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

function flow(picture, axis, buttons, begin, end) {
  const inner = make("div", { class: "flow" });
  if (axis.kind === "frames") {
    inner.classList.add("frames");
    inner.append(...(axis.seconds ? soundOver(picture, axis) : []), make("div", { class: "line" }, ...buttons.values()));
    return inner;
  }
  if (begin > 0) inner.append(make("span", { class: "role", text: `… ${begin} tokens before` }));
  for (const [slot, button] of buttons) {
    button.textContent = axis.text[slot] || "∅";
    if (slot === axis.prompt) inner.append(make("span", { class: "role made", text: "generated" }));
    inner.append(button, ...(axis.text[slot].endsWith("↵") ? [make("br")] : [make("wbr")]));
  }
  if (end < axis.length) inner.append(make("span", { class: "role", text: `${axis.length - end} tokens after …` }));
  return inner;
}

function patches(picture, axis, buttons) {
  const [rows, columns] = axis.grid, others = make("div", { class: "others" }), square = make("div", { class: "square" });
  const lead = axis.length - rows * columns;
  const side = Math.max(8, Math.min(34, Math.floor(300 / rows)));
  square.style.gridTemplateColumns = `repeat(${columns}, ${side}px)`;
  square.style.gridAutoRows = `${side}px`;
  pictureUnder(picture, axis, square);
  for (const [slot, button] of buttons) {
    if (slot < lead) {
      button.textContent = tag(axis.text[slot], 12);
      others.append(button);
    } else {
      button.className = button.className.replace("token", "patch");
      button.setAttribute("aria-label", `patch ${axis.text[slot] || slot}`);
      square.append(button);
    }
  }
  return make("div", { class: "patches" }, others, square);
}

// Colours, marks and arcs for the selection; cheap enough for every hover.
export function colourStrips(picture) {
  const row = shownRow(), key = shownKey();
  const about = shadeOf(picture, row, drawn.same);
  for (const [slot, button] of drawn.key.buttons) paint(button, about, slot);
  if (!drawn.same) for (const [, button] of drawn.query.buttons) button.style.backgroundColor = "";
  mark(drawn.query, "row", row);
  mark(drawn.key, "key", key);
  byId("strip-key").textContent = about.said;
  bringIntoStrip(drawn.query, state.row);
  drawArcs(picture, row);
}

// A token at the bottom of a ramp stays plain text; squares of an image are always painted.
function paint(button, about, slot) {
  const value = about.value(slot);
  const place = value === null ? null : about.scale.place(value, about.allowed);
  const plain = place === null || (place < 0.02 && about.scale.kind === "sequential" && !button.classList.contains("patch"));
  const over = button.parentElement.classList.contains("pictured");
  button.style.backgroundColor = plain ? "" : over ? veil(about.scale.kind, place) : css(about.scale.kind, place);
  button.style.color = plain ? "" : inkOn(about.scale.kind, place);
}

function mark(part, name, slot) {
  for (const button of part.inner.querySelectorAll(`.${name}`)) button.classList.remove(name);
  if (slot !== null && part.buttons.has(slot)) part.buttons.get(slot).classList.add(name);
}

// Scrolls a long text, but never the page.
function bringIntoStrip(part, slot) {
  const button = slot === null ? null : part.buttons.get(slot), { element } = part;
  if (!button || slot === part.brought) return;
  part.brought = slot;
  const [inside, all] = [button.getBoundingClientRect(), element.getBoundingClientRect()];
  if (inside.top < all.top + 20 || inside.bottom > all.bottom) element.scrollTop += inside.top - all.top - all.height / 2;
}

// ---- arcs: only the strongest links of the locked row ----------------------------------------------------------------

function drawArcs(picture, row) {
  for (const old of byId("strips").querySelectorAll("svg.arcs")) old.remove();
  const found = row === null || row !== state.row || (state.by === "lookers" && drawn.same) ? null : picture.links(state.layer, state.head, row);
  if (!found || picture.axis(state.layer, "query").grid || picture.axis(state.layer, "key").grid) return;
  const holder = byId("strips"), frame = holder.getBoundingClientRect();
  const svg = makeSvg("svg", { class: "arcs", "aria-hidden": "true" });
  const layer = drawn.same ? drawn.key.inner : holder;
  const origin = drawn.same ? layer.getBoundingClientRect() : frame;
  const most = Math.max(...found.links.map((link) => Math.abs(link.weight)), 1e-9);
  for (const link of found.links.slice(0, 16)) {
    const from = drawn.query.buttons.get(link.row), to = drawn.key.buttons.get(link.key);
    if (!from || !to || from === to) continue;
    svg.append(arc(from, to, origin, Math.abs(link.weight) / (picture.scene.signed ? most : 1)));
  }
  layer.append(svg);
}

function arc(from, to, origin, share) {
  const [a, b] = [from, to].map((button) => button.getClientRects()[0] || button.getBoundingClientRect());
  const start = [a.left + a.width / 2 - origin.left, a.top - origin.top], end = [b.left + b.width / 2 - origin.left, b.top - origin.top];
  const level = drawn.same && Math.abs(start[1] - end[1]) < 6;
  const lift = level ? Math.min(19, 7 + Math.abs(start[0] - end[0]) * 0.06) * 1.33 : 16;
  const d = drawn.same
    ? `M ${start} C ${start[0]} ${start[1] - lift}, ${end[0]} ${end[1] - lift}, ${end}`
    : `M ${start[0]} ${a.bottom - origin.top} C ${start[0]} ${a.bottom - origin.top + 26}, ${end[0]} ${end[1] - 26}, ${end}`;
  return makeSvg("path", { d, "stroke-width": (0.8 + 3.4 * share).toFixed(2), "stroke-opacity": (0.25 + 0.7 * share).toFixed(2) });
}
