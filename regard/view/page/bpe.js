// Byte-pair encoding as a tokenizer.json describes it (Sennrich 2016): of bytes, as the language model has it, or of
// characters with a mark before words, as the translator has it.

const MARK = "▁";

// {encode(text) -> [{id, text}], decode(ids) -> text}
export function tokenizer(about) {
  const ranks = new Map(about.merges.map((pair, rank) => [pair.join(" "), rank]));
  const texts = new Map(Object.entries(about.vocab).map(([text, id]) => [id, text])), bytes = about.bytes ? byteLetters() : null;
  const merged = (letters) => {
    const parts = [...letters];
    for (;;) {
      let best = -1, least = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity;
        if (rank < least) [least, best] = [rank, i];
      }
      if (best < 0) return parts;
      const pair = [parts[best], parts[best + 1]].join(" ");
      for (let i = 0; i + 1 < parts.length; i++) if (`${parts[i]} ${parts[i + 1]}` === pair) parts.splice(i, 2, parts[i] + parts[i + 1]);
    }
  };
  const encode = (text) => {
    const found = (bytes ? byteWords(text, bytes) : markedWords(text)).flatMap(merged).map((part) => ({ id: about.vocab[part] ?? about.unknown, text: part }));
    return found.filter((token, at) => bytes || token.id !== about.unknown || found[at - 1]?.id !== about.unknown);
  };
  const decode = (ids) => (bytes ? fromBytes(ids.map((id) => texts.get(id) ?? "").join(""), bytes) : ids.map((id) => texts.get(id) ?? "").join("").replaceAll(MARK, " ").trim());
  const shown = (id) => (bytes ? fromBytes(texts.get(id) ?? "", bytes) : (texts.get(id) ?? "").replace(MARK, " "));
  return { encode, decode, shown };
}

const PARTS = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

const byteWords = (text, letters) => (text.match(PARTS) || []).map((part) => Array.from(new TextEncoder().encode(part), (byte) => letters[byte]));

function markedWords(text) {
  const words = (MARK + text.normalize("NFC").replaceAll(" ", MARK)).match(new RegExp(`${MARK}[^${MARK}]*`, "gu")) || [];
  return words.flatMap((word) => word.match(/\p{P}|[^\p{P}]+/gu) || []);
}

// A letter for each byte: those that show stand for themselves, the others for letters from 256 on.
function byteLetters() {
  const shows = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(shows(b) ? b : next++));
}

function fromBytes(text, letters) {
  const numbers = new Map(letters.map((letter, byte) => [letter, byte]));
  return new TextDecoder().decode(Uint8Array.from([...text], (letter) => numbers.get(letter) ?? 63));
}
