// Wires the parts: the scene comes in, the selection changes, each part draws what changed.

import { drawAnswer, firstRow, markAnswer } from "./answer.js";
import { loadTables } from "./colour.js";
import { drawThumbnails } from "./compare.js";
import { drawLines, hintLines } from "./lines.js";
import { byId, choice, make } from "./dom.js";
import { drawExport } from "./export.js";
import { drawFinds } from "./finds.js";
import { drawHeads, drawLinks, drawStatistics, markHead } from "./heads.js";
import { busy, tokensOf } from "./deep.js";
import { current, drawMap, fit, pan, redraw, redrawSoon, reveal, showPart, slotsAt, zoom } from "./map.js";
import { drawReadout } from "./mapwords.js";
import { Picture } from "./picture.js";
import { drawHead, drawRow } from "./row.js";
import { count, searchOn } from "./search.js";
import { drawSiblings } from "./siblings.js";
import { inView, loadShared, nearInView } from "./shared.js";
import { fromAddress, onChange, set, shownKey, shownRow, state } from "./state.js";
import { colourStrips, drawStrips, stripsFit } from "./strip.js";
import { fromText, isZoomed, view } from "./view.js";
import { drawWalk, settle, isTrail } from "./walk.js";
import { onArrival } from "./wanted.js";
import { drawWay } from "./way.js";
import { plural } from "./words.js";

let pictures = [];
let seen = 0; // the view that was drawn last
let names = null; // of the traces that are compared

const picture = () => pictures[state.view];

async function start() {
  const given = JSON.parse(byId("scene").textContent);
  loadTables(JSON.parse(byId("colours").textContent));
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
  if (typeof DecompressionStream === "undefined") throw new Error("This page needs a browser from 2023 or later (DecompressionStream).");
  const scenes = given.scenes || [given];
  pictures = await Promise.all(scenes.map((scene) => Picture.of(scene)));
  const first = scenes[0].pick || { layer: 0, head: 0 };
  Object.assign(state, { layer: first.layer, head: first.head, statistic: scenes[0].statistic, row: firstRow(scenes[0], first.layer) });
  Object.assign(state, checked(fromAddress()));
  loadShared(given.slots);
  seen = state.view;
  drawFrame(given);
  listen();
  if (!scenes[0].layers.length) return notice("No attention layer was seen.");
  onChange(update);
  onArrival(arrived);
  drawAll();
  fromText(state.at);
  redraw();
  drawTraces(given.served || scenes[0].served);
  document.body.dataset.ready = "true";
}

// What an address asks for, without what this scene does not have.
function checked(wanted) {
  const asked = wanted.view ?? state.view, view = asked in pictures ? asked : 0, of = pictures[view];
  const next = { ...state, ...wanted, view };
  if (!of.has(next.layer, next.head)) Object.assign(next, { layer: state.layer, head: state.head });
  if (!of.statistic(next.statistic)) next.statistic = of.scene.statistic;
  if (!["max", "mean"].includes(next.which)) next.which = "max";
  if (!of.weightings().includes(next.of)) next.of = of.weightings()[0] || "";
  for (const each of pictures) each.weighBy(next.of);
  if (!["log", "power", "lift"].includes(next.scale)) next.scale = "log";
  if (!["numbers", "ranked", "maps"].includes(next.grid)) next.grid = "numbers";
  if (!["matrix", "lines", "layer", "way"].includes(next.shape)) next.shape = "matrix";
  if (!["up", "down"].includes(next.order)) next.order = "down";
  if (!["looks", "lookers"].includes(next.by)) next.by = "looks";
  if (!of.scene.layers.length || !isTrail(of, next.trail)) next.trail = "";
  if (of.scene.layers.length) {
    if (next.row !== null && next.row >= of.axis(next.layer, "query").length) next.row = null;
    if (next.key !== null && next.key >= of.axis(next.layer, "key").length) next.key = null;
  }
  return next;
}

function drawFrame(given) {
  const { scene } = picture();
  const heads = scene.layers.reduce((total, layer) => total + layer.heads.length, 0);
  const axes = Object.entries(scene.axes).map(([name, axis]) => `${name} ${plural(axis.length, "token")}`);
  const batch = scene.batches > 1 ? [`sequence ${scene.batch + 1} of ${scene.batches}`] : [];
  byId("model").textContent = scene.model || "attention";
  byId("sizes").textContent = [plural(scene.layers.length, "layer"), plural(heads, "head"), ...axes, ...batch].join(" · ");
  byId("made").replaceChildren(...Object.entries(scene.made).flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: typeof value === "string" ? value : JSON.stringify(value) })]));
  if (given.why) notice(`${given.why}.`);
  byId("kept").textContent = scene.dropped.length ? `To keep this page small, ${scene.dropped.join("; ")}.` : "";
  names = given.names || null;
  if (names) {
    byId("views").hidden = false;
    drawViews();
    onChange((changed) => changed.has("view") && drawViews());
  }
}

