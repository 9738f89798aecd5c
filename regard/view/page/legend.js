// Legends: always drawn, with real values.

import { css } from "./colour.js";
import { make } from "./dom.js";

// scale: {kind, ticks}; notes: elements after the ramp.
export function drawLegend(holder, scale, ...notes) {
  const canvas = make("canvas", { width: 256, height: 1, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  for (let x = 0; x < 256; x++) {
    context.fillStyle = css(scale.kind, x / 255);
    context.fillRect(x, 0, 1, 1);
  }
  const ticks = make("div", { class: "ticks" }, ...scale.ticks.map(([, text]) => make("span", { text })));
  placeTicks(ticks, scale.ticks);
  holder.replaceChildren(make("div", { class: "ramp" }, canvas, ticks), ...notes);
}

function placeTicks(holder, ticks) {
  holder.style.position = "relative";
  holder.style.height = "16px";
  [...holder.children].forEach((child, i) => {
    const place = ticks[i][0];
    child.style.position = "absolute";
    child.style.left = `${100 * place}%`;
    child.style.transform = `translateX(${-100 * place}%)`;
    child.style.whiteSpace = "nowrap";
  });
}

export const swatch = (text, kind = "") => make("span", {}, make("span", { class: `swatch ${kind}` }), text);
