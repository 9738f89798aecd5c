// Torch's operators along a dimension: sums, extremes, running sums, sorting, softmax.

import { around, arrayOf, count, met } from "./pieces.js";

const FOLDS = {
  sum: [0, (total, x) => total + x], amax: [-Infinity, Math.max], amin: [Infinity, Math.min], prod: [1, (total, x) => total * x],
  any: [0, (total, x) => Number(total || x !== 0)], all: [1, (total, x) => Number(total && x !== 0)],
};

// Fold the dimensions dims of an array, one after the other (the last first).
function folded({ sizes, values }, dims, [begin, fold]) {
  const wanted = new Set(dims.map((dim) => (dim < 0 ? dim + sizes.length : dim)));
  let left = sizes, now = values;
  for (let dim = sizes.length - 1; dim >= 0; dim--) {
    if (!wanted.has(dim)) continue;
    const [outer, size, inner] = around(left, dim), next = new Float64Array(outer * inner).fill(begin);
    for (let o = 0; o < outer; o++) for (let s = 0; s < size; s++) for (let i = 0; i < inner; i++) next[o * inner + i] = fold(next[o * inner + i], now[(o * size + s) * inner + i]);
    left = left.map((each, at) => (at === dim ? 1 : each));
    now = next;
  }
  return now;
}

const dimsOf = ({ sizes }, dim) => (dim === undefined || dim === null || (Array.isArray(dim) && !dim.length) ? sizes.map((_, at) => at) : [dim].flat());

// Each line along a dimension through `each`, which gives one array per result.
function lines({ sizes, values }, dim, results, each) {
  const [outer, size, inner] = around(sizes, dim);
  let made = null;
  for (let o = 0; o < outer; o++) {
    for (let i = 0; i < inner; i++) {
      const line = Float64Array.from({ length: size }, (_, s) => values[(o * size + s) * inner + i]);
      const found = each(line);
      made = made || found.map((part) => new Float64Array(outer * part.length * inner));
      found.forEach((part, n) => part.forEach((x, s) => (made[n][(o * part.length + s) * inner + i] = x)));
    }
  }
  return made || results.map(() => new Float64Array(0));
}

// Places of a line's numbers in order; equal ones stay in theirs.
function order(line, descending) {
  const places = Array.from(line.keys());
  return places.sort((a, b) => (descending ? line[b] - line[a] : line[a] - line[b]) || a - b);
}

const cummax = (line) => {
  let best = 0;
  const at = Array.from(line, (x, s) => (x >= line[best] ? (best = s) : best));
  return [at.map((s) => line[s]), at];
};

const softmax = (line) => {
  const top = Math.max(...line), each = Array.from(line, (x) => Math.exp(x - top)), total = each.reduce((a, b) => a + b, 0);
  return [each.map((x) => x / total)];
};

const running = (begin, fold) => (line) => {
  let total = begin;
  return [Array.from(line, (x) => (total = fold(total, x)))];
};

const sorted = (line, descending, most) => {
  const at = order(line, descending).slice(0, most);
  return [at.map((s) => line[s]), at];
};

const LINES = {
  cumsum: () => running(0, (total, x) => total + x),
  cumprod: () => running(1, (total, x) => total * x),
  cummax: () => cummax,
  _softmax: () => softmax,
  sort: (a) => (line) => sorted(line, a.descending, line.length),
  argsort: (a) => (line) => sorted(line, a.descending, line.length).slice(1),
  topk: (a) => (line) => sorted(line, a.largest !== false, a.k),
  max: () => (line) => sorted(line, true, 1),
  min: () => (line) => sorted(line, false, 1),
  argmax: () => (line) => sorted(line, true, 1).slice(1),
};

// τ of a row with Σ_j [z_j - τ]₊^P = 1, by halving its bracket: the largest z is 0, so -1 <= τ < 0.
function threshold(line, power) {
  if (line.every((x) => x === -Infinity)) return [[-1]];
  let [low, high] = [-1, 0];
  for (let step = 0; step < 120 && low < high; step++) {
    const middle = (low + high) / 2, mass = line.reduce((total, x) => total + (x > middle ? (x - middle) ** power : 0), 0);
    if (middle === low || middle === high) break;
    if (mass >= 1) low = middle;
    else high = middle;
  }
  return [[low]];
}

function thresholds(stores, a) {
  const z = arrayOf(stores, a.z), power = arrayOf(stores, a.power), sizes = [...z.sizes.slice(0, -1), 1], at = met(sizes, power.sizes);
  let row = 0;
  return lines(z, -1, [0], (line) => threshold(line, power.values[at[row++]]));
}

function norm(given, a) {
  const ord = a.ord ?? 2, dims = dimsOf(given, a.dim);
  const powers = { sizes: given.sizes, values: Array.from(given.values, (x) => Math.abs(x) ** ord) };
  return Array.from(folded(powers, dims, FOLDS.sum), (x) => x ** (1 / ord));
}

// The results of an operator of this kind, or null where it is none.
export function along(stores, name, a, outs) {
  const given = a.self && arrayOf(stores, a.self);
  if (name === "entmax_threshold") return thresholds(stores, a);
  if (name === "linalg_vector_norm") return [norm(given, a)];
  if (name === "mean") {
    const dims = dimsOf(given, a.dim), many = count(dims.map((dim) => given.sizes.at(dim)));
    return [folded(given, dims, FOLDS.sum).map((x) => x / many)];
  }
  if (name in LINES && !(name === "max" && outs.length < 2)) return lines(given, a.dim ?? -1, outs, LINES[name](a));
  if (name in FOLDS) return [folded(given, dimsOf(given, a.dim), FOLDS[name])];
  return null;
}
