// Words of a text and their made-up embeddings, as regard/explain/example.py makes them: drawn by torch's generator
// (MT19937, then Box and Muller) from the checksum of the word, and rounded to one digit.

export const wordsOf = (text) => text.match(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu) || [];

const folded = (word) => word.toUpperCase().toLowerCase().replace(/ς/g, "σ");

// crc32 of a word's UTF-8 bytes.
function checksum(word) {
  let crc = ~0;
  for (const byte of new TextEncoder().encode(word)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

// The 32-bit numbers of an MT19937 (Matsumoto and Nishimura 1998).
function twister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let at = 624;
  return () => {
    if (at === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

function normals(seed, count) {
  const next = twister(seed), found = [];
  const uniform = () => {
    const high = next(), low = next();
    return ((high & 0x1fffff) * 2 ** 32 + low) / 2 ** 53;
  };
  while (found.length < count) {
    const turn = 2 * Math.PI * uniform(), radius = Math.sqrt(-2 * Math.log1p(-uniform()));
    found.push(radius * Math.cos(turn), radius * Math.sin(turn));
  }
  return found.slice(0, count);
}

export const embedding = (word, width) => normals(checksum(folded(word)), width).map((x) => Math.round(10 * x) / 10);
