// Runs the network of a page in Node, by the page's own scripts and its WebAssembly file:
//
//   node run_in_node.mjs FOLDER PIXELS RESULTS
//
// FOLDER is the page's, PIXELS holds uint8 (images, size, size, channels). RESULTS gets float32 (outputs, images,
// classes): the probabilities of each head, and those that the class activation maps of the main head add up to.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

import * as ort from "./onnxruntime/node/ort.node.min.mjs";

const [folder, inputs, results] = process.argv.slice(2);
const here = (name) => pathToFileURL(path.resolve(folder, name)).href;
const { normalized } = await import(here("preprocess.js"));
const { classActivationMap, readKernel, softmax } = await import(here("maps.js"));

const model = JSON.parse(fs.readFileSync(path.join(folder, "model.json"), "utf8"));
const file = fs.readFileSync(path.join(folder, model.model.file));
ort.env.wasm.wasmBinary = fs.readFileSync(path.join(folder, "onnxruntime", "ort-wasm-simd-threaded.wasm"));
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
const kernel = readKernel(file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength), model.maps.kernel);

const { size, channels, classes, heads } = model;
const pixels = fs.readFileSync(inputs);
const length = size * size * channels;
const images = pixels.length / length;
const found = new Float32Array((heads.length + 1) * images * classes.length);
for (let image = 0; image < images; image++) {
  const part = pixels.subarray(image * length, (image + 1) * length);
  const tensor = new ort.Tensor("float32", normalized(part, model), [1, channels, size, size]);
  const outputs = await session.run({ image: tensor });
  heads.forEach(({ output }, number) => {
    found.set(outputs[output].data, (number * images + image) * classes.length);
  });
  const { data, dims } = outputs[model.maps.output];
  const logits = classes.map((_, label) => classActivationMap(data, dims, kernel, model.maps, label).logit);
  found.set(softmax(logits), (heads.length * images + image) * classes.length);
}
fs.writeFileSync(results, found);
process.exit(0); // threads of the library would keep the process alive
