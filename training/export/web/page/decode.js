// Image files to pixels, by the browser's decoders.

import { uprightMatrix } from "./exif.js";
import { Refusal, readImageFile } from "./image_file.js";
import { centerSquare } from "./preprocess.js";

const MOST_PIXELS = 2 ** 26; // as evaluation: 8,192 x 8,192
const LARGE = 2 ** 24; // pixels above which an image is scaled while it is decoded
const LARGE_SIDE = 1024; // shorter side of what it is scaled to, at least, and
const LARGE_FACTOR = 4; // times the network's

/**
 * The center square of an image, upright, of its first frame and without transparency.
 *
 * @param {Blob} file - of the image.
 * @param {number} size - pixels of the network's images. Of images of more than 16.8 megapixels the square is scaled
 *   to at least four times as many.
 * @returns {Promise<{rgba: Uint8ClampedArray, side: number}>} (side, side, 4).
 * @throws {Refusal} where there is no such image.
 */
export async function decodedSquare(file, size) {
  const { kind, width, height, orientation, parts } = await readImageFile(new Uint8Array(await file.arrayBuffer()));
  if (width * height > MOST_PIXELS) {
    throw new Refusal(`Expected an image of at most 8,192 x 8,192 pixels; Received: ${width} x ${height}.`);
  }
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  if (width * height > LARGE) {
    const shorter = Math.max(LARGE_SIDE, LARGE_FACTOR * size);
    const factor = Math.min(1, shorter / Math.min(width, height));
    Object.assign(options, { resizeWidth: Math.max(1, Math.round(width * factor)), resizeQuality: "high" });
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob(parts), options);
  } catch {
    throw new Refusal(`Expected an image that this browser can decode; Received: a damaged ${kind} file.`);
  }
  try {
    return squareOf(bitmap, orientation);
  } finally {
    bitmap.close();
  }
}

/** The center square of a stored image as it is upright. */
function squareOf(bitmap, orientation) {
  const { width, height } = bitmap;
  const { left, top, side } = orientation >= 5 ? centerSquare(height, width) : centerSquare(width, height);
  const context = new OffscreenCanvas(side, side).getContext("2d", { willReadFrequently: true });
  const [a, b, c, d, e, f] = uprightMatrix(orientation, width, height);
  context.imageSmoothingEnabled = false;
  context.setTransform(a, b, c, d, e - left, f - top);
  context.drawImage(bitmap, 0, 0);
  return { rgba: context.getImageData(0, 0, side, side).data, side };
}
