// The network in a worker, for the page.

/** Whether this browser runs what onnxruntime-web is made of: WebAssembly with SIMD, in workers with canvases. */
export function missingFeature() {
  // A function that returns the zero vector, as in the wasm-feature-detect library.
  const simd = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15];
  simd.push(253, 98, 11);
  if (typeof WebAssembly !== "object") {
    return "WebAssembly";
  }
  if (!WebAssembly.validate(new Uint8Array(simd))) {
    return "WebAssembly with SIMD";
  }
  return typeof OffscreenCanvas !== "function" ? "OffscreenCanvas" : null;
}

/** Requests to the worker and their replies. */
export class Network {
  #worker = new Worker("worker.js", { type: "module" });
  #waiting = new Map();
  #last = 0;

  /** @param {(fraction: number) => void} onProgress - gets what of the model is loaded, 0-1. */
  constructor(onProgress) {
    this.#worker.onmessage = ({ data: { id, error, progress, ...reply } }) => {
      if (progress !== undefined) {
        onProgress(progress);
        return;
      }
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      (error === undefined ? resolve : reject)(error === undefined ? reply : new Error(error));
    };
    this.#worker.onerror = (event) => {
      const error = new Error(`The network's worker ended: ${event.message ?? "its files are missing"}`);
      this.#waiting.forEach(({ reject }) => reject(error));
      this.#waiting.clear();
    };
  }

  /** The reply to a message (see worker.js). Rejects with an error whose message is a sentence for the page. */
  ask(message) {
    this.#last += 1;
    const id = this.#last;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...message });
    });
  }
}
