// The head grid: rows are layers, columns are heads, coloured by the chosen statistic.

import { css, even, inkOn } from "./colour.js";
import { cellsOf, painted } from "./cells.js";
import { byId, choice, make } from "./dom.js";
import { drawLegend } from "./legend.js";
import { ranked } from "./ranked.js";
import { set, state } from "./state.js";
import { number, tag, twoPlaces } from "./words.js";

let wanted = null; // watches which small maps come into sight

function drawSeen(entries) {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    wanted.unobserve(target);
    target.drawMap();
  }
}

// The head's map, as the large one would draw it.
function drawSmall(button, picture, place, head) {
  const cells = cellsOf(picture, place, head);
  if (!cells) return button.classList.add("none");
  const drawn = painted(cells);
  drawn.setAttribute("aria-hidden", "true");
  button.replaceChildren(drawn);
}

export function drawHeads(picture) {
  const about = picture.statistic(state.statistic);
  const grid = byId("grid");
  const { columns, scene } = picture;
  const wide = columns.length <= 8, maps = state.grid === "maps";
  choice(byId("grid-kind"), [["numbers", "numbers", "one number per head"], ["ranked", "sorted", "all heads in the order of their number"], ["maps", "maps", "one small map per head: queries down, keys across"]], state.grid, (grid) => set({ grid }));
  document.querySelector("main").classList.toggle("wide-heads", maps);
  grid.classList.toggle("maps", maps);
  if (maps) wanted = new IntersectionObserver(drawSeen);
  grid.style.gridTemplateColumns = `max-content repeat(${columns.length}, minmax(${maps ? 44 : wide ? 30 : 13}px, ${maps ? 150 : wide ? 44 : 34}px))`;
  const scale = about ? even(about.low, about.high) : null;
  if (state.grid === "ranked" && about) return drawRanked(picture, about, grid);
  grid.classList.remove("ranked");
  grid.setAttribute("role", "grid");
  const top = [make("span", { class: "name corner", text: "layer ↓ head →" }), ...columns.map((head) => make("span", { class: "name top", text: head }))];
  const lines = scene.layers.map((layer, place) =>
    make("div", { class: "line", role: "row" },
      make("span", { class: "name", role: "rowheader", text: picture.layerName(place) }),
      ...columns.map((head) => cell(picture, place, head, about, scale, wide)))
  );
  grid.replaceChildren(...top, ...lines);
  sayFormula(about);
  const small = maps ? cellsOf(picture) : null;
  if (small) drawLegend(byId("grid-legend"), small.scale, make("span", { text: small.scale.said }));
  else if (scale) drawLegend(byId("grid-legend"), scale);
  readout(picture, state.layer, state.head);
}

function sayFormula(about) {
  const same = about && about.title === about.head_title && about.unit === about.head_unit;
  const small = about && smallUnit(about) ? `; numbers are × ${smallUnit(about).toExponential(0)}` : "";
  byId("formula").textContent = about ? `${about.formula}, in ${about.unit}${same ? "" : `; here: ${about.head_title}, in ${about.head_unit}`}${state.grid === "numbers" ? small : ""}` : "";
}

// Numbers too small for two places are told in a power of ten, so that no grid reads 0.00 everywhere.
function smallUnit(about) {
  const most = Math.max(Math.abs(about.low), Math.abs(about.high));
  return most > 0 && most < 0.1 ? 10 ** Math.floor(Math.log10(most)) : 0;
}

function drawRanked(picture, about, grid) {
  grid.classList.add("ranked");
  grid.setAttribute("role", "group");
  grid.style.gridTemplateColumns = "";
  grid.replaceChildren(...ranked(picture, about, walkRanked));
  sayFormula(about);
  byId("grid-legend").replaceChildren();
  readout(picture, state.layer, state.head);
}

// Up and down walk the sorted list.
function walkRanked(event) {
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key], all = [...byId("grid").querySelectorAll(".rank")];
  const next = step && all[all.indexOf(event.currentTarget) + step];
  if (!next) return;
  event.preventDefault();
  next.click();
  next.focus();
}

