// The orientation in an image's EXIF, as training/data/orientation.py reads it (EXIF 2.32, sections 4.5 to 4.7). The
// page flips and transposes images itself, since browsers differ in which files they transpose.

const UPRIGHT = 1;
const TAG = 0x0112;
const SHORT = 3; // type of the value
const PREFIX = "Exif\0\0"; // of a JPEG always, of other files by mistake

/**
 * How an image is stored.
 *
 * @param {?Uint8Array} exif - what the file's segment with EXIF holds, a TIFF file; null where there is none.
 * @returns {number} from 1 (upright) to 8; upright too where the EXIF is truncated or points outside.
 */
export function orientationOf(exif) {
  if (!exif) {
    return UPRIGHT;
  }
  const tiff = letters(exif, 6) === PREFIX ? exif.subarray(6) : exif;
  const isLittle = letters(tiff, 4) === "II*\0";
  if (!isLittle && letters(tiff, 4) !== "MM\0*") {
    return UPRIGHT;
  }
  const view = new DataView(tiff.buffer, tiff.byteOffset, tiff.byteLength);
  const short = (at) => (at + 2 <= view.byteLength ? view.getUint16(at, isLittle) : 0);
  const directory = view.byteLength >= 8 ? view.getUint32(4, isLittle) : view.byteLength;
  let found = UPRIGHT;
  for (let entry = 0; entry < short(directory); entry++) {
    const at = directory + 2 + 12 * entry;
    if (at + 12 > view.byteLength) {
      break;
    }
    const value = short(at + 8);
    if (short(at) === TAG && short(at + 2) === SHORT && value >= 1 && value <= 8) {
      found = Math.max(found, value);
    }
  }
  return found;
}

/**
 * The matrix that draws a stored image upright, as a canvas takes it.
 *
 * @param {number} orientation - from 1 to 8.
 * @param {number} width - of the stored image.
 * @param {number} height - likewise.
 */
export function uprightMatrix(orientation, width, height) {
  const [w, h] = [width, height];
  return [
    [1, 0, 0, 1, 0, 0],
    [-1, 0, 0, 1, w, 0],
    [-1, 0, 0, -1, w, h],
    [1, 0, 0, -1, 0, h],
    [0, 1, 1, 0, 0, 0],
    [0, 1, -1, 0, h, 0],
    [0, -1, -1, 0, h, w],
    [0, -1, 1, 0, 0, w],
  ][orientation - 1];
}

function letters(bytes, count) {
  return String.fromCharCode(...bytes.subarray(0, count));
}
