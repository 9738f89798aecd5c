// The arrays of a scene: base64 of zlib-deflated little-endian numbers (regard/view/arrays.py).

const TYPES = { float64: Float64Array, float32: Float32Array, float16: Uint16Array, uint8: Uint8Array, log8: Uint8Array, int16: Int16Array, int32: Int32Array };

export async function inflated(blobs) {
  return Promise.all(blobs.map(inflate));
}

async function inflate(text) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = letters.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// Part `place` along the first dimension of a referenced array, as numbers.
export function part(buffers, reference, place) {
  const size = reference.shape.slice(1).reduce((a, b) => a * b, 1);
  const raw = new TYPES[reference.type](buffers[reference.at]).subarray(place * size, (place + 1) * size);
  if (reference.type === "float16") return looked(raw, halves());
  return reference.type === "log8" ? looked(raw, logTable(reference.floor, reference.top)) : raw;
}

function looked(codes, table) {
  const numbers = new Float32Array(codes.length);
  for (let at = 0; at < codes.length; at++) numbers[at] = table[codes[at]];
  return numbers;
}

// All of a one-dimensional array.
export const whole = (buffers, reference) => part(buffers, { ...reference, shape: [1, ...reference.shape] }, 0);

let halfTable = null;

function halves() {
  if (halfTable) return halfTable;
  halfTable = new Float32Array(65536);
  for (let code = 0; code < 65536; code++) {
    const sign = code & 0x8000 ? -1 : 1, exponent = (code >> 10) & 31, fraction = code & 1023;
    if (exponent === 31) halfTable[code] = fraction ? NaN : sign * Infinity;
    else halfTable[code] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  }
  return halfTable;
}

function logTable(floor, top) {
  return Float32Array.from({ length: 256 }, (_, code) => (code ? floor * (top / floor) ** ((code - 1) / 254) : 0));
}
