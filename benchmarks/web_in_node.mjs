// Times the network of a web export in Node: node web_in_node.mjs RUNTIME FOLDER THREADS
//
// RUNTIME is the folder of onnxruntime-web's files in this package, FOLDER the page's. For each line on the standard
// input it prints the milliseconds of one image, on random pixels, after one that is not timed.

import fs from "node:fs";
import path from "node:path";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const [runtime, folder, threads] = process.argv.slice(2);
const ort = await import(pathToFileURL(path.resolve(runtime, "node", "ort.node.min.mjs")).href);
const model = JSON.parse(fs.readFileSync(path.join(folder, "model.json"), "utf8"));
ort.env.wasm.wasmBinary = fs.readFileSync(path.join(folder, "onnxruntime", "ort-wasm-simd-threaded.wasm"));
ort.env.wasm.numThreads = Number(threads);
const session = await ort.InferenceSession.create(fs.readFileSync(path.join(folder, model.model.file)), {
  executionProviders: ["wasm"],
});
const shape = [1, model.channels, model.size, model.size];
const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 2 * Math.random() - 1);

async function milliseconds() {
  const began = performance.now();
  await session.run({ image: new ort.Tensor("float32", values, shape) });
  return performance.now() - began;
}

await milliseconds();
for await (const _ of readline.createInterface({ input: process.stdin })) {
  console.log(await milliseconds());
}
process.exit(0); // threads of the library would keep the process alive
