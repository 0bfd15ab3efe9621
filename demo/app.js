/** The page: what is chosen goes to the model, and what the model says is shown. */

import { Camera } from "./camera.js";
import * as files from "./files.js";
import { BASE, Model } from "./model.js";
import { Pad } from "./pad.js";
import { readPicture, show } from "./pictures.js";

const BARS = 8;
const WAIT = 300; // milliseconds after the last key before labels are read

const $ = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}\u00a0%`;

let model = null;
let examples = null;
let picture = null; // {pixels, label}: what is asked about; the label, if it is known what it shows
let shownFile = null; // the picture of the source "file", also while another source is chosen

// ── asking ───────────────────────────────────────────────────────────────────────────────────────

let asking = null;
let askAgain = false;

/** Ask every variant about the picture. While that takes, later calls are joined into one. */
function ask() {
  askAgain = true;
  asking ??= (async () => {
    try {
      while (askAgain) {
        askAgain = false;
        await askOnce();
      }
    } catch (error) {
      complain(error);
    } finally {
      asking = null;
    }
  })();
  return asking;
}

async function askOnce() {
  if (!model) return;
  const labels = labelsNow();
  const view = picture && model.view(picture.pixels);
  $("view").parentElement.classList.toggle("empty", !view);
  if (view) show($("view"), view);
  const first = chosen("adapter");
  for (const variant of [first, ...variants().filter((name) => name !== first)]) {
    const ready = view && labels.length > 0 && model.has(variant);
    if (ready && !(await readLabels(labels, variant))) return;
    const ranking = ready ? await model.rank(view, labels, variant) : [];
    if (askAgain) return; // something newer is to be asked
    if (variant === first) showBars(ranking, labels);
    showAnswer(variant, ranking[0]);
  }
}

/** Encode the labels, some at a time, so that the page stays alive; false if it has to ask anew. */
async function readLabels(labels, variant) {
  for await (const count of model.readTexts(labels, variant)) {
    if (variant === chosen("adapter")) {
      $("state").textContent = `Reading the labels: ${count} of ${labels.length} …`;
    }
    await new Promise((resolve) => setTimeout(resolve));
    if (askAgain) return false;
  }
  return true;
}

const variants = () => [BASE, ...model.card.adapters.map(({ name }) => name)];

function labelsNow() {
  const lines = $("labels").value.split("\n").map((line) => line.trim());
  return [...new Set(lines.filter((line) => line))];
}

// ── answers ──────────────────────────────────────────────────────────────────────────────────────

function showBars(ranking, labels) {
  const best = ranking.slice(0, BARS);
  const rows = best.map(({ label, share }, i) => {
    const row = $("bars").children[i] ?? newRow();
    row.querySelector(".label").textContent = label;
    row.querySelector(".share").textContent = percent(share);
    row.style.setProperty("--share", share);
    row.classList.toggle("right", label === picture.label);
    return row;
  });
  $("bars").replaceChildren(...rows);
  $("state").textContent = stateText(best, labels.length - best.length);
  if (best.length) speak(`${chosen("adapter")}: ${best[0].label}, ${percent(best[0].share)}`);
}

function stateText(best, rest) {
  if (best.length) return rest ? `and ${rest} more, below ${percent(best.at(-1).share)}` : "";
  if (!picture) return "Draw something, or choose a picture: the labels are ranked here.";
  if (!model.has(chosen("adapter"))) return "This adapter is still on its way …";
  return "Type some labels: the model ranks them.";
}

function newRow() {
  const row = document.createElement("li");
  row.innerHTML = '<span class="label"></span> <span class="share"></span><i aria-hidden="true"></i>';
  return row;
}

let speaking = 0;

/** Say it to a screen reader, once nothing has changed for a moment. */
function speak(text) {
  clearTimeout(speaking);
  speaking = setTimeout(() => ($("spoken").textContent = text), 700);
}

/** The first answer of a variant, on its position of the switch. */
function showAnswer(variant, best) {
  const place = document.querySelector(`#adapters label[data-name="${variant}"]`);
  const known = best && picture.label && labelsNow().includes(picture.label);
  const right = known && best.label === picture.label;
  place.classList.toggle("right", Boolean(right));
  place.classList.toggle("wrong", Boolean(known && !right));
  const verdict = known ? (right ? "right" : "wrong") : "";
  place.querySelector(".answer").textContent = best ? best.label : model.has(variant) ? "–" : "loading";
  place.querySelector(".verdict").textContent = verdict;
}

function showSwitch() {
  for (const name of variants()) {
    const label = document.createElement("label");
    label.dataset.name = name;
    label.innerHTML =
      '<input type="radio" name="adapter"><span class="name"></span><span class="answer">–</span><span class="verdict"></span>';
    label.querySelector("input").value = name;
    label.querySelector("input").checked = name === BASE;
    label.querySelector(".name").textContent = name;
    $("adapters").append(label);
  }
  const explain = () => {
    const name = chosen("adapter");
    document.body.dataset.adapter = name;
    $("about-adapter").textContent = aboutVariant(name);
  };
  $("adapters").addEventListener("change", () => {
    explain();
    ask();
  });
  explain();
}

