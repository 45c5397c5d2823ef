// From the pixels of an image to what the network takes, as evaluation does it in training/data/decoding.py: center
// square, gray where the network takes gray, antialiased bicubic resizing, rounding, normalization. No browser needed.

/** Weights of TensorFlow's gray (their sum is 0.9999, so that the result is rounded). */
const GRAY = [0.2989, 0.587, 0.114];

/**
 * The pixels of an image's center square as the network's evaluation sees them.
 *
 * @param {Uint8Array|Uint8ClampedArray} rgba - (side, side, 4), the center square of an image; alpha is not read.
 * @param {number} side - its height and width.
 * @param {{size: number, channels: number}} model - what the network takes.
 * @returns {Uint8Array} (size, size, channels).
 */
export function prepareImage(rgba, side, { size, channels }) {
  const image = channels === 1 ? gray(rgba) : colors(rgba);
  const scaled = side === size ? image : resized(image, side, channels, size);
  return Uint8Array.from(scaled, (value) => Math.min(255, Math.max(0, roundHalfEven(value))));
}

/**
 * Where the largest centered square of an image lies.
 *
 * @returns {{left: number, top: number, side: number}} in pixels.
 */
export function centerSquare(width, height) {
  const side = Math.min(width, height);
  return { left: Math.floor((width - side) / 2), top: Math.floor((height - side) / 2), side };
}

/**
 * What the network takes: (pixel - mean) / std, channels first.
 *
 * @param {Uint8Array} pixels - (size, size, channels).
 * @param {{channels: number, mean: number[], std: number[]}} model - mean and std of each channel.
 * @returns {Float32Array} (channels, size, size).
 */
export function normalized(pixels, { channels, mean, std }) {
  const area = pixels.length / channels;
  const values = new Float32Array(pixels.length);
  for (let channel = 0; channel < channels; channel++) {
    for (let place = 0; place < area; place++) {
      values[channel * area + place] = (pixels[place * channels + channel] - mean[channel]) / std[channel];
    }
  }
  return values;
}

/**
 * A square image at another size: bicubic (Keys 1981, a = -0.5), and reducing averages over what each pixel covers.
 * It is TensorFlow's ScaleAndTranslate.
 *
 * @param {Float32Array} image - (side, side, channels).
 * @returns {Float32Array} (size, size, channels), not rounded.
 */
export function resized(image, side, channels, size) {
  const spans = resizingSpans(side, size);
  const columns = alongRows(image, side, side, channels, spans);
  return alongRows(transposed(columns, side, size, channels), size, side, channels, spans, true);
}

/** What each pixel of a resized line is made of: where in the old line it starts, and weights that add up to 1. */
function resizingSpans(from, to) {
  const scale = from / to;
  const width = Math.max(scale, 1);
  return Array.from({ length: to }, (_, place) => {
    const center = (place + 0.5) * scale;
    const start = Math.max(0, Math.ceil(center - 2 * width - 0.5));
    const end = Math.min(from - 1, Math.floor(center + 2 * width - 0.5));
    const weights = new Float64Array(end - start + 1);
    for (let at = start; at <= end; at++) {
      weights[at - start] = keysCubic((at + 0.5 - center) / width);
    }
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { start, weights: weights.map((weight) => weight / sum) };
  });
}

/** The cubic convolution kernel of Keys with a = -0.5. */
function keysCubic(distance) {
  const x = Math.abs(distance);
  if (x >= 2) {
    return 0;
  }
  return x >= 1 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : (1.5 * x - 2.5) * x * x + 1;
}

/** Resizes each row of an image (height, width, channels); `transposes` exchanges rows and columns of the result. */
function alongRows(image, height, width, channels, spans, transposes = false) {
  const out = new Float32Array(height * spans.length * channels);
  for (let y = 0; y < height; y++) {
    spans.forEach(({ start, weights }, x) => {
      const to = (transposes ? x * height + y : y * spans.length + x) * channels;
      const from = (y * width + start) * channels;
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let i = 0; i < weights.length; i++) {
          sum += weights[i] * image[from + i * channels + channel];
        }
        out[to + channel] = sum;
      }
    });
  }
  return out;
}

/** Rows and columns of an image (height, width, channels) exchanged. */
function transposed(image, height, width, channels) {
  const out = new Float32Array(image.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < channels; channel++) {
        out[(x * height + y) * channels + channel] = image[(y * width + x) * channels + channel];
      }
    }
  }
  return out;
}

/** Red, green and blue of RGBA. */
function colors(rgba) {
  const out = new Float32Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    out[to++] = rgba[from];
    out[to++] = rgba[from + 1];
    out[to++] = rgba[from + 2];
  }
  return out;
}

/** Gray of RGBA, rounded, so that a gray image keeps its values. */
function gray(rgba) {
  const out = new Float32Array(rgba.length / 4);
  for (let place = 0; place < out.length; place++) {
    const at = 4 * place;
    out[place] = roundHalfEven(GRAY[0] * rgba[at] + GRAY[1] * rgba[at + 1] + GRAY[2] * rgba[at + 2]);
  }
  return out;
}

/** Rounds as TensorFlow does: halves to the even neighbor. */
function roundHalfEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
