// Torch's products of matrices, and triangular systems.

import { arrayOf, met, sizesOf } from "./pieces.js";

// [many] products of [rows, inner] and [inner, columns].
function products(a, b, many, rows, inner, columns) {
  const made = new Float64Array(many * rows * columns);
  for (let n = 0; n < many; n++) {
    for (let row = 0; row < rows; row++) {
      const into = (n * rows + row) * columns;
      for (let i = 0; i < inner; i++) {
        const x = a[(n * rows + row) * inner + i], from = (n * inner + i) * columns;
        if (x !== 0) for (let column = 0; column < columns; column++) made[into + column] += x * b[from + column];
      }
    }
  }
  return made;
}

function product(stores, left, right) {
  const [a, b] = [left, right].map((piece) => arrayOf(stores, piece));
  const [many, rows, inner] = a.sizes.length === 3 ? a.sizes : [1, ...a.sizes];
  return products(a.values, b.values, many, rows, inner, b.sizes.length === 1 ? 1 : b.sizes.at(-1));
}

function added(stores, a, out, right) {
  const made = product(stores, ...right), bias = arrayOf(stores, a.self), at = met(sizesOf(out), bias.sizes);
  return made.map((x, i) => (a.alpha ?? 1) * x + (a.beta ?? 1) * bias.values[at[i]]);
}

// X with A X = B, or X A = B where not `left`; A is triangular.
function solved(stores, a) {
  const given = arrayOf(stores, a.self).values, right = arrayOf(stores, a.B), n = sizesOf(a.self).at(-1), left = a.left !== false;
  const [rows, columns] = right.sizes.slice(-2), lines = left ? columns : rows, made = Float64Array.from(right.values);
  const upper = Boolean(a.upper) === left, entry = (m, r, c) => given[(m * n + (left ? r : c)) * n + (left ? c : r)];
  for (let m = 0; m < made.length / (rows * columns); m++) {
    for (let line = 0; line < lines; line++) {
      const at = (r) => (m * rows + (left ? r : line)) * columns + (left ? line : r);
      for (let step = 0; step < n; step++) {
        const r = upper ? n - 1 - step : step;
        let x = made[at(r)];
        for (let k = upper ? r + 1 : 0; k < (upper ? n : r); k++) x -= entry(m, r, k) * made[at(k)];
        made[at(r)] = a.unitriangular ? x : x / entry(m, r, r);
      }
    }
  }
  return made;
}

export const PRODUCTS = {
  mm: (stores, a) => product(stores, a.self, a.mat2),
  bmm: (stores, a) => product(stores, a.self, a.mat2),
  mv: (stores, a) => product(stores, a.self, a.vec),
  addmm: (stores, a, out) => added(stores, a, out, [a.mat1, a.mat2]),
  baddbmm: (stores, a, out) => added(stores, a, out, [a.batch1, a.batch2]),
  linalg_solve_triangular: (stores, a) => solved(stores, a),
};
