// What lies under an axis that is no text: the picture behind its patches, the outline and seconds of a sound.

import { make, makeSvg } from "./dom.js";

const WIDE = 1200, TALL = 48, COLOUR = 0.25; // how much of a picture's own colour is kept under the colours of weights

// The picture fills the square that the patches form; nothing where the trace holds none.
export function pictureUnder(picture, axis, square) {
  const pixels = picture.whole(axis.picture);
  if (!pixels) return;
  const [height, width] = axis.picture.shape;
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let at = 0; at < width * height; at++) {
    const rgb = [pixels[3 * at], pixels[3 * at + 1], pixels[3 * at + 2]], grey = 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2];
    image.data.set([...rgb.map((value) => (1 - COLOUR) * grey + COLOUR * value), 255], 4 * at);
  }
  context.putImageData(image, 0, 0);
  square.classList.add("pictured");
  square.style.backgroundImage = `url(${canvas.toDataURL()})`;
}

// The outline of a sound, a line of seconds, and its spectrogram.
export function soundOver(picture, axis) {
  const every = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60].find((step) => axis.seconds / step <= 12) || 120;
  const marks = make("div", { class: "seconds" });
  for (let at = 0; at <= axis.seconds + 1e-9; at += every) {
    const share = at / axis.seconds, mark = make("span", { text: `${Number(at.toFixed(1))} s` });
    mark.style.left = `${100 * share}%`;
    mark.style.transform = `translateX(${-100 * share}%)`;
    marks.append(mark);
  }
  const said = `The sound, ${axis.seconds.toFixed(1)} seconds`;
  const svg = makeSvg("svg", { class: "sound", viewBox: `0 0 ${WIDE} ${TALL}`, preserveAspectRatio: "none", role: "img", "aria-label": said }, ...outline(picture, axis));
  return [svg, marks, ...bands(picture, axis)];
}

// A spectrogram, high bands above low ones, as opaque as it is loud.
function bands(picture, axis) {
  const loud = picture.whole(axis.spectrogram);
  if (!loud) return [];
  const [height, width] = axis.spectrogram.shape;
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let at = 0; at < width * height; at++) image.data[4 * ((height - 1 - Math.floor(at / width)) * width + (at % width)) + 3] = loud[at];
  context.putImageData(image, 0, 0);
  const drawn = make("div", { class: "bands", role: "img", "aria-label": `Its spectrogram: ${height} mel bands, low ones below` });
  drawn.style.maskImage = `url(${canvas.toDataURL()})`;
  return [drawn];
}

function outline(picture, axis) {
  const wave = picture.whole(axis.wave);
  if (!wave) return [];
  const bins = axis.wave.shape[0], most = wave.reduce((top, value) => Math.max(top, Math.abs(value)), 1e-6);
  const y = (value) => ((1 - value / most) * TALL) / 2;
  const points = (side) => Array.from({ length: bins }, (_, bin) => `${(((bin + 0.5) / bins) * WIDE).toFixed(1)},${y(wave[2 * bin + side]).toFixed(1)}`);
  return [makeSvg("polygon", { points: [...points(1), ...points(0).reverse()].join(" ") })];
}
