/** The model: two towers that turn pictures and texts into vectors, and adapters for them. */

import * as files from "./files.js";
import { modelView, normalised } from "./pixels.js";
import * as ort from "./ort/ort.js";
import { Tokenizer } from "./tokenizer.js";

export const BASE = "base";
const TEXTS_AT_ONCE = 16;

/** The towers of one switch position, and its temperature. */
class Variant {
  constructor(image, text, logitScale) {
    Object.assign(this, { image, text, logitScale });
  }
}

async function session(bytes) {
  return ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
}

/** A tower with an adapter: the base's file, in which `patch` says which bits are others. */
function patched(tower, patch) {
  if (patch.length !== tower.length) throw new Error("an adapter's file does not fit the model's");
  return tower.map((byte, i) => byte ^ patch[i]);
}

export class Model {
  #towers = {};
  #embedded = null; // the tokens that the model has seen; null: all of them
  #variants = new Map();
  #texts = new Map(); // by text tower: vectors by text

  /** Load the base. `onStep(text)` is told what comes next. */
  static async load(onStep = () => {}) {
    const model = new Model();
    onStep("the runtime");
    ort.env.wasm.numThreads = 1; // more would need headers that a plain host does not send
    ort.env.wasm.wasmBinary = await files.bytes("./ort/ort.wasm.gz");
    onStep("the tokenizer");
    model.card = await files.json("./model/model.json");
    if (model.card.known_tokens) model.#embedded = new Set(model.card.known_tokens);
    const vocabulary = await files.text(`./model/${model.card.tokenizer.file}`);
    model.tokenizer = new Tokenizer(vocabulary, model.card.context_length);
    onStep("the model");
    for (const [name, file] of Object.entries(model.card.towers)) {
      model.#towers[name] = await files.bytes(`./model/${file}`);
    }
    const { image, text } = model.#towers;
    const base = new Variant(await session(image), await session(text), model.card.logit_scale);
    model.#variants.set(BASE, base);
    return model;
  }

  /** Load an adapter of the card's; it stays, beside the base. */
  async addAdapter({ name, patches, logit_scale: logitScale }) {
    const base = this.#variants.get(BASE);
    const tower = async (which) => {
      if (!patches[which]) return base[which];
      const patch = await files.bytes(`./model/${patches[which]}`);
      return session(patched(this.#towers[which], patch));
    };
    this.#variants.set(name, new Variant(await tower("image"), await tower("text"), logitScale));
  }

  has(variant) {
    return this.#variants.has(variant);
  }

  /** The picture as the model sees it: small, and cut to its middle. */
  view(picture) {
    return modelView(picture, this.card);
  }

  /** The unit vector of a view. */
  async encodeImage(view, variant) {
    const shape = [1, 3, view.height, view.width];
    const pixels = new ort.Tensor("float32", normalised(view, this.card), shape);
    const { features } = await this.#variants.get(variant).image.run({ pixels });
    return features.data;
  }

  /** Encode texts, some at a time, and yield how many are known by then. Each is encoded once. */
  async *readTexts(texts, variant) {
    const tower = this.#variants.get(variant).text;
    const known = this.#known(tower);
    const missing = [...new Set(texts)].filter((text) => !known.has(text));
    for (let at = 0; at < missing.length; at += TEXTS_AT_ONCE) {
      const some = missing.slice(at, at + TEXTS_AT_ONCE);
      const shape = [some.length, this.card.context_length];
      const tokens = new ort.Tensor("int32", this.tokenizer.batch(some), shape);
      const { features } = await tower.run({ tokens });
      const width = features.dims[1];
      some.forEach((text, i) => known.set(text, features.data.slice(i * width, (i + 1) * width)));
      yield texts.length - missing.length + at + some.length;
    }
  }

  /** The unit vectors of texts. */
  async encodeTexts(texts, variant) {
    for await (const _ of this.readTexts(texts, variant));
    const known = this.#known(this.#variants.get(variant).text);
    return texts.map((text) => known.get(text));
  }

  /** The vectors that a text tower has computed, by text. */
  #known(tower) {
    if (!this.#texts.has(tower)) this.#texts.set(tower, new Map());
    return this.#texts.get(tower);
  }

  /** `{label, share}` of each label, best first; the shares sum to 1. */
  async rank(view, labels, variant) {
    const image = await this.encodeImage(view, variant);
    const texts = await this.encodeTexts(labels, variant);
    const { logitScale } = this.#variants.get(variant);
    const logits = texts.map((text) => logitScale * text.reduce((sum, x, i) => sum + x * image[i], 0));
    const highest = Math.max(...logits);
    const powers = logits.map((logit) => Math.exp(logit - highest));
    const total = powers.reduce((a, b) => a + b, 0);
    return labels
      .map((label, i) => ({ label, share: powers[i] / total }))
      .sort((a, b) => b.share - a.share);
  }

  /** Whether the model has read each word of a text in training. */
  knows(text) {
    return !this.#embedded || this.tokenizer.encode(text).every((id) => this.#embedded.has(id));
  }
}
