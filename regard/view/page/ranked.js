// All heads in the order of the chosen statistic.

import { css, even } from "./colour.js";
import { make } from "./dom.js";
import { set, state } from "./state.js";
import { number } from "./words.js";

export function ranked(picture, about, arrowKeys) {
  const heads = picture.scene.layers.flatMap((layer, place) => layer.heads.map((head) => ({ place, head, value: picture.summary(about.label, place, head) })));
  const known = heads.filter(({ value }) => value !== null && Number.isFinite(value));
  known.sort((a, b) => (state.order === "up" ? a.value - b.value : b.value - a.value) || a.place - b.place || a.head - b.head);
  const scale = even(about.low, about.high), most = Math.max(Math.abs(about.low), Math.abs(about.high)) || 1;
  const flip = make("button", { type: "button", class: "flip", text: state.order === "up" ? "smallest first ↑" : "largest first ↓", onclick: () => set({ order: state.order === "up" ? "down" : "up" }) });
  return [flip, ...known.map((one) => line(picture, about, one, scale, most, arrowKeys))];
}

function line(picture, about, { place, head, value }, scale, most, arrowKeys) {
  const chosen = place === state.layer && head === state.head, fill = make("span", { class: "fill" });
  fill.style.width = `${(100 * Math.abs(value)) / most}%`;
  fill.style.backgroundColor = css(scale.kind, Math.max(0.25, scale.place(value)));
  return make("button", {
    type: "button", class: "rank", "data-layer": place, "data-head": head, "aria-pressed": String(chosen), tabindex: chosen ? 0 : -1,
    "aria-label": `head ${picture.headName(place, head)}: ${about.head_title} ${number(value)} ${about.head_unit}`,
    onclick: () => set({ layer: place, head }), onkeydown: arrowKeys,
  }, make("span", { class: "who", text: picture.headName(place, head) }), make("span", { class: "track" }, fill), make("span", { class: "value", text: number(value) }));
}
