// A small matrix as a table: every number is there, in its colour; one stop of the Tab key, arrows move in it.

import { css, inkOn } from "./colour.js";
import { make } from "./dom.js";
import { number, tag, twoPlaces } from "./words.js";

// rows, columns: what they are called; value(row, column): a number, or null where the pair is hidden; signed: numbers
// may be negative; row: the one that is chosen; onPick(row): called with a row that is clicked.
export function matrix({ rows, columns, value, signed = false, title = "", row = null, onPick = null, digits = true }) {
  const numbers = rows.map((_, r) => columns.map((_, c) => value(r, c)));
  const edge = Math.max(1e-9, ...numbers.flat().filter((x) => x !== null && Number.isFinite(x)).map(Math.abs)), top = signed ? edge : Math.max(1, edge);
  const place = (x) => (signed ? 0.5 + (0.5 * x) / top : x / top), kind = signed ? "diverging" : "sequential";
  const head = make("tr", {}, make("td"), ...columns.map((text) => make("th", { scope: "col", text: tag(text, 11), title: text })));
  const said = make("p", { class: "readout", "aria-live": "polite" }), cells = [];
  const lines = rows.map((text, r) => {
    const drawn = numbers[r].map((x, c) => cell(x, r, c));
    cells.push(drawn);
    return make("tr", { class: r === row ? "chosen" : null }, make("th", { scope: "row", text: tag(text, 13), title: text }), ...drawn);
  });
  const table = make("table", { class: "matrix" }, title ? make("caption", { text: title }) : null, head, ...lines);
  const read = (r, c) => (said.textContent = numbers[r][c] === null ? `${tag(rows[r])} may not look at ${tag(columns[c])}` : `${tag(rows[r])} → ${tag(columns[c])}: ${number(numbers[r][c])}`);

  function cell(x, r, c) {
    const drawn = make("td", { tabindex: r === (row ?? 0) && c === 0 ? 0 : -1, "data-value": x === null ? null : String(x) });
    if (x === null) drawn.className = "hidden";
    else {
      drawn.style.background = css(kind, place(x));
      drawn.style.color = inkOn(kind, place(x));
      drawn.textContent = digits ? twoPlaces(x) : "";
    }
    drawn.addEventListener("focus", () => read(r, c));
    drawn.addEventListener("pointerenter", () => read(r, c));
    if (onPick) drawn.addEventListener("click", () => onPick(r));
    return drawn;
  }

  table.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const r = cells.findIndex((line) => line.includes(event.target)), c = r < 0 ? -1 : cells[r].indexOf(event.target);
    if (c < 0) return;
    if (onPick && (event.key === "Enter" || event.key === " ")) return event.preventDefault(), onPick(r);
    if (!step) return;
    event.preventDefault();
    const to = cells[Math.max(0, Math.min(rows.length - 1, r + step[0]))][Math.max(0, Math.min(columns.length - 1, c + step[1]))];
    event.target.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  });
  return make("figure", { class: "drawn" }, make("div", { class: "across" }, table), said);
}

// Numbers of at least 0 as bars, each with its name.
export function bars(entries, most = Math.max(1e-9, ...entries.map(([, x]) => x))) {
  return make("div", { class: "bars" }, ...entries.flatMap(([name, x]) => {
    const fill = make("div", { class: "fill" });
    fill.style.width = `${(100 * x) / most}%`;
    return [make("span", { class: "who", text: tag(name, 14), title: name }), make("div", { class: "track" }, fill), make("span", { class: "value", text: number(x), "data-value": String(x) })];
  }));
}

// A vector as a strip of colours, with its size said.
export function strip(values, name, edge = 1) {
  const canvas = make("canvas", { class: "vector", role: "img", width: values.length, height: 1, "aria-label": `${name}: ${values.length} numbers from ${number(Math.min(...values))} to ${number(Math.max(...values))}` });
  const context = canvas.getContext("2d");
  values.forEach((x, at) => {
    context.fillStyle = css("diverging", 0.5 + (0.5 * Math.max(-edge, Math.min(edge, x))) / edge);
    context.fillRect(at, 0, 1, 1);
  });
  return canvas;
}
