// Torch's operators that bring numbers elsewhere: joining, padding, reading and writing at indices, looking up.

import { around, arrayOf, count, met, sizesOf } from "./pieces.js";

function cat(stores, a, out) {
  const parts = a.tensors.map((piece) => arrayOf(stores, piece)).filter((part) => part.values.length);
  const sizes = sizesOf(out), [outer, size, inner] = around(sizes, a.dim ?? 0), made = new Float64Array(count(sizes));
  let begin = 0;
  for (const part of parts) {
    const wide = around(part.sizes, a.dim ?? 0)[1];
    for (let o = 0; o < outer; o++) for (let s = 0; s < wide * inner; s++) made[(o * size + begin) * inner + s] = part.values[o * wide * inner + s];
    begin += wide;
  }
  return made;
}

function stack(stores, a, out) {
  const parts = a.tensors.map((piece) => arrayOf(stores, piece).values), [outer, size, inner] = around(sizesOf(out), a.dim ?? 0);
  return Float64Array.from({ length: outer * size * inner }, (_, at) => parts[Math.floor(at / inner) % size][Math.floor(at / (inner * size)) * inner + (at % inner)]);
}

// Every index of a shape, handed to `each` with its place.
function everywhere(sizes, each) {
  const index = sizes.map(() => 0), total = count(sizes);
  for (let at = 0; at < total; at++) {
    each(index, at);
    for (let dim = sizes.length - 1; dim >= 0; dim--) {
      if (++index[dim] < sizes[dim]) break;
      index[dim] = 0;
    }
  }
}

const placeIn = (sizes, index) => index.reduce((at, i, dim) => at * sizes[dim] + i, 0);

function pad(stores, a, out) {
  const given = arrayOf(stores, a.self), sizes = sizesOf(out), before = sizes.map((_, dim) => a.pad[2 * (sizes.length - 1 - dim)] ?? 0);
  const made = new Float64Array(count(sizes)).fill(a.value ?? 0);
  everywhere(sizes, (index, at) => {
    const from = index.map((i, dim) => i - before[dim]);
    if (from.every((i, dim) => i >= 0 && i < given.sizes[dim])) made[at] = given.values[placeIn(given.sizes, from)];
  });
  return made;
}

// x[i, :, j]: tensors of indices that meet, some dimensions without one.
function index(stores, a, out) {
  const given = arrayOf(stores, a.self), sizes = sizesOf(out), at = indexed(stores, given.sizes, a.indices, sizes);
  return Float64Array.from(at, (place) => given.values[place]);
}

// For each place of the result, the place of what is indexed.
function indexed(stores, from, indices, sizes) {
  const tensors = indices.map((piece) => piece && arrayOf(stores, piece)), dims = tensors.map((t, dim) => (t ? dim : -1)).filter((dim) => dim >= 0);
  const shape = tensors.reduce((most, t) => (t && (t.sizes.length > most.length || count(t.sizes) > count(most)) ? t.sizes : most), []);
  const beside = dims.every((dim, n) => n === 0 || dim === dims[n - 1] + 1), begin = beside ? dims[0] : 0;
  const meets = tensors.map((t) => t && met(shape, t.sizes)), places = new Int32Array(count(sizes));
  everywhere(sizes, (index, at) => {
    const within = placeIn(shape, index.slice(begin, begin + shape.length)), rest = [...index.slice(0, begin), ...index.slice(begin + shape.length)];
    let free = 0, place = 0;
    from.forEach((size, dim) => {
      const chosen = tensors[dim] ? tensors[dim].values[meets[dim][within]] : rest[free++];
      place = place * size + (chosen < 0 ? chosen + size : chosen);
    });
    places[at] = place;
  });
  return places;
}

const copied = ({ sizes, values }) => ({ sizes, values: Float64Array.from(values) });

function put(stores, a) {
  const made = copied(arrayOf(stores, a.self)), values = arrayOf(stores, a.values);
  const tensors = a.indices.filter((piece) => piece).map((piece) => sizesOf(piece));
  const shape = tensors.reduce((most, sizes) => (count(sizes) >= count(most) ? sizes : most), []);
  const first = a.indices.findIndex((piece) => piece), free = made.sizes.filter((_, dim) => !a.indices[dim]);
  const sizes = [...free.slice(0, first), ...shape, ...free.slice(first)], meets = met(sizes, values.sizes);
  indexed(stores, made.sizes, a.indices, sizes).forEach((place, at) => (made.values[place] = (a.accumulate ? made.values[place] : 0) + values.values[meets[at]]));
  return made.values;
}

function gather(stores, a, out) {
  const given = arrayOf(stores, a.self), at = arrayOf(stores, a.index), dim = a.dim < 0 ? a.dim + given.sizes.length : a.dim;
  const made = new Float64Array(count(sizesOf(out)));
  everywhere(at.sizes, (index, place) => (made[place] = given.values[placeIn(given.sizes, index.map((i, n) => (n === dim ? at.values[place] : i)))]));
  return made;
}

const scatter = (join) => (stores, a) => {
  const given = copied(arrayOf(stores, a.self)), at = arrayOf(stores, a.index), from = a.src === undefined ? null : arrayOf(stores, a.src), dim = a.dim < 0 ? a.dim + given.sizes.length : a.dim;
  everywhere(at.sizes, (index, place) => {
    const into = placeIn(given.sizes, index.map((i, n) => (n === dim ? at.values[place] : i)));
    given.values[into] = join(given.values[into], from ? from.values[placeIn(from.sizes, index)] : Number(a.value));
  });
  return given.values;
};

function searchsorted(stores, a, out) {
  const edges = arrayOf(stores, a.sorted_sequence), given = arrayOf(stores, a.self), [rows, size] = around(edges.sizes, -1), wide = given.values.length / rows;
  return Float64Array.from(given.values, (x, at) => {
    const row = Math.floor(at / wide) * size;
    let found = 0;
    while (found < size && (a.right || a.side === "right" ? edges.values[row + found] <= x : edges.values[row + found] < x)) found++;
    return found;
  });
}

function embedding(stores, a, out) {
  const table = arrayOf(stores, a.weight), at = arrayOf(stores, a.indices).values, wide = table.sizes[1];
  return Float64Array.from({ length: at.length * wide }, (_, n) => table.values[at[Math.floor(n / wide)] * wide + (n % wide)]);
}

const select = (stores, a) => gatherRows(arrayOf(stores, a.self), a.dim, arrayOf(stores, a.index).values);

function gatherRows(given, dim, at) {
  const [outer, size, inner] = around(given.sizes, dim);
  return Float64Array.from({ length: outer * at.length * inner }, (_, n) => given.values[(Math.floor(n / (inner * at.length)) * size + at[Math.floor(n / inner) % at.length]) * inner + (n % inner)]);
}

export const MOVES = {
  cat, stack, constant_pad_nd: pad, index, index_put: put, _index_put_impl: put, gather, scatter: scatter((_, x) => x), scatter_add: scatter((x, y) => x + y), searchsorted, embedding, index_select: select,
};
