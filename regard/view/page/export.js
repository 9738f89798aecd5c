// What is shown, as a file: PNG of the map with its tracks, SVG with text as text, CSV and JSON of its numbers.

import { css } from "./colour.js";
import { byId, make, makeSvg } from "./dom.js";
import { cellsShown, current } from "./map.js";
import { state } from "./state.js";
import { number, tag } from "./words.js";

const MOST_RECTANGLES = 6400, WIDE = 720;

export function drawExport(picture) {
  const as = (kind, write) => make("button", { type: "button", text: kind, "data-kind": kind.toLowerCase(), onclick: () => write(picture) });
  byId("export").replaceChildren(make("summary", { text: "Export" }), make("div", { class: "choice", role: "group", "aria-label": "Export what is shown" }, as("PNG", png), as("SVG", svg), as("CSV", csv), as("JSON", json)));
}

const nameOf = (picture) => `head-${picture.headName(state.layer, state.head).replace(/[^\w.-]+/g, "-")}`;

function save(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function png(picture) {
  byId("canvas").toBlob((blob) => save(`${nameOf(picture)}.png`, blob));
}

// ---- numbers -------------------------------------------------------------------------------------------------------

function json(picture) {
  const { cells, ...about } = cellsShown();
  const said = { model: picture.scene.model, layer: picture.layer(state.layer).title, head: state.head, ...about, which: about.exact ? "exact" : state.which, hidden: { first: state.hide, special: state.special }, cells };
  save(`${nameOf(picture)}.json`, new Blob([JSON.stringify(said)], { type: "application/json" }));
}

// A row per cell: slots and tokens of its first query and key, and its weight with all its digits.
function csv(picture) {
  const { cells, exact } = cellsShown();
  const [query, key] = ["query", "key"].map((side) => picture.axis(state.layer, side).text);
  const lines = [["row", "key", "query token", "key token", exact ? "weight" : `${state.which} weight of the cell`].map(quoted).join(",")];
  for (const cell of cells) lines.push([cell.row, cell.key, quoted(query[cell.row]), quoted(key[cell.key]), cell.value].join(","));
  save(`${nameOf(picture)}.csv`, new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
}

// A text that a spreadsheet could take for a formula begins with an apostrophe.
const quoted = (text) => `"${(/^[=+@\-\t\r]/.test(text) ? "'" : "") + text.replace(/"/g, '""')}"`;

// ---- SVG -----------------------------------------------------------------------------------------------------------

function svg(picture) {
  save(`${nameOf(picture)}.svg`, new Blob([new XMLSerializer().serializeToString(drawing(picture))], { type: "image/svg+xml" }));
}

export function drawing(picture) {
  const { cells, view, cell, exact } = cellsShown(), { cells: painted, layout } = current();
  const left = 110, top = 96, step = Math.min(28, WIDE / (view.keys / cell[1])) / cell[1];
  const high = (step * layout.down * view.keys) / (layout.across * view.rows);
  const width = left + view.keys * step + 12, height = top + view.rows * high + 40;
  const root = makeSvg("svg", { viewBox: `0 0 ${width.toFixed(1)} ${height.toFixed(1)}`, width: width.toFixed(0), height: height.toFixed(0), "font-family": "DejaVu Sans, sans-serif", "font-size": 10 });
  const title = `${picture.scene.model} · head ${picture.headName(state.layer, state.head)} · ${exact ? "exact weights" : `${state.which} of cells`}, ${painted.scale.said}`;
  root.append(makeSvg("rect", { width: "100%", height: "100%", fill: "#ffffff" }), makeSvg("text", { x: 8, y: 16, "font-size": 12, text: title }));
  const box = { left, top, step, high, view };
  root.append(cells.length <= MOST_RECTANGLES ? rectangles(cells, cell, painted.scale, box) : image(box, layout));
  root.append(...labels(picture, "query", box), ...labels(picture, "key", box));
  return root;
}

function rectangles(cells, cell, scale, { left, top, step, high, view }) {
  const group = makeSvg("g", { "shape-rendering": "crispEdges" });
  for (const { row, key, value, allowed } of cells) {
    const rect = makeSvg("rect", { x: (left + (key - view.key) * step).toFixed(2), y: (top + (row - view.row) * high).toFixed(2), width: (cell[1] * step).toFixed(2), height: (cell[0] * high).toFixed(2), fill: css(scale.kind, scale.place(value, allowed)) });
    rect.append(makeSvg("title", { text: `${row} → ${key}: ${number(value)}` }));
    group.append(rect);
  }
  return group;
}

// The map's own pixels, where there are too many cells for rectangles.
function image({ left, top, step, high, view }, layout) {
  const from = byId("canvas"), ratio = from.width / from.clientWidth, canvas = document.createElement("canvas");
  canvas.width = layout.across * ratio;
  canvas.height = layout.down * ratio;
  canvas.getContext("2d").drawImage(from, layout.left * ratio, layout.top * ratio, canvas.width, canvas.height, 0, 0, canvas.width, canvas.height);
  return makeSvg("image", { x: left, y: top, width: (view.keys * step).toFixed(2), height: (view.rows * high).toFixed(2), preserveAspectRatio: "none", href: canvas.toDataURL() });
}

function labels(picture, side, { left, top, step, high, view }) {
  const axis = picture.axis(state.layer, side), rows = side === "query", size = rows ? high : step;
  const begin = rows ? view.row : view.key, count = rows ? view.rows : view.keys, every = Math.max(1, Math.ceil(11 / size));
  const texts = [];
  for (let slot = Math.ceil(begin / every) * every; slot < Math.min(axis.length, begin + count); slot += every) {
    const at = (slot + 0.5 - begin) * size, text = every === 1 ? tag(axis.text[slot], 16) : String(slot);
    texts.push(makeSvg("text", rows ? { x: left - 6, y: (top + at + 3.5).toFixed(1), "text-anchor": "end", text } : { transform: `translate(${(left + at + 3.5).toFixed(1)} ${top - 6}) rotate(-90)`, text }));
  }
  return texts;
}
