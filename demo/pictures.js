/** Pictures from files and videos, as pixels: upright, and on white. */

const MOST_PIXELS = 16_000_000; // a canvas of some phones holds no more
const MOST_RATIO = 50; // as the package has it: a strip that long would cost too much memory

/** The pixels of what can be drawn (a bitmap, a video), with white behind what is transparent. */
export function onWhite(source, width, height) {
  const smaller = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * smaller);
  canvas.height = Math.round(height * smaller);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** The picture in a file; turned as its EXIF orientation says, without colour management. */
export async function readPicture(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
    });
  } catch {
    throw new Error("This browser can’t read that file as a picture. Try a JPEG or a PNG.");
  }
  const { width, height } = bitmap;
  if (Math.max(width, height) > MOST_RATIO * Math.min(width, height)) {
    throw new Error(`That picture is too narrow: ${width} × ${height} pixels.`);
  }
  const pixels = onWhite(bitmap, width, height);
  bitmap.close();
  return pixels;
}

/** Show pixels on a canvas, in their own size. */
export function show(canvas, pixels) {
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  const image = new ImageData(pixels.data, pixels.width, pixels.height);
  canvas.getContext("2d").putImageData(image, 0, 0);
}
