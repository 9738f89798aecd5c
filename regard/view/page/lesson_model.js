// Chapter 8: the embedded language model, whole, on the reader's own text: every head of every layer, and what comes next.

import { tokenizer } from "./bpe.js";
import { css } from "./colour.js";
import { byId, make } from "./dom.js";
import { bars, matrix } from "./matrix.js";
import { run } from "./program.js";

let lesson = null, tokens = null, now = null;
let at = { layer: 0, head: 0 }, row = null, timer = null;

export function startModel(given) {
  lesson = given;
  tokens = tokenizer(given.about.model.tokenizer);
  at = { ...given.about.model.first };
  const input = byId("prompt");
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => begin(input.value), 150);
  });
  begin(input.value);
}

function begin(text) {
  const { model } = lesson.about, found = tokens.encode(text);
  byId("prompt-said").textContent = !found.length ? "Write some words." : found.length >= model.most ? `Only the last ${model.most - 1} pieces are read.` : "";
  if (!found.length) return;
  const ids = [model.start, ...found.slice(-(model.most - 1)).map((token) => token.id)];
  const made = run(lesson.program("model"), { ids: [...ids, ...Array(model.most - ids.length).fill(model.start)] }, lesson.constants);
  now = { ids, texts: ids.map((id, n) => (n ? tokens.shown(id) : "(start)")), made };
  row = null;
  draw();
  document.body.dataset.modelled = String(ids.length);
}

export const weight = (layer, head, query, key) => now.made[`weights${layer}`].values[(head * lesson.about.model.most + query) * lesson.about.model.most + key];

function draw() {
  drawGrid();
  drawHead();
  drawNext();
}

// Small pictures of all heads, a row of them per layer.
function drawGrid() {
  const { layers, heads } = lesson.about.model;
  byId("model-grid").replaceChildren(...Array.from({ length: layers }, (_, layer) => make("div", { class: "line" }, ...Array.from({ length: heads }, (_, head) => small(layer, head)))));
}

function small(layer, head) {
  const n = now.ids.length, canvas = make("canvas", { width: n, height: n, "aria-hidden": true }), context = canvas.getContext("2d");
  for (let q = 0; q < n; q++) for (let k = 0; k <= q; k++) {
    context.fillStyle = css("sequential", Math.sqrt(weight(layer, head, q, k)));
    context.fillRect(k, q, 1, 1);
  }
  const on = at.layer === layer && at.head === head;
  return make("button", { type: "button", "aria-pressed": String(on), "aria-label": `layer ${layer}, head ${head}`, title: `layer ${layer}, head ${head}`, onclick: () => {
    at = { layer, head };
    row = null;
    drawGrid();
    drawHead();
    byId("model-grid").children[layer].children[head].focus();
  } }, canvas);
}

function drawHead() {
  const texts = now.texts.map((text) => text.replaceAll("\n", "⏎"));
  byId("model-head").replaceChildren(matrix({
    rows: texts, columns: texts, row, title: `layer ${at.layer}, head ${at.head}`, digits: texts.length <= 14,
    value: (q, k) => (k > q ? null : weight(at.layer, at.head, q, k)), onPick: (query) => {
      row = row === query ? null : query;
      drawHead();
    },
  }));
}

function drawNext() {
  const { sizes: [, , wide], values } = now.made.logits, from = (now.ids.length - 1) * wide, logits = Array.from(values.slice(from, from + wide));
  const top = Math.max(...logits), total = logits.reduce((sum, x) => sum + Math.exp(x - top), 0);
  const best = logits.map((x, id) => [x, id]).sort((a, b) => b[0] - a[0]).slice(0, 6);
  byId("model-next").replaceChildren(bars(best.map(([x, id]) => [tokens.shown(id).replaceAll("\n", "⏎"), Math.exp(x - top) / total]), 1));
}
