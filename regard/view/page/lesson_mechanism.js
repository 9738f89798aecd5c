// Chapters 4 to 7 and 9: mechanisms of the catalogue on the reader's own words, one matrix of weights per head.

import { embedding, wordsOf } from "./draws.js";
import { byId, make } from "./dom.js";
import { matrix } from "./matrix.js";
import { run } from "./program.js";
import { plural } from "./words.js";

let lesson = null, words = [];
const chosen = {}; // figure -> row

export function startMechanisms(given) {
  lesson = given;
  const input = byId("sentence"), pick = byId("mechanism");
  for (const [family, names] of given.about.families) pick.append(make("optgroup", { label: family }, ...names.map((name) => make("option", { value: name, text: name }))));
  pick.value = given.about.first;
  pick.addEventListener("change", () => drawPicked());
  input.addEventListener("input", () => begin(input.value));
  begin(input.value);
}

// The words of the sentence, for all chapters that use them.
function begin(text) {
  const found = wordsOf(text), { most } = lesson.about;
  const problem = !found.length ? "Write a sentence." : found.length > most ? `That is ${plural(found.length, "word")}; the pictures show ${most} at most. The first ${most} are shown.` : "";
  byId("sentence-said").textContent = problem;
  if (!found.length) return;
  words = found.slice(0, most);
  for (const holder of document.querySelectorAll("[data-mechanism]")) drawWeights(holder, holder.dataset.mechanism);
  drawPicked();
}

// {weights, output}: what a mechanism gives of the sentence; {refused} where it cannot be computed on so many words.
export function computed(name, of = words) {
  const about = lesson.program(name)[of.length];
  if (about.refused) return about;
  const width = lesson.about.width;
  return { ...about, ...run(about.program, { x: of.flatMap((word) => embedding(word, width)) }, lesson.constants) };
}

function drawWeights(holder, name) {
  const made = computed(name);
  if (made.refused) return holder.replaceChildren(make("p", { class: "hint", text: `On ${plural(words.length, "word")} this cannot be computed: ${made.refused}` }));
  const parts = [];
  if (made.weights) parts.push(...heads(holder, name, made));
  else parts.push(make("p", { class: "hint", text: made.unobservable || "There are no weights to show." }));
  if (made.output) parts.push(outputs(made.output, name));
  holder.replaceChildren(...parts);
}

// Keys that are not the words themselves: other words, or slots.
function keysOf(made, count) {
  const keys = made.keys || words;
  return keys.length === count ? keys : Array.from({ length: count }, (_, at) => `slot ${at + 1}`);
}

function heads(holder, name, made) {
  const [, count, rows, keys] = made.weights.sizes, columns = keysOf(made, keys), { values } = made.weights;
  const names = rows === words.length ? words : Array.from({ length: rows }, (_, at) => `row ${at + 1}`), signed = values.some((x) => x < -1e-12);
  return Array.from({ length: count }, (_, head) => matrix({
    rows: names, columns, signed, title: count > 1 ? `head ${head + 1} of ${count}` : "weights",
    row: chosen[name] ?? null, onPick: (row) => {
      chosen[name] = chosen[name] === row ? null : row;
      drawWeights(holder, name);
    },
    value: (r, c) => (made.visible && !made.visible.values[(head * rows + r) * keys + c] ? null : values[(head * rows + r) * keys + c]),
  }));
}

function outputs({ sizes, values }, name) {
  const [, , rows, width] = sizes, names = rows === words.length ? words : Array.from({ length: rows }, (_, at) => `row ${at + 1}`);
  const drawn = matrix({ rows: names, columns: Array.from({ length: width }, (_, at) => String(at + 1)), signed: true, title: "output of head 1", value: (r, c) => values[r * width + c] });
  return make("details", {}, make("summary", { text: `What ${name} gives each word` }), drawn);
}

function drawPicked() {
  const name = byId("mechanism").value, about = lesson.about.cards[name];
  byId("picked-line").textContent = about.line;
  byId("picked-facts").replaceChildren(...[["source", about.source], ["attends to", about.attends], ["time", about.time], ["memory", about.memory]].flatMap(([term, text]) => [make("dt", { text: term }), make("dd", { text })]));
  for (const each of document.querySelectorAll("#equations > *")) each.hidden = each.dataset.of !== name;
  const holder = byId("picked");
  holder.dataset.name = name;
  drawWeights(holder, name);
}
