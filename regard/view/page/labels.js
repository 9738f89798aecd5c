// Token labels along the axes of the heat map, where there is room; slot numbers elsewhere.

import { shownKey, state } from "./state.js";
import { tag } from "./words.js";

export function drawLabels(context, layout, view, picture, colours) {
  const { left, top, across, down } = layout;
  context.font = layout.font;
  const rows = { axis: picture.axis(state.layer, "query"), step: down / view.rows };
  const keys = { axis: picture.axis(state.layer, "key"), step: across / view.keys };
  context.textBaseline = "middle";
  eachLabel(rows, view.row, view.rows, (text, at, slot) => {
    context.fillStyle = slot === state.row || slot === state.hoverRow ? colours.ink : colours.soft;
    context.textAlign = "right";
    context.fillText(cut(context, text, left - layout.bar - 8), left - layout.bar - 6, top + at);
  });
  eachLabel(keys, view.key, view.keys, (text, at, slot) => {
    context.save();
    context.translate(left + at, top - 6);
    context.rotate(-Math.PI / 2);
    context.fillStyle = slot === shownKey() ? colours.ink : colours.soft;
    context.textAlign = "left";
    context.fillText(cut(context, text, top - 10), 0, 0);
    context.restore();
  });
}

// Token text where a token has 10 pixels, else slot numbers at round steps.
function eachLabel({ axis, step }, begin, count, draw) {
  if (step >= (axis.kind === "text" ? 10 : 14)) {
    for (let slot = Math.floor(begin); slot < Math.min(axis.length, begin + count); slot++) {
      const middle = (slot + 0.5 - begin) * step;
      if (middle >= 0 && middle <= count * step) draw(tag(axis.text[slot], 24), middle, slot);
    }
    return;
  }
  const every = roundStep(42 / step);
  for (let slot = Math.ceil(begin / every) * every; slot < Math.min(axis.length, begin + count); slot += every) {
    draw(String(slot), (slot + 0.5 - begin) * step, slot);
  }
}

function roundStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, least)));
  return [1, 2, 5, 10].map((x) => x * power).find((x) => x >= least) || 10 * power;
}

function cut(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let letters = [...text];
  while (letters.length > 1 && context.measureText(letters.join("") + "…").width > room) letters = letters.slice(0, -1);
  return letters.join("") + "…";
}
