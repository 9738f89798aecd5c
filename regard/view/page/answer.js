// What the model's head said. A piece of it selects the row that decided it, so that one sees what it looked at.

import { byId, make } from "./dom.js";
import { set, state } from "./state.js";
import { number, tag } from "./words.js";

let pieces = []; // {button, slot}

// The row that the page shows first: the one that decided the answer's first piece.
export function firstRow(scene, layer) {
  const answer = scene.answer;
  if (!answer || !answer.rows.length || !scene.layers[layer]) return null;
  return scene.layers[layer].query === answer.axis ? answer.rows[0] : null;
}

export function drawAnswer(picture) {
  const { answer } = picture.scene, body = byId("answer");
  body.hidden = !answer;
  pieces = [];
  if (!answer) return body.replaceChildren();
  const parts = [make("span", { class: "hint", text: answer.task || "answer" })];
  if (answer.text) parts.push(make("span", { class: "said" }, ...said(picture, answer)));
  if (answer.confidence !== null) parts.push(make("span", { title: "probability; of several tokens their geometric mean", text: number(answer.confidence) }));
  const others = answer.choices.slice(answer.pieces.length === 1 && answer.text === answer.choices[0]?.text ? 1 : 0);
  if (others.length) parts.push(make("span", { class: "others", text: others.map((choice) => `${tag(choice.text)} ${number(choice.probability ?? choice.value)}`).join(" · ") }));
  if (answer.note) parts.push(make("span", { class: "hint", text: answer.note }));
  body.replaceChildren(...parts);
  markAnswer();
}

function said(picture, answer) {
  const shown = answer.pieces.filter((piece) => piece.slot !== null);
  if (!shown.length) return [make("span", { text: answer.text })];
  return shown.map((piece) => {
    const chance = piece.probability === null || piece.probability === undefined ? "" : `, ${number(piece.probability)}`;
    const time = piece.begin === null || piece.begin === undefined ? "" : `, ${piece.begin.toFixed(2)} to ${piece.end.toFixed(2)} s`;
    const button = make("button", { type: "button", class: "piece", title: `row ${piece.slot}${chance}${time}`, text: piece.text || "∅", onclick: () => select(picture, answer, piece.slot) });
    if (piece.label) button.append(make("span", { class: "tagged", text: piece.label }));
    pieces.push({ button, slot: piece.slot });
    return button;
  });
}

// Its row, in the layer that is shown or, where that has other queries, in the one of the first look.
function select(picture, answer, slot) {
  if (picture.layer(state.layer).query === answer.axis) return set({ row: state.row === slot ? null : slot, key: null });
  const at = picture.scene.pick;
  if (at && picture.layer(at.layer).query === answer.axis) set({ layer: at.layer, head: at.head, row: slot, key: null });
}

export function markAnswer() {
  for (const { button, slot } of pieces) button.setAttribute("aria-pressed", String(state.row === slot));
}
