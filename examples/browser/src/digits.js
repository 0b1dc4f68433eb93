// The digits that come with the page: 8x8 images with intensities from 0 to 16, then their labels.

const PIXELS = 64;
const BATCH = 32;
const SIDE = 32;

export class Digits {
  static async load() {
    const response = await fetch(new URL("model/digits.bin", document.baseURI));
    if (!response.ok) throw new Error("digits.bin is missing: run make_step.py first");
    return new Digits(new Uint8Array(await response.arrayBuffer()));
  }

  /** The last 360 are held out: no step ever sees them. */
  constructor(bytes, held = 360) {
    this.count = bytes.length / (PIXELS + 1);
    this.images = Float32Array.from(bytes.subarray(0, this.count * PIXELS), (value) => value / 16);
    this.labels = [...bytes.subarray(this.count * PIXELS)];
    this.trained = this.count - held;
  }

  batchesInEpoch() {
    return Math.floor(this.trained / BATCH);
  }

  /** Shuffled batches of one pass over the training digits. */
  *epoch() {
    const order = Array.from({ length: this.trained }, (_, index) => index);
    for (let index = order.length - 1; index > 0; index -= 1) {
      const other = Math.floor(Math.random() * (index + 1));
      [order[index], order[other]] = [order[other], order[index]];
    }
    for (let first = 0; first + BATCH <= order.length; first += BATCH) yield this.pick(order.slice(first, first + BATCH));
  }

  pick(rows) {
    const images = new Float32Array(rows.length * PIXELS);
    rows.forEach((row, at) => images.set(this.images.subarray(row * PIXELS, (row + 1) * PIXELS), at * PIXELS));
    return { images, labels: rows.map((row) => this.labels[row]) };
  }

  held() {
    return this.pick(Array.from({ length: this.count - this.trained }, (_, index) => this.trained + index));
  }
}

/** Makes of a drawing what the digits are: fitted into 32x32, of which each block of 4x4 is counted. */
export function shrink(canvas) {
  const box = bounds(canvas);
  if (box === null) return null;
  const small = new OffscreenCanvas(SIDE, SIDE).getContext("2d", { willReadFrequently: true });
  const scale = SIDE / Math.max(box.height, box.width, 1);
  const [width, height] = [box.width * scale, box.height * scale];
  const place = [(SIDE - width) / 2, (SIDE - height) / 2, width, height];
  small.drawImage(canvas, box.left, box.top, box.width, box.height, ...place);
  const inked = small.getImageData(0, 0, SIDE, SIDE).data;
  const image = new Float32Array(PIXELS);
  for (let at = 0; at < SIDE * SIDE; at += 1) {
    const block = Math.floor(at / SIDE / 4) * 8 + Math.floor((at % SIDE) / 4);
    if (inked[4 * at + 3] > 127) image[block] += 1 / 16;
  }
  return image;
}

function bounds(canvas) {
  const { width, height } = canvas;
  const inked = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let at = 0; at < width * height; at += 1) {
    if (inked[4 * at + 3] < 128) continue;
    const [x, y] = [at % width, Math.floor(at / width)];
    [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
  }
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}
