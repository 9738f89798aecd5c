// The row inspector: where one query looks, in exact numbers; and the head as a whole.

import { byId, make, makeSvg } from "./dom.js";
import { set, shownRow, state } from "./state.js";
import { about, number, percent, tag } from "./words.js";

const LEAST_REST = 1e-6; // below it lies the rounding of float32 sums

export function drawRow(picture) {
  const row = shownRow(), body = byId("row-body");
  if (row === null || row >= picture.axis(state.layer, "query").length) {
    body.replaceChildren(make("h2", { text: "Row" }), make("p", { class: "hint", text: "Point at a row of the map or at a token to see where it looks; click to lock it." }));
    return;
  }
  const axis = picture.axis(state.layer, "query");
  const notes = [axis.padding.includes(row) ? "padding: it attends to nothing" : null, axis.special.includes(row) ? "special token" : null].filter(Boolean);
  body.replaceChildren(
    make("h2", { text: state.row === null ? "Row" : "Row, locked" }),
    make("p", { class: "said" }, make("bdi", { text: tag(axis.text[row]) }), make("span", { class: "slot", text: `  row ${row}${notes.length ? ", " + notes.join(", ") : ""}` })),
    ...linkBars(picture, row),
    ...rowNumbers(picture, row)
  );
}

function linkBars(picture, row) {
  const found = picture.links(state.layer, state.head, row);
  if (!found) return [make("p", { class: "hint", text: missing(picture, row) })];
  const axis = picture.axis(state.layer, "key"), signed = picture.scene.signed;
  const most = Math.max(signed ? 1e-9 : 1, ...found.links.map((link) => Math.abs(link.weight)));
  const bars = found.links.flatMap((link) => bar(
    make("button", { type: "button", class: "who", title: `${axis.text[link.key]} (${link.key})`, onclick: () => set({ row: link.row, key: link.key }) }, make("bdi", { text: tag(axis.text[link.key]) }), make("span", { class: "where", text: ` ${link.key}` })),
    Math.abs(link.weight) / most, about(link.weight, found.exact), link.weight < 0 ? "minus" : "", `key ${link.key}${found.band > 1 ? ` from row ${link.row}` : ""}`));
  if (found.rest !== null && Math.abs(found.rest) >= LEAST_REST) bars.push(...bar(make("span", { class: "who", text: "elsewhere" }), Math.abs(found.rest) / most, about(found.rest, found.exact), "rest"));
  const begin = Math.floor(row / found.band) * found.band;
  const title = signed ? "Largest changes" : found.band > 1 ? `Strongest links of rows ${begin} to ${begin + found.band - 1}` : "Looks at";
  if (!bars.length) return [make("h3", { text: title }), make("p", { class: "hint", text: "Nothing: every weight of this row is 0." })];
  return [make("h3", { text: title }), make("div", { class: "bars", "data-links": found.links.length }, ...bars)];
}

function missing(picture, row) {
  if (!picture.deep) return "The strongest links were not watched.";
  const { batch } = picture.scene;
  return picture.asked.why("row", { batch, layer: state.layer, head: state.head, row }) || "The row's weights are being computed …";
}

function bar(who, share, value, kind = "", title = null) {
  const fill = make("div", { class: `fill ${kind}` });
  fill.style.width = `${100 * share}%`;
  return [who, make("div", { class: "track", title }, fill), make("span", { class: "value", text: value })];
}

function rowNumbers(picture, row) {
  const exact = picture.scene.exact, lines = [], given = picture.deep ? picture.row(state.layer, state.head, row) : null;
  let widest = 1;
  for (const label of Object.keys(picture.parts(state.layer, state.head).rows)) {
    const track = picture.track("rows", label, state.layer, state.head), statistic = picture.statistic(label);
    const its = given && label in given.numbers ? given.numbers[label] : null;
    if (its === null) widest = Math.max(widest, track.band);
    lines.push(make("dt", { text: statistic.title, title: statistic.formula }), make("dd", { text: about(its === null ? track.values[Math.floor(row / track.band)] : its, exact), "data-label": label }), make("dd", { class: "unit", text: statistic.unit }));
  }
  const layer = picture.layer(state.layer), losses = layer.query === layer.key ? picture.losses(state.layer) : null;
  if (losses && losses[row] === losses[row]) lines.push(make("dt", { text: "loss", title: "-log p of this token, as the model expected it before it came" }), make("dd", { text: about(losses[row], true) }), make("dd", { class: "unit", text: "nats" }));
  if (!lines.length) return [];
  const title = widest > 1 ? `Means over bands of ${widest} rows` : "Numbers of this row";
  return [make("h3", { text: title }), make("dl", { class: "numbers" }, ...lines)];
}

export function drawHead(picture) {
  const body = byId("head-body"), lines = [], undefinedHere = Object.entries(picture.layer(state.layer).undefined);
  for (const statistic of picture.scene.statistics) {
    const value = picture.summary(statistic.label, state.layer, state.head);
    if (value !== null) lines.push(make("dt", { text: statistic.head_title, title: statistic.formula }), make("dd", { text: number(value), "data-summary": statistic.label }), make("dd", { class: "unit", text: statistic.head_unit }));
  }
  const bins = picture.bins(state.layer, state.head);
  body.replaceChildren(
    make("h3", { text: `Head ${picture.headName(state.layer, state.head)}` }),
    make("dl", { class: "numbers" }, ...lines),
    ...(undefinedHere.length ? [unsaid(undefinedHere)] : []),
    ...(bins ? [make("h3", { text: picture.scene.signed ? "Mass by distance, difference" : "Mass by distance" }), histogram(bins, picture.scene.signed)] : [])
  );
}

function unsaid(entries) {
  const lines = entries.map(([, why]) => make("p", { class: "hint", text: why }));
  return make("details", { class: "hint" }, make("summary", { text: `${entries.length} without meaning here` }), ...lines);
}

// Bin 0 is distance 0, bin b is 2^(b-1) ≤ distance < 2^b.
function histogram(bins, signed) {
  const last = Math.max(3, bins.reduce((most, share, bin) => (share !== 0 ? bin : most), 0) + 1);
  const most = bins.reduce((top, share) => Math.max(top, Math.abs(share)), 1e-9), step = 280 / last;
  const shapes = [];
  for (let bin = 0; bin < last; bin++) {
    const height = (52 * Math.abs(bins[bin])) / most;
    const name = bin < 2 ? String(bin) : `${2 ** (bin - 1)}`;
    const range = bin < 2 ? name : `${2 ** (bin - 1)} to ${2 ** bin - 1}`;
    shapes.push(makeSvg("rect", { x: bin * step + 1, y: 54 - height, width: Math.max(1, step - 2), height, rx: 1.5, class: signed && bins[bin] > 0 ? "plus" : null }, makeSvg("title", { text: `distance ${range}: ${percent(bins[bin])}` })));
    if (step >= 22 || bin % 2 === 0) shapes.push(makeSvg("text", { x: bin * step + step / 2, y: 66, "text-anchor": "middle", text: name }));
  }
  return makeSvg("svg", { class: "histogram", viewBox: "0 0 280 70", role: "img", "aria-label": "Share of the head's mass by distance between query and key" }, ...shapes);
}
