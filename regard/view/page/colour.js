// Colour: the tables of regard/view/colour.py, and the transforms from a weight to a place 0..1 on them.

export const LOG_FLOOR = 1e-4;
export const POWER = 0.4;

let tables = null;

export function loadTables(encoded) {
  tables = Object.fromEntries(
    Object.entries(encoded).map(([name, text]) => [name, Uint8Array.from(atob(text), (c) => c.charCodeAt(0))])
  );
}

export const isDark = () => document.documentElement.dataset.theme === "dark";

export const table = (kind) => tables[`${kind} ${isDark() ? "dark" : "light"}`];

// What lies under cells that a query may not see, as red, green, blue, alpha.
export function ground() {
  const hex = getComputedStyle(document.documentElement).getPropertyValue("--sunk").trim();
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).concat(255);
}

export function css(kind, place) {
  const [r, g, b] = rgb(kind, place);
  return `rgb(${r} ${g} ${b})`;
}

// A colour through which a picture shows: the less, the clearer.
export function veil(kind, place) {
  const [r, g, b] = rgb(kind, place);
  return `rgb(${r} ${g} ${b} / ${(0.3 + 0.4 * Math.min(1, Math.max(0, place))).toFixed(2)})`;
}

export function inkOn(kind, place) {
  const [r, g, b] = rgb(kind, place);
  const light = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  return (light + 0.05) ** 2 > 1.05 * 0.05 ? "#000000" : "#ffffff"; // whichever stands out more (WCAG 2.2, contrast ratio)
}

const linear = (code) => (code / 255 <= 0.04045 ? code / 255 / 12.92 : ((code / 255 + 0.055) / 1.055) ** 2.4);

function rgb(kind, place) {
  const at = 3 * Math.round(255 * Math.min(1, Math.max(0, place)));
  return table(kind).subarray(at, at + 3);
}

// The floor of the log scale: 1e-4, lower where a uniform row would be near it.
export const floorFor = (keys) => (keys <= 1000 ? LOG_FLOOR : 10 ** Math.floor(Math.log10(0.1 / keys)));

// {kind, place(value, allowed), ticks: [[place, text]], said} for a map.
export function transform(name, { top, keys, signed, edge }) {
  if (signed) return signedPower(edge);
  if (name === "power") {
    const ticks = [0, 0.01, 0.1, 0.3, 1].map((x) => [x ** POWER, short(x * top)]);
    return { kind: "sequential", place: (v) => (Math.max(0, v) / top) ** POWER, ticks, said: `weight, power ${POWER}` };
  }
  if (name === "lift") return lift(keys);
  const floor = floorFor(keys), span = Math.log10(top / floor);
  const ticks = [];
  for (let x = floor; x <= top * 1.0001; x *= 10) ticks.push([Math.log10(x / floor) / span, (x === floor ? "≤ " : "") + short(x)]);
  if (top / 10 ** Math.floor(Math.log10(top)) > 1.5) ticks.push([1, short(top)]);
  if (ticks.length > 5) ticks.splice(1, 1);
  return { kind: "sequential", place: (v) => (v <= floor ? 0 : Math.log10(v / floor) / span), ticks, said: "weight, log10" };
}

function signedPower(edge) {
  const place = (v) => 0.5 + 0.5 * Math.sign(v) * Math.min(1, Math.abs(v) / edge) ** POWER;
  const ticks = [-1, -0.1, 0, 0.1, 1].map((x) => [place(x * edge), short(x * edge)]);
  return { kind: "diverging", place, ticks, said: `difference, power ${POWER}` };
}

function lift(keys) {
  const edge = Math.max(2, Math.min(10, Math.ceil(Math.log2(Math.max(2, keys)))));
  const place = (v, allowed) => 0.5 + (0.5 * Math.max(-edge, Math.min(edge, Math.log2(Math.max(1e-30, v * allowed))))) / edge;
  const ticks = [-edge, -edge / 2, 0, edge / 2, edge].map((x) => [0.5 + (0.5 * x) / edge, x < 0 ? `÷ ${short(2 ** -x)}` : x ? `× ${short(2 ** x)}` : "even"]);
  return { kind: "diverging", place, ticks, said: "weight against an even spread over the keys a row may see, log2" };
}

export function even(low, high) {
  if (low < 0) {
    const edge = Math.max(-low, high);
    return { kind: "diverging", place: (v) => 0.5 + (0.5 * v) / edge, ticks: [[0, short(-edge)], [0.5, "0"], [1, short(edge)]] };
  }
  const top = high > 0 ? high : 1;
  return { kind: "sequential", place: (v) => v / top, ticks: [[0, "0"], [0.5, short(top / 2)], [1, short(top)]] };
}

function short(value) {
  if (value !== 0 && Math.abs(value) < 1e-4) return value.toExponential(0);
  return Number(value.toPrecision(2)).toString();
}
