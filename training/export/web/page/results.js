// What the network finds in an image: the best classes of each head, and the class activation map of one of them.

import { classActivationMap } from "./maps.js";
import { drawImage } from "./overlay.js";

const TITLES = { main: "Main head", aux1: "Auxiliary head 1 (block 4a)", aux2: "Auxiliary head 2 (block 4d)" };

const element = (id) => document.getElementById(id);

const percent = (probability) => `${(100 * probability).toFixed(2)} %`;

/** How to read a map. */
function captionOf({ rows, columns, logit }, className, hasPlaces) {
  if (!hasPlaces) {
    return (
      `The last feature maps of this network have one place, so that its class activation maps tell how much speaks ` +
      `for ${className} and not where: the logit of the main head is ${logit.toFixed(2)}.`
    );
  }
  return (
    `Red speaks for ${className}, blue against it: by the main head, whose logit is the mean of the map ` +
    `(${rows} x ${columns}) plus the class's bias, ${logit.toFixed(2)}.`
  );
}

/** The part of the page that shows predictions; the newest image wins. */
export class Results {
  #network;
  #model;
  #kernel;
  #threads;
  #newest = 0;
  #times = [];
  #found = null; // the last prediction, with its name and map

  /**
   * @param {Network} network - what predicts.
   * @param {{model: object, kernel: Float32Array, threads: number}} started - its reply to the start.
   */
  constructor(network, { model, kernel, threads }) {
    this.#network = network;
    this.#model = model;
    this.#kernel = kernel;
    this.#threads = threads;
    element("class").append(...model.classes.map((name, label) => new Option(name, label)));
    element("class").addEventListener("change", ({ target }) => this.#showMap(Number(target.value)));
    element("with-map").addEventListener("change", () => this.#draw());
  }

  /**
   * Shows the prediction for an image.
   *
   * @param {{file: Blob}|{rgba: Uint8ClampedArray, side: number}} image - a file, or a square image.
   * @param {string} name - what to call it.
   */
  async show(image, name) {
    this.#newest += 1;
    const number = this.#newest;
    try {
      const found = await this.#network.ask(image);
      if (number === this.#newest) {
        this.#present(found, name);
        if ("file" in image) {
          element("shown").scrollIntoView({ block: "nearest" });
        }
      }
    } catch (error) {
      if (number === this.#newest) {
        this.refuse(error.message, name);
      }
    }
  }

  /** Says why there is no prediction. */
  refuse(reason, name = "") {
    element("error").hidden = false;
    element("error").textContent = name ? `${name}: ${reason}` : reason;
    element("status").textContent = "";
    element("prediction").hidden = true;
    element("nothing").hidden = true;
  }

  #present(found, name) {
    this.#times = [...this.#times.slice(-8), found.milliseconds.network];
    this.#found = { ...found, name };
    const lists = found.heads.map((head) => this.#list(head));
    element("heads").replaceChildren(...lists);
    element("error").hidden = element("nothing").hidden = true;
    element("prediction").hidden = false;
    element("time").textContent = this.#timeInWords(found.milliseconds);
    const { probabilities } = found.heads[0];
    const [best] = this.#best(probabilities);
    element("status").textContent = `${name}: ${this.#model.classes[best]}, ${percent(probabilities[best])}`;
    this.#showMap(best);
  }

  #timeInWords({ network, prepare }) {
    const sorted = [...this.#times].sort((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)];
    const threads = this.#threads === 1 ? "one thread" : `${this.#threads} threads`;
    return (
      `${network.toFixed(1)} ms for the network (median of the last ${sorted.length}: ${median.toFixed(1)} ms) on ` +
      `${threads}, ${prepare.toFixed(1)} ms to read the image.`
    );
  }

  /** Numbers of the best classes. */
  #best(probabilities) {
    const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
    return order.slice(0, this.#model.top);
  }

  #list({ name, probabilities }) {
    const [box, title, list] = ["div", "h3", "ol"].map((tag) => document.createElement(tag));
    title.textContent = TITLES[name] ?? name;
    list.append(...this.#best(probabilities).map((label) => this.#row(label, probabilities[label])));
    box.append(title, list);
    return box;
  }

  /** A class with its probability as a bar, which shows its map when clicked. */
  #row(label, probability) {
    const [item, button] = ["li", "button"].map((tag) => document.createElement(tag));
    const [bar, name, number] = ["bar", "class", "probability"].map((kind) => {
      const part = document.createElement("span");
      part.className = kind;
      return part;
    });
    bar.style.width = `${100 * probability}%`;
    name.textContent = this.#model.classes[label];
    number.textContent = percent(probability);
    button.type = "button";
    button.dataset.label = label;
    button.append(bar, name, number);
    button.addEventListener("click", () => this.#showMap(label));
    item.append(button);
    return item;
  }

  #showMap(label) {
    const { data, dims } = this.#found.features;
    this.#found.map = { label, ...classActivationMap(data, dims, this.#kernel, this.#model.maps, label) };
    this.#draw();
  }

  #draw() {
    const { name, pixels, map } = this.#found;
    const isShown = element("with-map").checked;
    const hasPlaces = map.values.length > 1;
    drawImage(element("shown"), pixels, this.#model, isShown && hasPlaces ? map : null);
    const className = this.#model.classes[map.label];
    element("shown").setAttribute("aria-label", isShown ? `Class activation map of ${className} over ${name}` : name);
    element("caption").textContent = isShown ? `${name}. ${captionOf(map, className, hasPlaces)}` : name;
    element("class").value = map.label;
    for (const button of element("heads").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.label) === map.label));
    }
    this.#offerNumbers();
  }

  /** A link to a JSON file of all probabilities and the map. */
  #offerNumbers() {
    const { name, heads, pixels, map, milliseconds } = this.#found;
    const numbers = {
      image: name,
      classes: this.#model.classes,
      heads: Object.fromEntries(heads.map((head) => [head.name, [...head.probabilities]])),
      map: { ...map, values: [...map.values] },
      pixels: [...pixels],
      milliseconds,
      threads: this.#threads,
    };
    URL.revokeObjectURL(element("save").href);
    element("save").href = URL.createObjectURL(new Blob([JSON.stringify(numbers)], { type: "application/json" }));
  }
}
