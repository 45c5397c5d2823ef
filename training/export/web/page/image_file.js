// What a file holds, before a browser decodes it: its kind, size and orientation, and whether it is whole; and the same
// image without EXIF, transparency and further frames, so that all browsers decode it as evaluation does. A canvas keeps
// no color where alpha is 0.

import { orientationOf } from "./exif.js";
import { chunksOf, opaquePng } from "./png.js";

/** Why an image cannot be read, in one sentence for the page. */
export class Refusal extends Error {}

const KINDS = [
  ["JPEG", 0, "\xff\xd8\xff", readJpeg],
  ["PNG", 0, "\x89PNG\r\n\x1a\n", readPng],
  ["GIF", 0, "GIF8", readGif],
  ["WebP", 8, "WEBP", readWebp],
  ["BMP", 0, "BM", readBmp],
];

const OTHERS = [
  ["a PDF document", 0, "%PDF"],
  ["a ZIP archive or an office document", 0, "PK\x03\x04"],
  ["a TIFF image", 0, "II*\x00"],
  ["a TIFF image", 0, "MM\x00*"],
  ["a HEIC image", 4, "ftyphei"],
  ["a HEIC image", 4, "ftypmif1"],
  ["an AVIF image", 4, "ftypavi"],
  ["a video", 4, "ftyp"],
];

/**
 * An image file as the browser is to decode it.
 *
 * @param {Uint8Array} bytes - of the file.
 * @returns {Promise<{kind: string, width: number, height: number, orientation: number, parts: BlobPart[]}>} its kind,
 *   the size that its header declares, how it is stored (1 to 8), and a file with the stored pixels of its first frame,
 *   opaque where possible.
 * @throws {Refusal} where it is no whole image.
 */
export async function readImageFile(bytes) {
  const known = KINDS.find(([, at, magic]) => text(bytes, at, magic.length) === magic);
  if (!known) {
    throw new Refusal(`Expected a JPEG, PNG, GIF, WebP or BMP image; Received: ${otherKind(bytes)}.`);
  }
  const [kind, , , read] = known;
  const found = await read(bytes, `Expected a whole image; Received: a ${kind} file that ends early.`);
  if (!(found.width > 0 && found.height > 0)) {
    throw new Refusal(`Expected a ${kind} image with pixels; Received: one without.`);
  }
  return { kind, orientation: orientationOf(found.exif), ...found };
}

/** What a file is that is no image, in words. */
function otherKind(bytes) {
  if (bytes.length === 0) {
    return "an empty file";
  }
  const known = OTHERS.find(([, at, magic]) => text(bytes, at, magic.length) === magic);
  if (known) {
    return known[0];
  }
  const isText = bytes.subarray(0, 512).every((byte) => byte >= 32 || (byte >= 9 && byte <= 13));
  return isText ? "text" : "a file of another kind";
}

/** Walks from marker to marker (ITU T.81, annex B) to the end of the image; EXIF is left out. */
function readJpeg(bytes, early) {
  let [at, kept, width, height, exif] = [2, 0, 0, 0, null];
  const parts = [];
  while (at < bytes.length) {
    while (bytes[at] === 0xff && bytes[at + 1] === 0xff) {
      at += 1; // fill bytes
    }
    const marker = bytes[at + 1];
    if (bytes[at] !== 0xff || marker === 0xd9) {
      break;
    }
    const standsAlone = marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8);
    const next = at + (standsAlone ? 2 : 2 + big(bytes, at + 2, 2));
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      [height, width] = [big(bytes, at + 5, 2), big(bytes, at + 7, 2)];
    }
    if (marker === 0xe1 && text(bytes, at + 4, 6) === "Exif\0\0") {
      exif ??= bytes.subarray(at + 4, next);
      parts.push(bytes.subarray(kept, at));
      kept = next;
    }
    at = marker === 0xda ? afterScan(bytes, next) : next;
  }
  if (bytes[at] !== 0xff || bytes[at + 1] !== 0xd9) {
    throw new Refusal(early);
  }
  return { width, height, exif, parts: [...parts, bytes.subarray(kept)] };
}

/** The next marker behind the compressed data of a scan. */
function afterScan(bytes, at) {
  while (at < bytes.length) {
    at = bytes.indexOf(0xff, at);
    if (at < 0) {
      return bytes.length;
    }
    const next = bytes[at + 1];
    if (next !== 0 && next !== 0xff && !(next >= 0xd0 && next <= 0xd7)) {
      return at;
    }
    at += next === 0xff ? 1 : 2;
  }
  return at;
}

