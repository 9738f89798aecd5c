// Torch's operators that work number by number: name -> function of the numbers that meet.

import { arrayOf, count, met, sizesOf } from "./pieces.js";

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const truth = (test) => (a, b) => Number(test(a, b));
const rounded = { floor: Math.floor, trunc: Math.trunc };

const ONE = {
  exp: Math.exp, log: Math.log, neg: (x) => -x, abs: Math.abs, sigmoid, tanh: Math.tanh, sqrt: Math.sqrt, sin: Math.sin, cos: Math.cos,
  relu: (x) => (x > 0 ? x : 0), silu: (x) => x * sigmoid(x), elu: (x) => (x > 0 ? x : Math.expm1(x)), rsqrt: (x) => 1 / Math.sqrt(x),
  reciprocal: (x) => 1 / x, floor: Math.floor, sign: Math.sign, log1p: Math.log1p, expm1: Math.expm1, square: (x) => x * x, clone: (x) => x,
  softplus: (x) => (x > 20 ? x : Math.log1p(Math.exp(x))), log_sigmoid_forward: (x) => Math.min(0, x) - Math.log1p(Math.exp(-Math.abs(x))),
  isnan: (x) => Number(Number.isNaN(x)), isinf: (x) => Number(Math.abs(x) === Infinity), logical_not: (x) => Number(!x),
};

const TWO = {
  maximum: Math.max, minimum: Math.min, pow: Math.pow,
  eq: truth((a, b) => a === b), ne: truth((a, b) => a !== b), ge: truth((a, b) => a >= b), le: truth((a, b) => a <= b),
  gt: truth((a, b) => a > b), lt: truth((a, b) => a < b), bitwise_and: (a, b) => a & b, bitwise_or: (a, b) => a | b,
  logical_and: truth((a, b) => a && b), logical_or: truth((a, b) => a || b), remainder: (a, b) => a - b * Math.floor(a / b),
};

// What an operand has at each place of a result.
function spread(sizes, { sizes: mine, values }) {
  if (values.length === 1) return () => values[0];
  if (values.length === count(sizes)) return (i) => values[i];
  const at = met(sizes, mine);
  return (i) => values[at[i]];
}

// The numbers of operands that meet, handed to `each`: a result of the sizes of `out`.
function joined(stores, out, operands, each) {
  const sizes = sizesOf(out), made = new Float64Array(count(sizes)), [a, b, c] = operands.map((operand) => spread(sizes, arrayOf(stores, operand)));
  if (c) for (let i = 0; i < made.length; i++) made[i] = each(a(i), b(i), c(i));
  else if (b) for (let i = 0; i < made.length; i++) made[i] = each(a(i), b(i));
  else for (let i = 0; i < made.length; i++) made[i] = each(a(i));
  return made;
}

const sum = (a) => (x, y) => x + (a.alpha ?? 1) * y;

const NAMED = {
  add: (a) => [[a.self, a.other], sum(a)],
  sub: (a) => [[a.self, a.other], (x, y) => x - (a.alpha ?? 1) * y],
  rsub: (a) => [[a.self, a.other], (x, y) => y - (a.alpha ?? 1) * x],
  mul: (a) => [[a.self, a.other], (x, y) => x * y],
  div: (a) => [[a.self, a.other], a.rounding_mode ? (x, y) => rounded[a.rounding_mode](x / y) : (x, y) => x / y],
  pow: (a) => [[a.self, a.exponent], Math.pow],
  where: (a) => [[a.condition, a.self, a.other], (test, x, y) => (test ? x : y)],
  masked_fill: (a) => [[a.self, a.mask, a.value], (x, test, y) => (test ? y : x)],
  clamp: (a) => [[a.self], (x) => Math.min(a.max ?? Infinity, Math.max(a.min ?? -Infinity, x))],
  clamp_min: (a) => [[a.self], (x) => Math.max(a.min, x)],
  clamp_max: (a) => [[a.self], (x) => Math.min(a.max, x)],
  nan_to_num: (a) => [[a.self], (x) => (Number.isNaN(x) ? a.nan ?? 0 : x)],
  bitwise_not: (a, kind) => [[a.self], kind === "b" ? (x) => Number(!x) : (x) => ~x],
  _to_copy: (a, kind) => [[a.self], kind === "b" ? (x) => Number(x !== 0) : kind === "i" ? Math.trunc : (x) => x],
  copy: (a) => [[a.src], (x) => x],
  fill: (a) => [[a.value], (x) => x],
  new_full: (a) => [[a.fill_value], (x) => x],
  full_like: (a) => [[a.fill_value], (x) => x],
  ...Object.fromEntries(["new_zeros", "zeros_like", "zero", "new_empty", "empty_like"].map((name) => [name, () => [[0], (x) => x]])),
  ...Object.fromEntries(["new_ones", "ones_like"].map((name) => [name, () => [[1], (x) => x]])),
};

// What an operator of this kind gives, or null where it is none.
export function elementwise(stores, name, a, out, kind) {
  if (name in NAMED) return joined(stores, out, ...NAMED[name](a, kind));
  if (name in ONE) return joined(stores, out, [a.self], ONE[name]);
  if (name in TWO) return joined(stores, out, [a.self, a.other], TWO[name]);
  return null;
}
