// Pieces of flat storages: {at: [storage, offset], of: [sizes, strides]}, as regard/lesson/record.py writes them. An
// operator reads pieces as arrays in row-major order and writes its result into one.

export const sizesOf = (piece) => piece.of[0];
export const count = (sizes) => sizes.reduce((product, size) => product * size, 1);

// The place in its storage of every number of a piece, in row-major order.
function places({ at: [, offset], of: [sizes, strides] }) {
  let found = Int32Array.of(offset);
  sizes.forEach((size, dim) => {
    const next = new Int32Array(found.length * size);
    for (let i = 0; i < found.length; i++) for (let j = 0; j < size; j++) next[i * size + j] = found[i] + j * strides[dim];
    found = next;
  });
  return found;
}

// Whether a piece is its storage's numbers one after the other.
function isPlain([sizes, strides]) {
  let step = 1;
  for (let dim = sizes.length - 1; dim >= 0; dim--) {
    if (sizes[dim] !== 1 && strides[dim] !== step) return false;
    step *= sizes[dim];
  }
  return true;
}

const kept = new WeakMap(); // numbers that never change -> what was read of them, by piece

export function read(stores, piece) {
  const from = stores[piece.at[0]];
  if (!stores.fixed.has(piece.at[0])) return taken(from, piece);
  if (!kept.has(from)) kept.set(from, new Map());
  const name = `${piece.at[1]} ${piece.of[0]} ${piece.of[1]}`, known = kept.get(from);
  if (!known.has(name)) known.set(name, taken(from, piece));
  return known.get(name);
}

function taken(from, piece) {
  if (isPlain(piece.of)) return Float64Array.from(from.subarray(piece.at[1], piece.at[1] + count(piece.of[0])));
  const where = places(piece), values = new Float64Array(where.length);
  for (let i = 0; i < where.length; i++) values[i] = from[where[i]];
  return values;
}

export function write(stores, piece, values) {
  const into = stores[piece.at[0]], spread = values.length === 1;
  if (isPlain(piece.of) && !spread) return into.set(values, piece.at[1]);
  const where = places(piece);
  for (let i = 0; i < where.length; i++) into[where[i]] = values[spread ? 0 : i];
}

// {sizes, values}: an argument as an array; a number has no sizes.
export function arrayOf(stores, argument) {
  if (typeof argument === "number" || typeof argument === "boolean") return { sizes: [], values: [Number(argument)] };
  if (argument && argument.number) return { sizes: [], values: [argument.number === "inf" ? Infinity : -Infinity] };
  return { sizes: sizesOf(argument), values: read(stores, argument) };
}

// For each number of a result of these sizes, which number of an operand it meets (torch's broadcasting).
export function met(sizes, operand) {
  const lead = sizes.length - operand.length, steps = sizes.map(() => 0);
  let step = 1;
  for (let dim = operand.length - 1; dim >= 0; dim--) {
    steps[dim + lead] = operand[dim] === 1 ? 0 : step;
    step *= operand[dim];
  }
  return places({ at: [0, 0], of: [sizes, steps] });
}

// [outer, size, inner] around a dimension, which may be counted from the end.
export function around(sizes, dim) {
  const at = dim < 0 ? dim + sizes.length : dim;
  return [count(sizes.slice(0, at)), sizes.length ? sizes[at] : 1, count(sizes.slice(at + 1))];
}