async function readPng(bytes, early) {
  const chunks = chunksOf(bytes);
  if (chunks.at(-1)?.name !== "IEND") {
    throw new Refusal(early);
  }
  const [width, height] = [big(bytes, 16, 4), big(bytes, 20, 4)];
  const before = chunks.slice(0, chunks.findIndex(({ name }) => name === "IDAT"));
  const exif = before.find(({ name }) => name === "eXIf");
  const parts = await opaquePng(bytes, chunks, width, height, () => new Refusal(early));
  return { width, height, exif: exif && bytes.subarray(exif.start + 8, exif.end - 4), parts };
}

/** Cuts a GIF (GIF89a specification) behind its first frame. Transparent pixels are black, as evaluation has them. */
function readGif(bytes, early) {
  const out = bytes.slice();
  let at = 13 + colorTable(bytes[10]);
  while (bytes[at] === 0x21) {
    at = afterBlocks(bytes, at + 2);
  }
  const end = afterBlocks(bytes, at + 11 + colorTable(bytes[at + 9]));
  if (bytes[at] !== 0x2c || end > bytes.length) {
    throw new Refusal(early);
  }
  const width = Math.max(little(bytes, 6, 2), little(bytes, at + 5, 2));
  const height = Math.max(little(bytes, 8, 2), little(bytes, at + 7, 2));
  out.set([width & 255, width >> 8, height & 255, height >> 8], 6);
  return { width, height, parts: [out.subarray(0, end), new Uint8Array([0x3b])] };
}

function colorTable(flags) {
  return flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0;
}

/** Behind blocks that each begin with their length, the last of which is empty. */
function afterBlocks(bytes, at) {
  while (bytes[at] > 0) {
    at += 1 + bytes[at];
  }
  return at + 1;
}

/** Chunks of a WebP (RFC 9649): without those of EXIF and transparency, and of an animation the first frame alone. */
function readWebp(bytes, early) {
  const chunks = webpChunks(bytes, 12, early);
  const frame = chunks.find(({ name }) => name === "ANMF");
  const inner = frame ? webpChunks(bytes, frame.start + 24, early) : chunks;
  const image = inner.find(({ name }) => name === "VP8 " || name === "VP8L");
  if (!image) {
    throw new Refusal(early);
  }
  const kept = frame ? [image] : chunks.filter(({ name }) => name !== "ALPH" && name !== "EXIF");
  const parts = kept.map(({ start, end }) => bytes.slice(start, end));
  for (const part of parts) {
    const name = text(part, 0, 4);
    if (name === "VP8X") {
      part[8] &= 0xe7; // no alpha, no EXIF
    } else if (name === "VP8L") {
      part[12] &= 0xef; // no alpha
    }
  }
  const size = 4 + parts.reduce((sum, part) => sum + part.length, 0);
  const start = new TextEncoder().encode("RIFF....WEBP");
  new DataView(start.buffer).setUint32(4, size, true);
  const exif = chunks.find(({ name }) => name === "EXIF");
  return {
    ...webpSize(bytes, image),
    exif: exif && bytes.subarray(exif.start + 8, exif.start + 8 + little(bytes, exif.start + 4, 4)),
    parts: [start, ...parts],
  };
}

function webpChunks(bytes, at, early) {
  const end = Math.min(bytes.length, 8 + little(bytes, 4, 4));
  const chunks = [];
  while (at + 8 <= end) {
    const name = text(bytes, at, 4);
    const next = at + 8 + 2 * Math.ceil(little(bytes, at + 4, 4) / 2);
    if (next > bytes.length + 1) {
      throw new Refusal(early);
    }
    chunks.push({ name, start: at, end: next });
    at = next;
  }
  return chunks;
}

function webpSize(bytes, { name, start }) {
  if (name === "VP8 ") {
    return { width: little(bytes, start + 14, 2) & 0x3fff, height: little(bytes, start + 16, 2) & 0x3fff };
  }
  const numbers = little(bytes, start + 9, 4);
  return { width: 1 + (numbers & 0x3fff), height: 1 + ((numbers >>> 14) & 0x3fff) };
}

function readBmp(bytes, early) {
  const [width, height] = [little(bytes, 18, 4) | 0, Math.abs(little(bytes, 22, 4) | 0)];
  const isPlain = little(bytes, 14, 4) >= 40 && [0, 3].includes(little(bytes, 30, 4));
  const row = 4 * Math.ceil((width * little(bytes, 28, 2)) / 32);
  if (isPlain && little(bytes, 10, 4) + row * height > bytes.length) {
    throw new Refusal(early);
  }
  return { width, height, parts: [bytes] };
}

function text(bytes, at, length) {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}

function big(bytes, at, count) {
  return little(bytes.slice(at, at + count).reverse(), 0, count);
}

/** A number from its lowest byte on; what is behind the end of the file counts as 0. */
function little(bytes, at, count) {
  let value = 0;
  for (let i = count - 1; i >= 0; i--) {
    value = value * 256 + (bytes[at + i] ?? 0);
  }
  return value;
}
