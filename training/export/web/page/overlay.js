// An image, and a class activation map over it: red speaks for the class, blue against it.

const SHOWN = 224; // pixels of the drawn image at least
const FOR = [214, 39, 40];
const AGAINST = [31, 119, 180];
const QUANTILE = 0.995; // single pixels would hide the rest

/**
 * Draws the pixels that the network got, in their colors or in gray under a map.
 *
 * @param {HTMLCanvasElement} canvas - where to.
 * @param {Uint8Array} pixels - (size, size, channels).
 * @param {{size: number, channels: number}} model - their shape.
 * @param {?{values: Float32Array, rows: number, columns: number}} map - (rows, columns), or null.
 */
export function drawImage(canvas, pixels, { size, channels }, map) {
  const factor = Math.max(1, Math.ceil(SHOWN / size));
  const side = size * factor;
  const large = map && enlarged(map, side);
  const limit = large && (quantile(large.map(Math.abs)) || 1);
  canvas.width = canvas.height = side;
  const image = new ImageData(side, side);
  for (let place = 0; place < side * side; place++) {
    const [y, x] = [Math.floor(place / side / factor), Math.floor((place % side) / factor)];
    const color = colorAt(pixels, (y * size + x) * channels, channels);
    image.data.set(large ? tinted(color, large[place] / limit) : color, 4 * place);
    image.data[4 * place + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function colorAt(pixels, at, channels) {
  return channels === 1 ? [pixels[at], pixels[at], pixels[at]] : [pixels[at], pixels[at + 1], pixels[at + 2]];
}

/** A color in gray with the color of how much its place speaks for or against the class, -1 to 1. */
function tinted(color, value) {
  const gray = ((color[0] + color[1] + color[2]) / 3) * 0.6 + 255 * 0.4;
  const weight = 0.8 * Math.min(1, Math.abs(value));
  return (value > 0 ? FOR : AGAINST).map((tint) => gray * (1 - weight) + tint * weight);
}

/** A map at another size, bilinear between the centers of its places. */
function enlarged({ values, rows, columns }, side) {
  const [ys, xs] = [positions(rows, side), positions(columns, side)];
  return Float32Array.from({ length: side * side }, (_, place) => {
    const [y, x] = [ys[Math.floor(place / side)], xs[place % side]];
    const row = (at) => values[at * columns + x.low] * (1 - x.weight) + values[at * columns + x.high] * x.weight;
    return row(y.low) * (1 - y.weight) + row(y.high) * y.weight;
  });
}

function positions(count, side) {
  return Array.from({ length: side }, (_, place) => {
    const at = Math.min(count - 1, Math.max(0, ((place + 0.5) * count) / side - 0.5));
    const low = Math.floor(at);
    return { low, high: Math.min(count - 1, low + 1), weight: at - low };
  });
}

function quantile(values) {
  return values.sort()[Math.floor(QUANTILE * (values.length - 1))];
}
