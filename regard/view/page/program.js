// Runs what regard/lesson/record.py recorded: torch's operators, one after the other, on the reader's numbers.

import { along } from "./along.js";
import { elementwise } from "./elementwise.js";
import { MOVES } from "./moves.js";
import { read, sizesOf, write } from "./pieces.js";
import { PRODUCTS } from "./products.js";

// {name: {sizes, values}} of the outputs. inputs: {name: numbers}; constants: storage -> its numbers.
export function run(program, inputs, constants) {
  const stores = program.sizes.map((size, number) => (number in program.constants ? null : new Float64Array(size)));
  const written = new Set(program.written), names = Object.entries(program.constants).map(([number, name]) => [Number(number), name]);
  stores.fixed = new Set(names.map(([number]) => number).filter((number) => !written.has(number)));
  for (const [number, name] of names) stores[number] = written.has(number) ? Float64Array.from(constants(name)) : constants(name);
  for (const [name, piece] of Object.entries(program.inputs)) write(stores, piece, inputs[name]);
  for (const [name, given, outs, kind] of program.steps) {
    results(stores, name.replace(/(?<=[a-z])_$/, ""), given, outs, kind).forEach((values, at) => outs[at] && write(stores, outs[at], values));
  }
  return Object.fromEntries(Object.entries(program.outputs).map(([name, piece]) => [name, { sizes: sizesOf(piece), values: read(stores, piece) }]));
}

function results(stores, name, given, outs, kind) {
  if (name in PRODUCTS) return [PRODUCTS[name](stores, given, outs[0])];
  if (name in MOVES) return [MOVES[name](stores, given, outs[0])];
  const found = along(stores, name, given, outs);
  if (found) return found;
  const values = elementwise(stores, name, given, outs[0], kind);
  if (!values) throw new Error(`this page does not know the operator ${name}`);
  return [values];
}
