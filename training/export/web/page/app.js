// The page: where images come from, and what it shows of them. All names are set as text, never as HTML.

import { photograph } from "./camera.js";
import { Pad } from "./drawing.js";
import { Network, missingFeature } from "./network.js";
import { Results } from "./results.js";

const element = (id) => document.getElementById(id);
const status = (text) => element("status").replaceChildren(text);

async function main() {
  const missing = missingFeature();
  if (missing) {
    status(`Expected a browser with ${missing}; Received: one without. A current Firefox, Chrome or Safari has it.`);
    return;
  }
  status("Loading the network.");
  element("progress").hidden = false;
  const network = new Network((fraction) => (element("progress").value = fraction));
  try {
    const started = await network.ask({ start: true });
    const { model, threads } = started;
    showFacts(model);
    const results = new Results(network, started);
    listen(results);
    showExamples(model, results);
    showPad(model, results);
    element("main").hidden = false;
    status(`Ready: ${threads === 1 ? "one thread" : `${threads} threads`}.`);
  } catch (error) {
    status(error.message);
  } finally {
    element("progress").hidden = true;
  }
}

function showFacts({ name, facts }) {
  if (name) {
    element("name").textContent = `GoogLeNet: ${name}`;
    document.title = `GoogLeNet: ${name}`;
  }
  for (const [term, description] of facts) {
    element("facts").append(made("dt", term), made("dd", description));
  }
}

/** Files that are dropped, pasted, chosen and photographed. */
function listen(results) {
  const drop = element("drop");
  const first = (files) => files.length > 0 && results.show({ file: files[0] }, files[0].name);
  element("file").addEventListener("change", ({ target }) => {
    first([...target.files]);
    target.value = ""; // so that the same file can be chosen once more
  });
  document.addEventListener("paste", ({ clipboardData }) => {
    if (!first(clipboardData.files)) {
      results.refuse("Expected an image on the clipboard; Received: none.");
    }
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (!first(event.dataTransfer.files)) {
      results.refuse("Expected an image file; Received: none.");
    }
  });
  element("paste").addEventListener("click", () => refusing(results, paste));
  element("camera").addEventListener("click", () => refusing(results, takePhotograph));
}

async function refusing(results, action) {
  try {
    await action(results);
  } catch (error) {
    results.refuse(error.message);
  }
}

async function paste(results) {
  if (!navigator.clipboard?.read) {
    throw new Error("This browser lets no page read images from the clipboard at a button: press Ctrl+V instead.");
  }
  for (const item of await navigator.clipboard.read()) {
    const type = item.types.find((name) => name.startsWith("image/"));
    if (type) {
      await results.show({ file: await item.getType(type) }, "the pasted image");
      return;
    }
  }
  throw new Error("Expected an image on the clipboard; Received: none.");
}

async function takePhotograph(results) {
  element("camera").disabled = true;
  try {
    const names = { box: "photograph", video: "video", take: "take", close: "close-camera" };
    const elements = Object.entries(names).map(([name, id]) => [name, element(id)]);
    const file = await photograph(Object.fromEntries(elements));
    if (file) {
      await results.show({ file }, "the photograph");
    }
  } finally {
    element("camera").disabled = false;
    element("camera").focus();
  }
}

function showExamples({ classes, examples, examples_from: source }, results) {
  element("examples").hidden = examples.length === 0;
  element("examples-title").textContent = `Examples: ${source}`;
  examples.forEach(({ file, label }, number) => {
    const name = label === null ? `Example ${number + 1}` : classes[label];
    const image = made("img");
    image.src = file;
    image.alt = "";
    const button = made("button");
    button.type = "button";
    button.append(image, name);
    const title = label === null ? name : `an example of ${name}`;
    button.setAttribute("aria-label", title);
    button.addEventListener("click", () =>
      refusing(results, async () => results.show({ file: await (await fetch(file)).blob() }, title)),
    );
    element("examples-list").append(button);
  });
}

function showPad({ drawing }, results) {
  if (!drawing) {
    return;
  }
  element("drawing").hidden = false;
  const pad = new Pad(element("pad"), drawing, () => results.show(pad.image(), "the drawing"));
  element("clear").addEventListener("click", () => pad.clear());
}

function made(tag, text = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  return node;
}

main();
