/**
 * From a picture to the numbers that the image tower takes: what `clip.preprocess` does in Python.
 *
 * A browser can make a picture smaller by itself, but each browser does it differently, and none as
 * Pillow does, with which the model was trained. So the resampling stands here, with Pillow's
 * arithmetic: 8 bits between the two passes, and weights in fixed point.
 *
 * A picture is `{data, width, height}`, as ImageData has it: RGBA, 8 bits. Its alpha is not read.
 */

// Bits after the point of a weight: 32, less 8 for the pixel and 2 for the sum.
const PRECISION = 22;

// How far each filter reaches, in pixels of the smaller picture, and its weight at a distance.
const FILTERS = {
  bilinear: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { reach: 2, weight: cubic },
};

/** The cubic convolution of Keys (1981), with a = −1/2. */
function cubic(x) {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

/**
 * For each of `to` points in a row of `from`: where its neighbours begin, and their weights.
 *
 * When a row gets shorter, the filter is stretched, so that every pixel counts (antialiasing).
 */
function neighbours(from, to, filter) {
  const scale = from / to;
  const stretch = Math.max(1, scale);
  const reach = filter.reach * stretch;
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach + 0.5));
    const exact = [];
    for (let at = first; at < end; at++) exact.push(filter.weight((at - centre + 0.5) / stretch));
    const sum = exact.reduce((a, b) => a + b, 0);
    const weights = exact.map((w) => {
      const scaled = (w / sum) * 2 ** PRECISION;
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    return { first, weights };
  });
}

/** One pass: `lines` lines, each resampled along itself. Steps are distances in the arrays. */
function pass(source, target, points, lines, alongStep, acrossStep, outAlong, outAcross) {
  for (let line = 0; line < lines; line++) {
    points.forEach(({ first, weights }, i) => {
      const from = line * acrossStep + first * alongStep;
      const to = line * outAcross + i * outAlong;
      for (let channel = 0; channel < 3; channel++) {
        let sum = 1 << (PRECISION - 1); // a half, so that the shift rounds
        for (let k = 0; k < weights.length; k++) {
          sum += source[from + k * alongStep + channel] * weights[k];
        }
        target[to + channel] = sum >> PRECISION; // a clamped array cuts it to 0…255
      }
      target[to + 3] = 255;
    });
  }
}

/** The picture at another size, as Pillow's `resize` makes it. */
export function resize(picture, width, height, interpolation) {
  const filter = FILTERS[interpolation];
  if (!filter) throw new Error(`this page can't resize by the filter “${interpolation}”`);
  let { data } = picture;
  if (width !== picture.width) {
    const narrow = new Uint8ClampedArray(4 * width * picture.height);
    const points = neighbours(picture.width, width, filter);
    pass(data, narrow, points, picture.height, 4, 4 * picture.width, 4, 4 * width);
    data = narrow;
  }
  if (height !== picture.height) {
    const small = new Uint8ClampedArray(4 * width * height);
    const points = neighbours(picture.height, height, filter);
    pass(data, small, points, width, 4 * width, 4, 4 * width, 4);
    data = small;
  }
  return { data, width, height };
}

/** As Python rounds: a half goes to the even neighbour. */
function rounded(x) {
  const floor = Math.floor(x);
  return x - floor === 0.5 ? floor + (floor % 2) : Math.round(x);
}

/** What the model sees: the picture resized, and cut to the model's size. RGBA. */
export function modelView(picture, { image_size: [height, width], resize_mode, interpolation }) {
  if (resize_mode === "squash") return resize(picture, width, height, interpolation);
  if (resize_mode !== "shortest" || height !== width) {
    throw new Error(`this page can't resize to ${height}×${width} pixels by “${resize_mode}”`);
  }
  const shorter = Math.min(picture.width, picture.height);
  const side = (length) => (length === shorter ? width : Math.trunc((width * length) / shorter));
  const small = resize(picture, side(picture.width), side(picture.height), interpolation);
  const left = rounded((small.width - width) / 2);
  const top = rounded((small.height - height) / 2);
  const data = new Uint8ClampedArray(4 * width * height);
  for (let y = 0; y < height; y++) {
    const start = 4 * ((top + y) * small.width + left);
    data.set(small.data.subarray(start, start + 4 * width), 4 * y * width);
  }
  return { data, width, height };
}

/** A view as the numbers of the image tower's input: (3, H, W), less `mean`, divided by `std`. */
export function normalised(view, { mean, std }) {
  const size = view.width * view.height;
  const numbers = new Float32Array(3 * size);
  for (let channel = 0; channel < 3; channel++) {
    for (let i = 0; i < size; i++) {
      const value = view.data[4 * i + channel] / 255;
      numbers[channel * size + i] = (value - mean[channel]) / std[channel];
    }
  }
  return numbers;
}
