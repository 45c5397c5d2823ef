// The exact class activation map (Zhou et al. 2016) of the main head: the last feature maps times the column of a class
// in the classifier's kernel. Its mean and the bias are the logit. No browser needed.

/**
 * The classifier's kernel, which the model's file holds as it is.
 *
 * @param {ArrayBuffer} file - of the model.
 * @param {{offset: number, shape: number[]}} kernel - where it lies in the file, and its channels and classes.
 * @returns {Float32Array} (channels, classes).
 */
export function readKernel(file, { offset, shape }) {
  return new Float32Array(file.slice(offset, offset + 4 * shape[0] * shape[1]));
}

/**
 * How much each place of the last feature maps speaks for a class.
 *
 * @param {Float32Array} features - the last feature maps, of shape `dims`.
 * @param {number[]} dims - 1, rows, columns, channels.
 * @param {Float32Array} kernel - (channels, classes).
 * @param {{bias: number[]}} maps - the bias of each class.
 * @param {number} label - the class.
 * @returns {{values: Float32Array, rows: number, columns: number, logit: number}} (rows, columns), and its logit.
 */
export function classActivationMap(features, [, rows, columns, channels], kernel, { bias }, label) {
  const values = new Float32Array(rows * columns);
  const column = Float32Array.from({ length: channels }, (_, channel) => kernel[channel * bias.length + label]);
  let total = 0;
  for (let place = 0; place < values.length; place++) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) {
      sum += features[place * channels + channel] * column[channel];
    }
    values[place] = sum;
    total += sum;
  }
  return { values, rows, columns, logit: total / values.length + bias[label] };
}

/** Probabilities of logits. */
export function softmax(logits) {
  const largest = logits.reduce((most, logit) => Math.max(most, logit), -Infinity);
  const powers = logits.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
