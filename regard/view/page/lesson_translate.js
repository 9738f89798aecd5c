// Chapters 1 to 3: the embedded translator reads word by word, hands over its last state, or is looked back at.

import { tokenizer } from "./bpe.js";
import { byId, choice, make } from "./dom.js";
import { bars, matrix, strip } from "./matrix.js";
import { run } from "./program.js";
import { tag } from "./words.js";

let lesson = null, tokens = null;
let now = null; // what was computed of the sentence
let read = 1, written = 0, handed = "all";

export function startTranslation(given) {
  lesson = given;
  tokens = tokenizer(given.about.translator.tokenizer);
  const input = byId("source");
  input.addEventListener("change", () => begin(input.value));
  byId("samples").replaceChildren(...given.about.translator.samples.map((text) => make("button", { type: "button", text, onclick: () => begin((input.value = text)) })));
  byId("read-on").addEventListener("click", () => step(1));
  byId("read-back").addEventListener("click", () => step(-1));
  byId("read-all").addEventListener("click", () => step(now.source.length));
  begin(input.value);
}

function begin(text) {
  const { translator } = lesson.about, encoded = tokens.encode(text.trim());
  const most = translator.most - 1, problem = !encoded.length ? "Write a date or a number in words." : encoded.length > most ? `That is ${encoded.length} pieces; this page reads ${most} at most.` : "";
  byId("source-said").textContent = problem;
  if (problem) return;
  const ids = [...encoded.map((token) => token.id), translator.end], source = ids.map((id) => tokens.shown(id).trim() || "␣");
  const all = encoderOf(ids), width = all.states.values.length / ids.length;
  now = { ids, source, width, states: all.states.values, summary: all.summary.values, begin: all.begin.values };
  now.all = writeOut(now.states, ids.length);
  now.last = writeOut(now.summary, 1);
  read = 1;
  written = 0;
  draw();
}

const encoderOf = (ids) => run(lesson.program(`encoder ${ids.length}`), { ids }, lesson.constants);

// Greedy writing: {text, pieces: [{text, weights}]}.
function writeOut(states, count) {
  const { translator } = lesson.about, program = lesson.program(`decoder ${count}`), pieces = [], ids = [];
  let token = translator.start, state = now.begin;
  for (let at = 0; at < translator.longest; at++) {
    const made = run(program, { token: [token], state, states }, lesson.constants);
    state = made.state.values;
    token = made.logits.values.indexOf(Math.max(...made.logits.values));
    pieces.push({ text: token === translator.end ? "(end)" : tokens.shown(token), weights: made.weights.values });
    if (token === translator.end) break;
    ids.push(token);
  }
  return { text: tokens.decode(ids), pieces };
}

function step(by) {
  read = Math.max(1, Math.min(now.source.length, read + by));
  drawReading();
}

function draw() {
  drawReading();
  drawHanded();
  drawForgotten();
  drawBack();
  document.body.dataset.translated = now.all.text;
}

const stateOf = (at) => Array.from(now.states.slice(at * now.width, (at + 1) * now.width));

function drawReading() {
  const half = now.width / 2;
  byId("reading").replaceChildren(...now.source.slice(0, read).map((text, at) => {
    const last = at === read - 1;
    return make("li", { class: last ? "chosen" : null }, make("span", { class: "word", text }), make("span", { class: "arrow", text: "→" }), strip(stateOf(at).slice(0, half), `state ${at + 1}, after ${text}`));
  }));
  byId("read-back").disabled = read === 1;
  byId("read-on").disabled = byId("read-all").disabled = read === now.source.length;
  byId("reading-said").textContent = `${read} of ${now.source.length} pieces read; the state after “${now.source[read - 1]}” is the last one so far.`;
}

function drawHanded() {
  choice(byId("handed"), [["all", "all states, looked back at"], ["last", "only the last state"]], handed, (value) => {
    handed = value;
    drawHanded();
  });
  const used = handed === "all" ? now.all : now.last, half = now.width / 2;
  byId("bottleneck").replaceChildren(...now.source.map((text, at) => make("li", { class: handed === "last" && at < now.source.length - 1 ? "dim" : "chosen" }, make("span", { class: "word", text }), strip(stateOf(at).slice(0, half), `state after ${text}`))));
  byId("wrote").textContent = used.text || "(nothing)";
  byId("wrote").dataset.handed = handed;
}

// How far the last state moves when one word is replaced by one that the model does not know.
function drawForgotten() {
  const half = now.width / 2, last = (states) => states.slice((now.source.length - 1) * now.width).slice(0, half), length = (x) => Math.hypot(...x);
  const end = last(now.states);
  byId("forgotten").replaceChildren(bars(now.source.slice(0, -1).map((text, at) => {
    const ids = now.ids.map((id, n) => (n === at ? lesson.about.translator.unknown : id)), moved = last(encoderOf(ids).states.values);
    return [text, length(moved.map((x, i) => x - end[i])) / length(end)];
  }), 1));
}

function drawBack() {
  const { pieces, text } = now.all, each = pieces[Math.min(written, pieces.length - 1)];
  byId("back-wrote").replaceChildren(...pieces.map((piece, at) => make("button", { type: "button", class: "piece", "aria-pressed": String(at === written), text: piece.text, onclick: () => pick(at) })));
  byId("back-bars").replaceChildren(make("p", { class: "hint", text: `Before it writes “${tag(each.text)}”, the decoder takes of each state:` }), bars(now.source.map((word, at) => [word, each.weights[at]]), 1));
  byId("back-matrix").replaceChildren(matrix({ rows: pieces.map((piece) => piece.text), columns: now.source, value: (r, c) => pieces[r].weights[c], row: written, onPick: pick, title: `a: “${now.source.slice(0, -1).join(" ")}” → “${text}”` }));
}

function pick(at) {
  written = at;
  drawBack();
}
