// Heads that do something with a name: what it means, and where to look.

import { byId, make } from "./dom.js";
import { set } from "./state.js";
import { number } from "./words.js";

export function drawFinds(picture) {
  const holder = byId("finds"), finds = picture.scene.finds || [];
  holder.hidden = !finds.length;
  holder.replaceChildren(make("h3", { text: "What heads do here" }), ...finds.map((find) => kind(picture, find)));
}

function kind(picture, find) {
  const heads = find.heads.map(({ layer, head, score }) => make("button", {
    type: "button", class: "head", title: `${find.name} score ${number(score)}`, "aria-label": `${find.name}: head ${picture.headName(layer, head)}, score ${number(score)}`,
    text: `${picture.headName(layer, head)} (${number(score)})`, onclick: () => set({ layer, head, statistic: find.label }),
  }));
  const more = find.count > find.heads.length ? make("span", { class: "hint", text: ` and ${find.count - find.heads.length} more` }) : null;
  return make("div", { class: "find" }, make("b", { text: find.name }), make("span", { class: "hint", text: ` ${find.sentence} ` }), ...heads, more);
}