// The head as a matrix, or as lines between two columns.
function drawShape() {
  const { signed } = picture().scene, lines = state.shape === "lines" && !signed, layer = state.shape === "layer", way = state.shape === "way" && !signed;
  choice(byId("shape"), [["matrix", "matrix", "a cell per pair"], ...(picture().scene.signed ? [] : [["lines", "lines", "a line per link, several heads at once"]]), ["layer", "layer", "all heads of the layer, small"], ...(signed ? [] : [["way", "way", "where the chosen token came from, layer by layer"]])], state.shape, (shape) => set({ shape }));
  byId("lines").hidden = !lines;
  for (const id of ["frame", "map-legend", "map-said"]) byId(id).hidden = lines || way || (layer && id === "frame");
  document.querySelector("#map .controls").hidden = lines || way;
  drawLines(picture(), lines);
  drawSiblings(picture(), layer);
  drawWay(picture(), way);
  if (!lines && !layer && !way) redraw();
}

// Which Trace is looked at, where several are open.
function drawTraces(served) {
  const holder = byId("traces");
  holder.hidden = !(served && pictures[0].source.to && served.names.length > 1);
  if (holder.hidden) return;
  const options = served.names.map((name, which) => make("option", { value: which, text: name, selected: which === served.trace }));
  const select = make("select", { "aria-label": "Open traces", onchange: (event) => (location.href = pictures[0].source.to(event.target.value)) }, ...options);
  holder.replaceChildren(select);
}

const drawViews = () => choice(byId("views"), names.map((name, view) => [view, name, name]), state.view, (view) => set({ view }));

function notice(text) {
  byId("notice").hidden = false;
  byId("notice").textContent = text;
}

function drawAll(keepView = false) {
  drawAnswer(picture());
  drawStatistics(picture());
  drawHeads(picture());
  drawLinks(picture());
  drawFinds(picture());
  drawExport(picture());
  drawBy();
  drawMap(picture(), keepView);
  drawShape();
  drawHead(picture());
  drawStrips(picture());
  drawRow(picture());
  drawWalk(picture());
  drawReadout(pictures, names);
  drawThumbnails(pictures, names);
}

// What a chosen token's colours mean: where it looks, or who looks at it.
function drawBy() {
  const layer = picture().layer(state.layer);
  byId("by").hidden = layer.query !== layer.key;
  choice(byId("by"), [["looks", "where it looks", "shades the tokens that the chosen one attends to"], ["lookers", "who looks at it", "shades the tokens that attend to the chosen one"]], state.by, (by) => set({ by }));
}

// Something that was asked for came.
function arrived(what) {
  if (what === "head" || what === "mass") {
    drawMap(picture(), true);
    if (state.grid === "maps") drawHeads(picture());
    drawHead(picture());
    drawSiblings(picture(), state.shape === "layer");
    drawThumbnails(pictures, names);
  }
  if (what === "way") drawWay(picture(), state.shape === "way");
  if (what === "step") settle(picture());
  drawWalk(picture());
  colourStrips(picture());
  drawRow(picture());
  drawReadout(pictures, names);
}

function update(changed) {
  const any = (...names) => names.some((name) => changed.has(name));
  if (changed.has("view")) {
    const { query, key } = picture().layer(state.layer) || {};
    const kept = view(), before = seen;
    Object.assign(state, { row: inView(query, seen, state.view, state.row), key: inView(key, seen, state.view, state.key), hoverRow: null, hoverKey: null });
    seen = state.view;
    Object.assign(state, checked({}));
    drawAll(true);
    return keepPart(kept, query, key, before);
  }
  if (any("layer", "head", "of")) Object.assign(state, checked({}));
  if (any("statistic", "grid", "order") || (state.grid === "maps" && any("of", "which", "scale", "hide", "special"))) drawHeads(picture());
  if (any("layer", "head")) markHead(picture());
  if (any("layer", "head", "of", "which", "scale", "hide", "special")) drawMap(picture(), !any("layer"));
  if (any("layer", "by")) drawBy();
  if (any("layer", "head", "of", "shape", "lines") || (state.shape === "layer" && any("which", "scale", "hide", "special"))) drawShape();
  else if (any("row", "hoverRow", "key", "hoverKey")) hintLines();
  if (any("layer", "head")) drawHead(picture());
  if (any("layer", "of", "row", "hoverRow", "shape")) drawWay(picture(), state.shape === "way" && !picture().scene.signed);
  if (any("row", "key") && !any("layer", "head")) reveal(state.row, state.key);
  else if (any("statistic", "hoverRow", "hoverKey", "row", "key")) redrawSoon();
  if (any("row", "layer")) markAnswer();
  if (!stripsFit(picture())) drawStrips(picture());
  else if (any("layer", "head", "of", "row", "key", "hoverRow", "hoverKey", "scale", "by")) colourStrips(picture());
  if (any("layer", "head", "of", "row", "hoverRow")) drawRow(picture());
  if (any("layer", "head", "of", "row", "trail")) drawWalk(picture());
  drawReadout(pictures, names);
  if (any("layer", "head", "of", "which", "scale", "hide", "special")) drawThumbnails(pictures, names);
}

