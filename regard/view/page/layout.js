// Where the parts of the heat map lie on its canvas, in CSS pixels.

import { state } from "./state.js";
import { tag } from "./words.js";

const LARGEST_CELL = 64;

// {width, height, left, top, across, down (the map itself), bar (hidden mass), side, bottom (tracks), font}
export function layoutOf(picture, cells, width, context) {
  const narrow = width < 460;
  const font = `${narrow ? 10.5 : 11.5}px ui-sans-serif, system-ui, "Segoe UI", "DejaVu Sans", sans-serif`;
  context.font = font;
  const widest = (side, most) => {
    const texts = picture.axis(state.layer, side).text.slice(0, 400);
    const longest = Math.max(side === "query" ? 44 : 36, ...texts.map((text) => context.measureText(tag(text, 24)).width));
    return Math.min(most, longest) + 12;
  };
  const bar = cells.mass ? 26 : 0;
  const side = narrow ? 64 : 84, losses = picture.losses(state.layer), bottom = losses ? 92 : 52;
  const left = widest("query", narrow ? 56 : 96) + bar, top = widest("key", narrow ? 56 : 84);
  const [rows, keys] = ["query", "key"].map((axis) => picture.axis(state.layer, axis).length);
  const room = Math.max(80, width - left - side);
  const across = Math.min(room, keys * LARGEST_CELL);
  const ratio = Math.min(1.12, Math.max(0.3, rows / keys));
  const down = Math.min(across * ratio, rows * LARGEST_CELL);
  return { width, height: top + down + bottom, left, top, across, down, bar, side, bottom, font };
}
