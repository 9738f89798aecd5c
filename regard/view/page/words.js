// Numbers and tokens as text, as regard/view/words.py writes them.

export function number(value) {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return String(value);
  if (size === 0) return "0";
  if (size < 0.001 || size >= 1e6) return value.toExponential(1);
  return value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size))));
}

// A number that a coarser type kept.
export const about = (value, exact) => (exact || value === 0 ? "" : "≈") + number(value);

export function tag(text, width = Infinity) {
  const short = text.replace(/^ +| +$/g, "") || "␣".repeat(Math.min(text.length, 3)) || "∅";
  const letters = [...short];
  return letters.length <= width ? short : letters.slice(0, Math.max(1, width - 1)).join("") + "…";
}

// For a cell of a grid: at most five characters, never a negative zero.
export function twoPlaces(value) {
  const size = Math.abs(value);
  if (size < 0.005) return "0.00";
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export const percent = (share) => `${number(100 * share)} %`;