// The shown part of another view's map, by its tokens: zoom stays locked where one input has words that the other has not.
function keepPart(kept, query, key, from) {
  if (!kept || !query) return;
  const side = (axis, begin, count) => {
    const ends = [nearInView(axis, from, state.view, Math.ceil(begin), 1), nearInView(axis, from, state.view, Math.floor(begin + count) - 1, -1)];
    return ends[0] === null || ends[1] === null ? null : [ends[0], Math.max(1, ends[1] - ends[0] + 1)];
  };
  const rows = side(query, kept.row, kept.rows), keys = side(key, kept.key, kept.keys);
  if (rows && keys) showPart({ row: rows[0], rows: rows[1], key: keys[0], keys: keys[1] });
}

// ---- input -------------------------------------------------------------------------------------------------------

function listen() {
  byId("statistic").addEventListener("change", (event) => set({ statistic: event.target.value }));
  byId("hide").addEventListener("input", (event) => set({ hide: Math.max(0, Math.floor(Number(event.target.value) || 0)) }));
  byId("special").addEventListener("change", (event) => set({ special: event.target.checked }));
  byId("zoom-in").addEventListener("click", () => zoom(2));
  byId("zoom-out").addEventListener("click", () => zoom(0.5));
  byId("zoom-fit").addEventListener("click", fit);
  byId("theme").addEventListener("click", () => {
    setTheme(document.documentElement.dataset.theme !== "dark");
    if (pictures.length) drawAll(true);
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && set({ row: null, key: null, hoverRow: null, hoverKey: null, trail: "" }));
  byId("search").addEventListener("input", () => count(picture()));
  byId("search").addEventListener("keydown", (event) => event.key === "Enter" && searchOn(picture(), event.shiftKey));
  window.addEventListener("hashchange", () => {
    set(checked(fromAddress()));
    fromText(state.at);
    redraw();
  });
  new ResizeObserver(() => requestAnimationFrame(redraw)).observe(byId("frame"));
  listenToMap(byId("canvas"));
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

function listenToMap(canvas) {
  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = { x: event.offsetX, y: event.offsetY, moved: false };
    if (isZoomed()) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (held && isZoomed() && Math.hypot(event.offsetX - held.x, event.offsetY - held.y) > (held.moved ? 0 : 4)) {
      pan(event.offsetX - held.x, event.offsetY - held.y);
      held = { x: event.offsetX, y: event.offsetY, moved: true };
      canvas.classList.add("grab");
      return;
    }
    const at = slotsAt(event.offsetX, event.offsetY);
    set({ hoverRow: at ? at.row : null, hoverKey: at ? at.key : null });
  });
  canvas.addEventListener("pointerup", (event) => {
    const at = slotsAt(event.offsetX, event.offsetY);
    if (held && !held.moved && at) set(at.row === state.row && at.key === state.key ? { row: null, key: null } : at);
    held = null;
    canvas.classList.remove("grab");
  });
  canvas.addEventListener("pointerleave", () => set({ hoverRow: null, hoverKey: null }));
  canvas.addEventListener("dblclick", (event) => zoom(2, event.offsetX, event.offsetY));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.004), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("keydown", onMapKey);
}

function onMapKey(event) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (step) {
    event.preventDefault();
    const limits = ["query", "key"].map((side) => picture().axis(state.layer, side).length - 1);
    const [row, key] = [shownRow() ?? 0, shownKey() ?? 0].map((at, i) => Math.max(0, Math.min(limits[i], at + (state.row === null ? 0 : step[i]))));
    set({ row, key: state.key === null && !step[1] ? null : key, hoverRow: null, hoverKey: null });
  } else if (event.key === "+" || event.key === "=") zoom(1.5);
  else if (event.key === "-") zoom(1 / 1.5);
  else if (event.key === "0") fit();
}

// The page in numbers, for whoever inspects it.
window.regard = { state, current, picture, busy, tokensOf };

start().catch((error) => {
  notice(`This page could not be drawn: ${error.message}`);
  throw error;
});
