// Runs the network beside the page, which stays responsive.
//
// Messages to it: {id, start: true}, {id, file: Blob} or {id, rgba, side} (a square image). It replies {id, ...} with
// what was asked for, {id, error: sentence}, or while it starts {progress: 0-1}.

import { decodedSquare } from "./decode.js";
import { Refusal } from "./image_file.js";
import { readKernel } from "./maps.js";
import { normalized, prepareImage } from "./preprocess.js";

const MOST_THREADS = 8;

let [ort, session, model] = [];

self.onmessage = async ({ data }) => {
  try {
    self.postMessage({ id: data.id, ...(await (data.start ? start() : predict(data))) });
  } catch (error) {
    const sentence = error instanceof Refusal ? error.message : `The network could not run: ${error.message ?? error}`;
    self.postMessage({ id: data.id, error: sentence });
  }
};

/** Loads the model and onnxruntime-web, and runs the network once, since the first run is slower. */
async function start() {
  model = await (await fetched("model.json")).json();
  const file = await download(await fetched(model.model.file), model.model.bytes);
  ort = await import("./onnxruntime/ort.wasm.bundle.min.mjs");
  const threads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  ort.env.wasm.numThreads = threads;
  session = await ort.InferenceSession.create(new Uint8Array(file), { executionProviders: ["wasm"] });
  await run(new Uint8Array(model.size * model.size * model.channels));
  return { model, threads, kernel: readKernel(file, model.maps.kernel) };
}

async function fetched(name) {
  const response = await fetch(name);
  if (!response.ok) {
    throw new Refusal(`Expected the file ${name} beside this page; Received: status ${response.status}.`);
  }
  return response;
}

/** The content of a response as an ArrayBuffer, while progress is reported. */
async function download(response, length) {
  const parts = [];
  let done = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { value, done: isLast } = await reader.read();
    if (isLast) {
      return new Blob(parts).arrayBuffer();
    }
    parts.push(value);
    done += value.length;
    self.postMessage({ progress: Math.min(1, done / length) });
  }
}

/** Probabilities of each head, the last feature maps, the pixels that the network got, and milliseconds. */
async function predict({ file, rgba, side }) {
  const began = performance.now();
  const square = file ? await decodedSquare(file, model.size) : { rgba, side };
  const pixels = prepareImage(square.rgba, square.side, model);
  const read = performance.now();
  const outputs = await run(pixels);
  const ended = performance.now();
  const { data, dims } = outputs[model.maps.output];
  const heads = model.heads.map(({ name, output }) => ({ name, probabilities: outputs[output].data }));
  const milliseconds = { prepare: read - began, network: ended - read };
  return { heads, features: { data, dims }, pixels, milliseconds };
}

function run(pixels) {
  const { channels, size } = model;
  return session.run({ image: new ort.Tensor("float32", normalized(pixels, model), [1, channels, size, size]) });
}
