// A pad to draw on, by pointer or keyboard, for networks that take small gray images.

const SIDE = 280; // pixels of the pad, about
const FINEST = 0.07; // width of the pen at least, of the side
const PEN = 1.2; // and in pixels of the image that the drawing becomes
const STEP = 0.04; // of the side, for an arrow key

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** A canvas on which strokes are drawn; `onStroke` is called behind each. */
export class Pad {
  #canvas;
  #context;
  #style;
  #side;
  #pen = { x: 0.5, y: 0.2, down: false };

  /**
   * @param {HTMLCanvasElement} canvas - the pad.
   * @param {{pixels: number, paper: number, ink: number}} style - height and width of the image that a drawing becomes,
   *   and gray of paper and ink, 0-255.
   * @param {() => void} onStroke - called when a stroke has ended.
   */
  constructor(canvas, style, onStroke) {
    this.#canvas = canvas;
    this.#style = style;
    this.#side = style.pixels * Math.ceil(SIDE / style.pixels);
    canvas.width = canvas.height = this.#side;
    this.#context = canvas.getContext("2d", { willReadFrequently: true });
    this.clear();
    this.#listenToPointer(onStroke);
    this.#listenToKeys(onStroke);
  }

  clear() {
    const { paper } = this.#style;
    this.#pen.down = false;
    this.#context.fillStyle = `rgb(${paper}, ${paper}, ${paper})`;
    this.#context.fillRect(0, 0, this.#side, this.#side);
  }

  /** The drawing as an image of the network's kind: each pixel is the mean of what it covers. */
  image() {
    const { pixels } = this.#style;
    const block = this.#side / pixels;
    const drawn = this.#context.getImageData(0, 0, this.#side, this.#side).data;
    const sums = new Float64Array(pixels * pixels);
    for (let y = 0; y < this.#side; y++) {
      for (let x = 0; x < this.#side; x++) {
        sums[Math.floor(y / block) * pixels + Math.floor(x / block)] += drawn[4 * (y * this.#side + x)];
      }
    }
    const rgba = new Uint8ClampedArray(4 * sums.length).fill(255);
    sums.forEach((sum, place) => rgba.fill(Math.round(sum / block ** 2), 4 * place, 4 * place + 3));
    return { rgba, side: pixels };
  }

  /** Draws a line between two places, in parts of the side. */
  #line(from, to) {
    const { ink, pixels } = this.#style;
    const context = this.#context;
    context.strokeStyle = `rgb(${ink}, ${ink}, ${ink})`;
    context.lineWidth = this.#side * Math.max(FINEST, PEN / pixels);
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from.x * this.#side, from.y * this.#side);
    context.lineTo(to.x * this.#side, to.y * this.#side);
    context.stroke();
  }

  #listenToPointer(onStroke) {
    let last = null;
    const place = ({ clientX, clientY }) => {
      const box = this.#canvas.getBoundingClientRect();
      return { x: (clientX - box.left) / box.width, y: (clientY - box.top) / box.height };
    };
    this.#canvas.addEventListener("pointerdown", (event) => {
      this.#canvas.setPointerCapture(event.pointerId);
      last = place(event);
      this.#line(last, last);
    });
    this.#canvas.addEventListener("pointermove", (event) => {
      if (last) {
        const next = place(event);
        this.#line(last, next);
        last = next;
      }
    });
    const end = () => {
      if (last) {
        last = null;
        onStroke();
      }
    };
    this.#canvas.addEventListener("pointerup", end);
    this.#canvas.addEventListener("pointercancel", end);
  }

  #listenToKeys(onStroke) {
    const pen = this.#pen;
    this.#canvas.addEventListener("keydown", (event) => {
      if (event.key === " ") {
        pen.down = !pen.down;
        if (pen.down) {
          this.#line(pen, pen);
        } else {
          onStroke();
        }
      } else if (event.key in MOVES) {
        const [x, y] = MOVES[event.key].map((move) => move * STEP);
        const next = { x: Math.min(1, Math.max(0, pen.x + x)), y: Math.min(1, Math.max(0, pen.y + y)) };
        if (pen.down) {
          this.#line(pen, next);
        }
        Object.assign(pen, next);
      } else {
        return;
      }
      event.preventDefault();
    });
  }
}