function aboutVariant(name) {
  const adapter = model.card.adapters.find((each) => each.name === name);
  if (!adapter) return `${model.card.about ?? "As trained"}.`;
  const about = adapter.about ?? "An adapter of your own";
  const size = `${about}. ${sizeText(adapter.bytes)} beside the base.`;
  if (!adapter.measured) return size;
  const { pictures, labels, base, on } = adapter.measured;
  return `${size} Right about ${percent(on)} of ${pictures} pictures in this look, of things that it was not trained on, among ${labels} labels; the base about ${percent(base)}.`;
}

const sizeText = (bytes) =>
  bytes < 1e6 ? `${Math.round(bytes / 1e3)} KB` : `${(bytes / 1e6).toFixed(1)} MB`;

// ── sources ──────────────────────────────────────────────────────────────────────────────────────

const pad = new Pad($("pad"), () => {
  $("pad-hint").hidden = !pad.empty;
  $("undo").disabled = $("clear").disabled = pad.empty;
  if (chosen("source") !== "draw") return;
  usePad();
  ask();
});
$("undo").disabled = $("clear").disabled = true;
$("undo").addEventListener("click", () => pad.undo());
$("clear").addEventListener("click", () => pad.clear());

function usePad() {
  picture = pad.empty ? null : { pixels: pad.pixels(), label: null };
}

const camera = new Camera($("video"), (pixels) => {
  picture = { pixels, label: null };
  return ask();
});

/** Choose a source, and ask about what it has. */
async function useSource(source) {
  complain(null);
  document.querySelector(`input[name="source"][value="${source}"]`).checked = true;
  for (const part of document.querySelectorAll("[data-source]")) {
    part.hidden = part.dataset.source !== source;
  }
  $("file-hint").hidden ||= shownFile !== null;
  $("pad-hint").hidden ||= !pad.empty;
  if (source === "draw") usePad();
  else picture = source === "file" ? shownFile : null;
  ask();
  if (source !== "camera") return camera.stop();
  try {
    await camera.start();
    if (chosen("source") !== "camera") camera.stop(); // it was left before it came
  } catch (error) {
    complain(error);
  }
}

$("sources").addEventListener("change", () => useSource(chosen("source")));

async function useFile(blob, label = null) {
  try {
    shownFile = { pixels: await readPicture(blob), label };
  } catch (error) {
    await useSource("file");
    return complain(error);
  }
  show($("picture"), shownFile.pixels);
  $("picture").setAttribute("aria-label", label ? `The picture: ${label}` : "The chosen picture");
  $("picture").classList.toggle("coarse", shownFile.pixels.width < 200);
  await useSource("file");
}

$("file").addEventListener("change", ({ target }) => target.files[0] && useFile(target.files[0]));
document.addEventListener("paste", ({ clipboardData }) => {
  if (clipboardData.files[0]) useFile(clipboardData.files[0]);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("frame").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("frame").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("frame").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) useFile(file);
  else complain(new Error("That was no file. Save the picture first, then drop it here."));
});

// ── labels and examples ──────────────────────────────────────────────────────────────────────────

let typing = 0;
$("labels").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(useLabels, WAIT);
});
for (const [button, labels] of [["all", "names"], ["few", "labels"]]) {
  $(button).addEventListener("click", () => {
    $("labels").value = examples[labels].join("\n");
    useLabels();
  });
}

function useLabels() {
  if (!model) return;
  const unknown = labelsNow().filter((label) => !model.knows(label));
  $("unknown").textContent = unknown.length
    ? `It has never read all of: ${unknown.join(", ")}. What it says of these means nothing.`
    : "";
  ask();
}

function showExamples() {
  for (const { look, about, pictures } of examples.looks) {
    const row = document.createElement("div");
    row.className = "row";
    row.innerHTML = "<h3></h3><div></div>";
    row.querySelector("h3").textContent = about;
    for (const { file, label } of pictures) {
      const url = `examples/${file}`;
      const button = document.createElement("button");
      button.type = "button";
      button.innerHTML = '<img width="72" height="72" loading="lazy">';
      button.querySelector("img").src = url;
      button.querySelector("img").alt = `${label}, ${look}`;
      button.addEventListener("click", async () => {
        await useFile(new Blob([await files.bytes(url)], { type: "image/png" }), label);
        $("frame").scrollIntoView({ block: "nearest", behavior: "smooth" });
      });
      row.querySelector("div").append(button);
    }
    $("examples").append(row);
  }
}

function complain(error) {
  $("problem").textContent = error?.message ?? "";
}

// ── beginning ────────────────────────────────────────────────────────────────────────────────────

async function begin() {
  examples = await files.json("./examples/examples.json");
  $("labels").value ||= examples.labels.join("\n");
  showExamples();
  const loaded = await Model.load((what) => ($("state").textContent = `Loading ${what} …`));
  model = loaded;
  const [name] = model.card.model.split("/");
  const nano = name === "nano";
  for (const part of document.querySelectorAll("[data-model]")) {
    part.hidden = (part.dataset.model === "nano") !== nano;
  }
  $("model-name").textContent = name;
  $("credits").textContent = [
    ...examples.credits,
    `Model ${name}: ${model.card.licence}`,
    "ONNX Runtime Web: © Microsoft, MIT",
  ].join(" · ");
  showSwitch();
  useLabels();
  for (const adapter of model.card.adapters) {
    await model.addAdapter(adapter);
    await ask();
  }
  document.body.dataset.ready = "true";
}

begin().catch((error) => {
  $("state").textContent = "";
  complain(error);
});
