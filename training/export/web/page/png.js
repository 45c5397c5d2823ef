// PNG files (RFC 2083) without transparency, whose colors stay as they are, and without EXIF and further frames.

const SIGNATURE = 8; // bytes
const MOST_PIXELS = 2 ** 24; // of images whose alpha is rewritten: larger ones would take seconds
const LEFT_OUT = ["tRNS", "eXIf", "acTL", "fcTL", "fdAT"]; // transparency, EXIF, and frames behind the image
const PASSES = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

/** The chunks of a file as far as they are whole: name, and where they start and end. */
export function chunksOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks = [];
  for (let at = SIGNATURE; at + 12 <= bytes.length && chunks.at(-1)?.name !== "IEND"; ) {
    const end = at + 12 + view.getUint32(at);
    if (end > bytes.length) {
      break;
    }
    chunks.push({ name: String.fromCharCode(...bytes.subarray(at + 4, at + 8)), start: at, end });
    at = end;
  }
  return chunks;
}

/**
 * Parts of a PNG file with the same colors, and opaque.
 *
 * @param {Uint8Array} bytes - of a whole file.
 * @param {{name: string, start: number, end: number}[]} chunks - of it.
 * @param {number} width - as its header has it.
 * @param {number} height - likewise.
 * @param {() => Error} refusal - what to throw where the pixels are damaged.
 */
export async function opaquePng(bytes, chunks, width, height, refusal) {
  const [depth, colorType, interlaced] = [bytes[24], bytes[25], bytes[28] === 1];
  const kept = chunks.filter(({ name }) => !LEFT_OUT.includes(name));
  const parts = (some) => some.map(({ start, end }) => bytes.subarray(start, end));
  if ((colorType !== 4 && colorType !== 6) || width * height > MOST_PIXELS) {
    return [bytes.subarray(0, SIGNATURE), ...parts(kept)];
  }
  const data = kept.filter(({ name }) => name === "IDAT").map(({ start, end }) => bytes.subarray(start + 8, end - 4));
  const pixels = await through(new DecompressionStream("deflate"), data, refusal);
  const sample = depth / 8;
  const pixel = (colorType === 4 ? 2 : 4) * sample;
  let at = 0;
  for (const [x, y, dx, dy] of interlaced ? PASSES : [[0, 0, 1, 1]]) {
    const [columns, rows] = [Math.ceil((width - x) / dx), Math.ceil((height - y) / dy)];
    for (let row = 0; row < rows && columns > 0; row++) {
      makeRowOpaque(pixels.subarray(at, at + 1 + columns * pixel), row === 0, pixel, sample);
      at += 1 + columns * pixel;
    }
  }
  if (at > pixels.length) {
    throw refusal();
  }
  const first = kept.findIndex(({ name }) => name === "IDAT");
  const image = chunk("IDAT", await through(new CompressionStream("deflate"), [pixels], refusal));
  const behind = kept.slice(first).filter(({ name }) => name !== "IDAT");
  return [bytes.subarray(0, SIGNATURE), ...parts(kept.slice(0, first)), image, ...parts(behind)];
}

/**
 * Sets the alpha of a row to 255 in its filtered bytes. Filters predict each byte from those of the same sample alone,
 * so that what is left of an alpha that is 255 everywhere is known for each of them.
 */
function makeRowOpaque(row, isFirst, pixel, sample) {
  // Of the first pixel and of the others: none, sub, up, average (of the left and the upper one), Paeth.
  const above = isFirst ? 0 : 255;
  const start = [255, 255, 255 - above, 255 - (above >> 1), 255 - above][row[0]];
  const rest = [255, 0, 255 - above, 255 - ((255 + above) >> 1), 0][row[0]];
  for (let at = 1 + pixel - sample; at < row.length; at += pixel) {
    row.fill(at < pixel + 1 ? start : rest, at, at + sample);
  }
}

async function through(transform, parts, refusal) {
  try {
    return new Uint8Array(await new Response(new Blob(parts).stream().pipeThrough(transform)).arrayBuffer());
  } catch {
    throw refusal();
  }
}

function chunk(name, data) {
  const out = new Uint8Array(data.length + 12);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  out.set(new TextEncoder().encode(name), 4);
  out.set(data, 8);
  view.setUint32(data.length + 8, crc32(out.subarray(4, data.length + 8)));
  return out;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) {
    value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  }
  return value;
});

function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value = CRC_TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  }
  return (value ^ 0xffffffff) >>> 0;
}