function cell(picture, place, head, about, scale, wide) {
  if (!picture.has(place, head)) return make("span", { role: "gridcell" });
  const value = about ? picture.summary(about.label, place, head) : null;
  const chosen = place === state.layer && head === state.head;
  const button = make("button", {
    type: "button", role: "gridcell", "data-layer": place, "data-head": head,
    "aria-selected": String(chosen), tabindex: chosen ? 0 : -1, "aria-label": said(picture, place, head),
    onclick: () => set({ layer: place, head }),
    onpointerenter: () => readout(picture, place, head),
    onpointerleave: () => readout(picture, state.layer, state.head),
    onkeydown: (event) => move(event, picture),
  });
  if (state.grid === "maps") {
    button.drawMap = () => drawSmall(button, picture, place, head);
    wanted.observe(button);
  } else if (value === null || !Number.isFinite(value)) button.className = "none";
  else {
    button.style.backgroundColor = css(scale.kind, scale.place(value));
    button.style.color = inkOn(scale.kind, scale.place(value));
    if (wide) {
      button.textContent = twoPlaces(value / (smallUnit(about) || 1));
      button.setAttribute("aria-label", `${said(picture, place, head)}, shown as ${button.textContent}`);
    }
  }
  return button;
}

function said(picture, place, head) {
  const about = picture.statistic(state.statistic);
  const value = about ? picture.summary(about.label, place, head) : null;
  const why = about && picture.layer(place).undefined[about.label];
  const shown = value === null ? why || "no number" : `${number(value)} ${about.head_unit}`;
  return `head ${picture.headName(place, head)}: ${about ? `${about.head_title} ` : ""}${shown}`;
}

function readout(picture, place, head) {
  if (picture.has(place, head)) byId("grid-readout").textContent = said(picture, place, head);
}

// Arrow keys walk to the next watched head.
function move(event, picture) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step) return;
  event.preventDefault();
  let place = state.layer, column = picture.columns.indexOf(state.head);
  do {
    place += step[0];
    column += step[1];
    if (place < 0 || column < 0 || place >= picture.scene.layers.length || column >= picture.columns.length) return;
  } while (!picture.has(place, picture.columns[column]));
  set({ layer: place, head: picture.columns[column] });
  byId("grid").querySelector('[aria-selected="true"]').focus();
}

// Only the marks of the selection, without drawing all cells again.
export function markHead(picture) {
  for (const button of byId("grid").querySelectorAll("button")) {
    const chosen = Number(button.dataset.layer) === state.layer && Number(button.dataset.head) === state.head;
    if (button.classList.contains("flip")) continue;
    button.setAttribute(button.classList.contains("rank") ? "aria-pressed" : "aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
  }
  readout(picture, state.layer, state.head);
}

export function drawStatistics(picture) {
  const watched = picture.scene.statistics.filter((about) => picture.scene.layers.some((x) => about.label in x.summaries));
  byId("statistic").replaceChildren(
    ...watched.map((about) => make("option", { value: about.label, text: about.head_title, selected: about.label === state.statistic }))
  );
}

export function drawLinks(picture) {
  const holder = byId("links");
  const links = picture.scene.links.slice(0, 12);
  if (!links.length) return holder.replaceChildren();
  const hint = "two of each head at most; without links to self, first and special tokens";
  const head = make("div", { class: "head", title: hint }, make("span", { text: "token and position ← what it looks at" }), make("span", { text: "weight" }), make("span", { text: picture.oneStack ? "layer.head" : "layer · head" }));
  holder.replaceChildren(make("h3", { text: "Strongest links", title: hint }), head, ...links.map((link) => linkButton(picture, link)));
}

function linkButton(picture, link) {
  const [row, key] = [["query", link.row], ["key", link.key]].map(([side, slot]) => picture.axis(link.layer, side).text[slot]);
  return make("button", { type: "button", onclick: () => set({ layer: link.layer, head: link.head, row: link.row, key: link.key }) },
    make("span", { class: "pair" }, make("bdi", { text: tag(row, 20) }), make("span", { class: "where", text: ` ${link.row}` }), make("span", { class: "arrow", text: " ← " }), make("bdi", { text: tag(key, 20) }), make("span", { class: "where", text: ` ${link.key}` })),
    make("span", { text: number(link.weight) }),
    make("span", { class: "where", text: picture.headName(link.layer, link.head) }));
}
