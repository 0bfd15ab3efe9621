/**
 * A canvas to draw on, with mouse, finger, pen, or keys: arrows move the pen, space sets it down.
 *
 * The model gets the drawing as the sketches that the adapter learned from: filling its frame, and
 * with lines of their width, wherever and however large it was drawn.
 */

import { onWhite } from "./pictures.js";

const SIDE = 480; // of the canvas, whatever its size on the screen
const PEN = 7;
const STEP = 12; // of the arrow keys
const OUTPUT = { side: 288, margin: 10, pen: 6 };

export class Pad {
  #lines = []; // each a list of points
  #drawing = false;
  #pen = { x: SIDE / 2, y: SIDE / 2, shown: false, down: false };
  #context;

  /** `onChange(finished)` is called while something is drawn, and when a line is finished. */
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.onChange = onChange;
    canvas.width = canvas.height = SIDE;
    this.#context = canvas.getContext("2d");
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("pointermove", (event) => this.#go(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, () => this.#finish());
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => {
      Object.assign(this.#pen, { shown: false, down: false });
      this.#show();
    });
    this.#show();
  }

  get empty() {
    return this.#lines.length === 0;
  }

  undo() {
    this.#lines.pop();
    this.#changed(true);
  }

  clear() {
    this.#lines = [];
    this.#changed(true);
  }

  /** Draw these lines, each a list of `{x, y}` in 0…1. */
  draw(lines) {
    this.#lines = lines.map((line) => line.map(({ x, y }) => ({ x: x * SIDE, y: y * SIDE })));
    this.#changed(true);
  }

  /** The drawing as pixels, as the model gets it. */
  pixels() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = OUTPUT.side;
    const points = this.#lines.flat();
    const [left, right] = extent(points.map(({ x }) => x));
    const [top, bottom] = extent(points.map(({ y }) => y));
    const longer = Math.max(right - left, bottom - top, 1);
    const scale = (OUTPUT.side - 2 * OUTPUT.margin) / longer;
    const fit = ({ x, y }) => ({
      x: OUTPUT.side / 2 + (x - (left + right) / 2) * scale,
      y: OUTPUT.side / 2 + (y - (top + bottom) / 2) * scale,
    });
    strokes(canvas.getContext("2d"), this.#lines.map((line) => line.map(fit)), OUTPUT.pen);
    return onWhite(canvas, OUTPUT.side, OUTPUT.side);
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * SIDE,
      y: ((event.clientY - box.top) / box.height) * SIDE,
    };
  }

  #start(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#drawing = true;
    this.#lines.push([this.#at(event)]);
    this.#changed(false);
  }

  #go(event) {
    if (!this.#drawing) return;
    // All that happened since the last frame, or quick curves would have corners.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.#lines.at(-1).push(this.#at(each));
    this.#changed(false);
  }

  #finish() {
    if (!this.#drawing) return;
    this.#drawing = false;
    this.#changed(true);
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const pen = this.#pen;
    if (event.key in moves) {
      const [dx, dy] = moves[event.key];
      pen.x = Math.min(SIDE, Math.max(0, pen.x + dx * STEP));
      pen.y = Math.min(SIDE, Math.max(0, pen.y + dy * STEP));
      if (pen.down) this.#lines.at(-1).push({ x: pen.x, y: pen.y });
    } else if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) this.#lines.push([{ x: pen.x, y: pen.y }]);
    } else {
      return;
    }
    event.preventDefault();
    pen.shown = true;
    this.#changed(!pen.down);
  }

  #changed(finished) {
    this.#show();
    this.onChange(finished);
  }

  #show() {
    this.#context.clearRect(0, 0, SIDE, SIDE);
    strokes(this.#context, this.#lines, PEN);
    if (!this.#pen.shown) return;
    this.#context.beginPath();
    this.#context.arc(this.#pen.x, this.#pen.y, PEN, 0, 2 * Math.PI);
    this.#context.fillStyle = this.#pen.down ? "#d9480f" : "#868e96";
    this.#context.fill();
  }
}

function extent(numbers) {
  return numbers.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);
}

function strokes(context, lines, width) {
  Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round", strokeStyle: "black" });
  for (const line of lines) {
    context.beginPath();
    context.moveTo(line[0].x, line[0].y);
    for (const { x, y } of line) context.lineTo(x, y);
    context.stroke();
  }
}
