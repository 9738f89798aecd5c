// Compared traces side by side: the same head of each, small, beneath the map; one click shows it large.

import { cellsOf, painted } from "./cells.js";
import { byId, make } from "./dom.js";
import { set, state } from "./state.js";

export function drawThumbnails(pictures, names) {
  const holder = byId("thumbnails");
  holder.hidden = !names;
  if (names) holder.replaceChildren(...pictures.map((picture, view) => thumbnail(picture, names[view], view)));
}

function thumbnail(picture, name, view) {
  const cells = picture.has(state.layer, state.head) ? cellsOf(picture) : null;
  const drawn = cells ? painted(cells) : make("span", { class: "hint", text: "not watched" });
  if (cells) {
    drawn.setAttribute("aria-hidden", "true");
    drawn.style.aspectRatio = `${cells.map.keys} / ${cells.map.rows}`;
  }
  return make("button", { type: "button", "aria-pressed": String(view === state.view), onclick: () => set({ view }) }, drawn, make("span", { text: name }));
}
