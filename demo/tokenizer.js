/**
 * CLIP's tokenizer: byte pair encoding (Sennrich et al. 2016) of lower-cased text, as in open_clip.
 *
 * One thing is left out: open_clip first lets ftfy repair text that was decoded wrongly (“cafÃ©”).
 * What ftfy does to text that is right is done here, too: straight quotes, ordinary widths, no
 * ligatures, composed accents.
 */

const MERGES = 49152 - 256 - 2; // lines of the vocabulary file that are used, after its first
const START = "<start_of_text>";
const END = "<end_of_text>";
const PIECES =
  /<start_of_text>|<end_of_text>|'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^ \p{L}\p{N}]+/gu;
// What Python's str.split takes for white space. JavaScript's \s is not the same.
const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/gu;

/** Each byte as a letter that can be seen: its own one if it has one, else the next unused. */
function byteLetters() {
  const letters = new Map();
  for (const [first, last] of [["!", "~"], ["¡", "¬"], ["®", "ÿ"]]) {
    for (let byte = first.charCodeAt(0); byte <= last.charCodeAt(0); byte++) {
      letters.set(byte, String.fromCharCode(byte));
    }
  }
  let unused = 256;
  for (let byte = 0; byte < 256; byte++) {
    if (!letters.has(byte)) letters.set(byte, String.fromCharCode(unused++));
  }
  return letters; // in the order of the vocabulary
}

/** HTML's named and numbered characters (“&eacute;”), by the browser's own parser. */
function unescaped(text) {
  const area = document.createElement("textarea"); // its content is text, never markup
  area.innerHTML = text.replaceAll("<", "&lt;");
  return area.value;
}

/** What ftfy changes in text that was decoded rightly. */
function fixed(text) {
  return text
    .replace(/[ŉĲĳǄ-ǌǱ-ǳﬀ-ﬆ]/g, (ligature) => ligature.normalize("NFKC"))
    .replace(/[\u3000\uff01-\uffef]/g, (letter) => letter.normalize("NFKC"))
    .replace(/[\u02bc\u2018-\u201b]/g, "'")
    .replace(/[\u201c-\u201f]/g, '"')
    .replace(/[\0-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g, "")
    .normalize("NFC");
}

export function cleaned(text) {
  return unescaped(unescaped(fixed(text))).replace(SPACE, " ").trim().toLowerCase();
}

export class Tokenizer {
  #letters = byteLetters();
  #ids = new Map();
  #ranks = new Map();
  #known = new Map(); // pieces that were split before

  /** `vocabulary` is the text of open_clip's file: a comment, then one merge a line. */
  constructor(vocabulary, contextLength) {
    this.contextLength = contextLength;
    const merges = vocabulary.split("\n").slice(1, MERGES + 1);
    const single = [...this.#letters.values()];
    const joined = merges.map((merge) => merge.replace(" ", ""));
    const all = [...single, ...single.map((letter) => `${letter}</w>`), ...joined, START, END];
    all.forEach((token, id) => this.#ids.set(token, id));
    merges.forEach((merge, rank) => this.#ranks.set(merge, rank));
    for (const special of [START, END]) this.#known.set(special, [special]);
  }

  /** The ids of a text, without start, end and padding. */
  encode(text) {
    const pieces = cleaned(text).match(PIECES) ?? [];
    return pieces.flatMap((piece) => {
      const letters = [...new TextEncoder().encode(piece)].map((byte) => this.#letters.get(byte));
      return this.#split(letters.join("")).map((token) => this.#ids.get(token));
    });
  }

  /** The text tower's input for `texts`: (texts, contextLength), padded with zeros, or cut. */
  batch(texts) {
    const tokens = new Int32Array(texts.length * this.contextLength);
    texts.forEach((text, row) => {
      const ids = [this.#ids.get(START), ...this.encode(text), this.#ids.get(END)];
      if (ids.length > this.contextLength) ids.splice(this.contextLength - 1, Infinity, ids.at(-1));
      tokens.set(ids, row * this.contextLength);
    });
    return tokens;
  }

  /** A piece as tokens: the pair that was merged first in training is joined first. */
  #split(piece) {
    if (this.#known.has(piece)) return this.#known.get(piece);
    let parts = [...piece];
    parts.push(`${parts.pop()}</w>`);
    for (;;) {
      let best = Infinity;
      for (let i = 1; i < parts.length; i++) {
        best = Math.min(best, this.#ranks.get(`${parts[i - 1]} ${parts[i]}`) ?? Infinity);
      }
      if (best === Infinity) break;
      const joined = [];
      for (let i = 0; i < parts.length; i++) {
        const pair = i + 1 < parts.length ? `${parts[i]} ${parts[i + 1]}` : null;
        if (pair !== null && this.#ranks.get(pair) === best) joined.push(parts[i] + parts[++i]);
        else joined.push(parts[i]);
      }
      parts = joined;
    }
    this.#known.set(piece, parts);
    return parts;
  }
}
