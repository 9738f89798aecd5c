// All heads of a layer beside each other, as small maps; a click shows one large.

import { cellsOf, painted } from "./cells.js";
import { byId, make } from "./dom.js";
import { set, state } from "./state.js";

export function drawSiblings(picture, shown) {
  const holder = byId("siblings");
  holder.hidden = !shown;
  if (!shown) return holder.replaceChildren();
  holder.replaceChildren(...picture.layer(state.layer).heads.map((head) => small(picture, head)));
}

function small(picture, head) {
  const cells = cellsOf(picture, state.layer, head), name = picture.headName(state.layer, head);
  const image = cells ? painted(cells) : make("span", { class: "hint", text: "no map" });
  if (cells) image.setAttribute("aria-hidden", "true");
  return make("button", { type: "button", "data-head": head, "aria-pressed": String(head === state.head), "aria-label": `Show head ${name}`, onclick: () => set({ head, shape: "matrix" }) }, image, make("span", { text: name }));
}
