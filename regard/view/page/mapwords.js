// The words around the heat map: its title, what a cell is, what is hidden, and the number under the pointer.

import { byId, choice, make } from "./dom.js";
import { failed } from "./deep.js";
import { drawLegend, swatch } from "./legend.js";
import { inView } from "./shared.js";
import { set, shownKey, shownRow, state } from "./state.js";
import { about, tag } from "./words.js";

export function drawMapWords(picture, cells) {
  const { scene } = picture, layer = picture.layer(state.layer);
  byId("map-title").textContent = `Head ${picture.headName(state.layer, state.head)}`;
  const picked = scene.pick && scene.pick.layer === state.layer && scene.pick.head === state.head;
  byId("map-why").textContent = `${layer.kind}-attention${layer.kind === "cross" ? ": queries from " + layer.query + ", keys from " + layer.key : ""}${picked ? ` · shown first: ${scene.pick.why}` : ""}`;
  drawControls(picture, cells);
  const legend = byId("map-legend");
  if (!cells) {
    legend.replaceChildren();
    byId("map-said").textContent = layer.undefined.overview || "No map: the overview was not watched, or there are no tokens.";
    return;
  }
  const notes = [make("span", { text: cells.scale.said }), swatch("not visible to the query")];
  if (cells.hidden) notes.push(swatch("hidden", "hatched"));
  drawLegend(legend, cells.scale, ...notes);
  byId("map-said").textContent = picture.deep ? saidDeep(cells) : said(scene, cells);
  byId("canvas").setAttribute("aria-label", `Heat map of head ${picture.headName(state.layer, state.head)}: ${["query", "key"].map((side) => picture.axis(state.layer, side).length).join(" by ")} tokens`);
}

function drawControls(picture, cells) {
  const pooled = cells && !cells.map.exact, { signed } = picture.scene;
  const weightings = picture.weightings(), plain = !signed && !state.of;
  byId("of").hidden = weightings.length < 2;
  choice(byId("of"), weightings.map((of) => [of, of ? `${of}-weighted` : "weights", of ? "each weight times the norm of what its value adds" : "the attention weights themselves"]), state.of, (of) => set({ of }));
  byId("which").hidden = !pooled;
  choice(byId("which"), [["max", "max", "the largest of a cell's pairs"], ["mean", "mean", "the mean over a cell's allowed pairs"]], state.which, (which) => set({ which }));
  const scales = [["log", "log", "log10 from a floor to the top"], ["power", "power", "weight to the power 0.4"], ["lift", "lift", "against an even spread"]];
  byId("scale").hidden = signed;
  choice(byId("scale"), state.of ? scales.slice(0, 2) : scales, state.scale, (scale) => set({ scale }));
  byId("hide").parentElement.hidden = !plain;
  byId("hide").value = state.hide;
  byId("hide").max = picture.axis(state.layer, "key").length;
  byId("hide").step = cells && !picture.deep ? cells.map.cell[1] : 1;
  byId("special").checked = state.special;
  byId("special-label").hidden = !plain || !picture.axis(state.layer, "key").special.length;
}

function said(scene, { map, hidden, mass }) {
  const sentences = ["Queries run down, keys across."];
  if (map.exact) sentences.push("Each cell is one pair" + (scene.exact ? ", exact." : "; numbers marked ≈ are good to three digits."));
  else sentences.push(`Each cell stands for ${map.cell[0]} × ${map.cell[1]} pairs: shown is ${state.which === "max" ? "the largest" : "the mean over allowed ones"}, to 2 %.`);
  if (hidden) {
    const mean = mass.reduce((a, b) => a + b, 0) / mass.length;
    sentences.push(`Hidden keys hold ${about(mean, false)} of a row on average (bar at the left); the others are renormalised${map.exact ? "" : " band by band"}.`);
  } else if (state.hide || state.special) sentences.push(`Nothing is hidden: only whole cells of ${map.cell[1]} keys can be.`);
  return sentences.join(" ");
}

function saidDeep({ hidden, mass }) {
  const sentences = [`Queries run down, keys across. Far out a cell pools many pairs: shown is ${state.which === "max" ? "the largest" : "the mean over visible ones"}. Zoom in until a cell is one pair: it is exact.`];
  if (failed()) sentences.push(`Not all tiles came: ${failed()}.`);
  if (hidden) {
    const mean = mass.reduce((a, b) => a + b, 0) / mass.length;
    sentences.push(`Hidden keys hold ${about(mean, false)} of a row on average (bar at the left); the others are renormalised, pooled cells by the mean over their rows.`);
  } else if (state.hide || state.special) sentences.push("The mass of the keys to hide is being asked for.");
  return sentences.join(" ");
}

// The number under the pointer, or of the locked pair; of every trace where several are compared.
export function drawReadout(pictures, names) {
  const picture = pictures[state.view], holder = byId("map-readout");
  const row = state.hoverRow !== null ? state.hoverRow : shownRow(), key = shownKey();
  const found = row === null || key === null ? null : picture.weight(state.layer, state.head, row, key, state.which);
  if (!found) {
    holder.textContent = row === null ? "Point at a cell for its weight; click to lock its row." : "";
    return;
  }
  const [query, target] = [["query", row], ["key", key]].map(([side, slot]) => `${tag(picture.axis(state.layer, side).text[slot], 32)} ${slot}`);
  const one = found.cell[0] * found.cell[1] === 1;
  const of = one ? "" : ` (${state.which === "max" ? "largest" : "mean"} of the cell's ${found.cell[0]} × ${found.cell[1]} pairs)`;
  const value = found.seen ? about(found.value, found.exact) + of : "not visible to this query";
  const others = names && found.seen ? pictures.map((other, view) => (view === state.view ? null : inOther(other, view, names[view], { row, key }))) : [];
  holder.replaceChildren(make("bdi", { text: query }), make("span", { class: "arrow", text: " → " }), make("bdi", { text: target }), ": ", make("b", { text: value }), ...others.filter(Boolean));
}

function inOther(picture, view, name, from) {
  const layer = picture.layer(state.layer);
  const row = layer ? inView(layer.query, state.view, view, from.row) : null, key = layer ? inView(layer.key, state.view, view, from.key) : null;
  if (row === null || key === null || !picture.has(state.layer, state.head) || picture.scene.axes[picture.layer(state.layer).query].length <= row) return null;
  const found = picture.axis(state.layer, "key").length > key ? picture.weight(state.layer, state.head, row, key, state.which) : null;
  return found && make("span", { class: "hint", text: `   ${name}: ${about(found.value, found.exact)}` });
}
