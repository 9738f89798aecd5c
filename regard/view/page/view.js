// The part of the map that is shown, in slots: {row, key, rows, keys}; and how it moves.

const LEAST = 4; // cells a side

let shown = null;
let least = { rows: LEAST, keys: LEAST };
let limits = null; // {rows, keys}: the lengths of the axes

export const view = () => shown;
export const whole = () => limits;

// Begin anew with axes of these lengths, or keep what is shown where they are the same. cell: slots of the finest cell.
export function start(rows, keys, cell, keep) {
  least = { rows: LEAST * cell[0], keys: LEAST * cell[1] };
  if (keep && limits && limits.rows === rows && limits.keys === keys) return;
  limits = rows && keys ? { rows, keys } : null;
  shown = limits && { row: 0, key: 0, rows, keys };
}

export const isZoomed = () => Boolean(shown && (shown.rows < limits.rows || shown.keys < limits.keys));

export function moveTo(next) {
  if (!limits) return;
  const { rows, keys } = sized(next);
  shown = {
    row: Math.min(limits.rows - rows, Math.max(0, next.row)),
    key: Math.min(limits.keys - keys, Math.max(0, next.key)),
    rows, keys,
  };
}

function sized(next) {
  const size = (wanted, few, most) => Math.min(most, Math.max(Math.min(few, most), wanted));
  return { rows: size(next.rows, least.rows, limits.rows), keys: size(next.keys, least.keys, limits.keys) };
}

export const fitAll = () => limits && moveTo({ row: 0, key: 0, ...limits });

// Zoom by a factor; fx, fy: the shares of the shown part that stay where they are.
export function zoomBy(factor, fx, fy) {
  if (!shown) return;
  const { rows, keys } = sized({ rows: shown.rows / factor, keys: shown.keys / factor });
  moveTo({ row: shown.row + fy * (shown.rows - rows), key: shown.key + fx * (shown.keys - keys), rows, keys });
}

// Bring slots into the shown part; whether it moved.
export function bringIn(row, key) {
  if (!shown) return;
  const within = (at, begin, count) => (at < begin ? at : at + 1 > begin + count ? at + 1 - count : begin);
  moveTo({ ...shown, row: row === null ? shown.row : within(row, shown.row, shown.rows), key: key === null ? shown.key : within(key, shown.key, shown.keys) });
}

// As the address holds it: "row,key,rows,keys"; "" where all is shown.
export const asText = () => (isZoomed() ? [shown.row, shown.key, shown.rows, shown.keys].map((x) => Math.round(x)).join(",") : "");

export function fromText(text) {
  const numbers = /^\d{1,9}(,\d{1,9}){3}$/.test(text) ? text.split(",").map(Number) : null;
  if (!numbers || !limits) return fitAll();
  const [row, key, rows, keys] = numbers;
  moveTo({ row, key, rows: rows || limits.rows, keys: keys || limits.keys });
}
