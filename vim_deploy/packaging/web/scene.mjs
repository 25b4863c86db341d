// Segmentation of a picture of any size by a model of one input size, as vim-deploy run does it.
//
// Logits of every window are resized to the window, summed and divided by the visits; the result is
// resized to the picture's own size, and each pixel gets the class of the largest. Arrays are flat,
// [rows, columns, classes], and every step is rounded to float32 as NumPy rounds it.

import { MAX_PIXELS, inputOf } from "./prepare.mjs";
import { requireFinite, rowOf } from "./answer.mjs";

/** Most bytes of the sums of one row of windows; the page has to hold them at once. */
const MAX_BAND_BYTES = 2 ** 30;
const f32 = Math.fround;

/** The two source positions, and the weight of the upper one, for each of `target`. */
function bilinearTaps(source, target) {
  return Array.from({ length: target }, (_, i) => {
    const exact = Math.min(Math.max((i + 0.5) * (source / target) - 0.5, 0), source - 1);
    const lower = Math.floor(exact);
    return { lower, upper: Math.min(lower + 1, source - 1), weight: f32(exact - lower) };
  });
}

const between = (low, high, weight) => f32(f32(f32(high - low) * weight) + low);

/** Lines of `width` positions, `channels` numbers each, resized along their length. */
function resizeLines(values, width, channels, taps) {
  const lines = values.length / (width * channels);
  const result = new Float32Array(lines * taps.length * channels);
  let out = 0;
  for (let y = 0; y < lines; y++) {
    for (const { lower, upper, weight } of taps) {
      const low = (y * width + lower) * channels;
      const high = (y * width + upper) * channels;
      for (let c = 0; c < channels; c++) {
        result[out++] = between(values[low + c], values[high + c], weight);
      }
    }
  }
  return result;
}

/** The row between two others. */
function mixed(low, high, weight) {
  return Float32Array.from(low, (value, i) => between(value, high[i], weight));
}

function resizeMaps(values, [rows, columns], channels, [height, width]) {
  let wide = values;
  if (columns !== width) {
    wide = resizeLines(values, columns, channels, bilinearTaps(columns, width));
  }
  if (rows === height) return wide;
  const line = width * channels;
  const row = (y) => wide.subarray(y * line, (y + 1) * line);
  const result = new Float32Array(height * line);
  bilinearTaps(rows, height).forEach(({ lower, upper, weight }, y) => {
    result.set(mixed(row(lower), row(upper), weight), y * line);
  });
  return result;
}

function resizePixels(image, [height, width]) {
  if (image.height === height && image.width === width) return image;
  const { channels } = image;
  const line = image.width * channels;
  const row = (y) => image.data.subarray(y * line, (y + 1) * line);
  const taps = bilinearTaps(image.width, width);
  const data = new Uint8Array(height * width * channels);
  bilinearTaps(image.height, height).forEach(({ lower, upper, weight }, y) => {
    const tall = mixed(Float32Array.from(row(lower)), row(upper), weight);
    const wide = resizeLines(tall, image.width, channels, taps);
    data.set(wide.map((value) => Math.floor(f32(value + 0.5))), y * width * channels);
  });
  return { width, height, channels, data };
}

function resizeLabels(labels, [rows, columns], [height, width]) {
  const nearest = (source, target) =>
    Array.from({ length: target }, (_, i) =>
      Math.trunc(Math.min((i + 0.5) * (source / target), source - 1)),
    );
  const across = nearest(columns, width);
  const result = new Uint16Array(height * width);
  nearest(rows, height).forEach((y, row) => {
    across.forEach((x, column) => (result[row * width + column] = labels[y * columns + x]));
  });
  return result;
}

/** First positions of the windows along one side. */
function starts(length, window, stride) {
  const last = length - window;
  const found = [];
  for (let at = 0; at < last; at += stride) found.push(at);
  return [...found, last];
}

/** The windows of a picture of height and width `own`; throws for one that has none. */
export function layOut(own, scene, mode) {
  const shown = ([height, width]) => `${height} x ${width}`;
  if (own[0] < scene.patch[0] || own[1] < scene.patch[1]) {
    throw new Error(
      `A picture of ${shown(own)} pixels is smaller than a patch of ${shown(scene.patch)}.`,
    );
  }
  const { window } = scene;
  if (mode === "whole") return { own, run: window, window, tops: [0], lefts: [0] };
  let run = own;
  if (scene.scale) {
    const [long, short] = [Math.max(...scene.scale), Math.min(...scene.scale)];
    const factor = Math.min(long / Math.max(...own), short / Math.min(...own));
    run = own.map((side) => Math.trunc(side * factor + 0.5));
  }
  if (run[0] * run[1] > MAX_PIXELS) {
    throw new Error(`A picture of ${shown(own)} pixels is too large when resized: ${shown(run)}.`);
  }
  if (run[0] < window[0] || run[1] < window[1]) {
    throw new Error(
      `The window of ${shown(window)} pixels is larger than the picture of ${shown(run)}. ` +
        "Choose “resized to one input”.",
    );
  }
  const [tops, lefts] = [0, 1].map((side) => starts(run[side], window[side], scene.stride[side]));
  return { own, run, window, tops, lefts };
}

/** Averages windows that come row by row, and hands finished rows to `sink`. */
class WindowMean {
  constructor(layout, classes, sink) {
    Object.assign(this, { layout, classes, sink, top: 0 });
    const count = (length, window, firsts) => {
      const visits = new Float32Array(length);
      for (const at of firsts) for (let i = at; i < at + window; i++) visits[i] += 1;
      return visits;
    };
    this.rows = count(layout.run[0], layout.window[0], layout.tops);
    this.columns = count(layout.run[1], layout.window[1], layout.lefts);
    this.band = new Float32Array(layout.window[0] * layout.run[1] * classes);
  }

  add(top, left, logits) {
    if (top > this.top) this.handOn(top - this.top);
    const [height, width] = this.layout.window;
    const part = width * this.classes;
    for (let y = 0; y < height; y++) {
      const at = (y * this.layout.run[1] + left) * this.classes;
      for (let i = 0; i < part; i++) this.band[at + i] += logits[y * part + i];
    }
  }

  finish() {
    this.handOn(this.layout.window[0]);
  }

  handOn(count) {
    const width = this.layout.run[1];
    const line = width * this.classes;
    for (let y = 0; y < count; y++) {
      const row = this.band.slice(y * line, (y + 1) * line);
      for (let i = 0; i < line; i++) {
        row[i] /= f32(this.rows[this.top + y] * this.columns[Math.trunc(i / this.classes)]);
      }
      this.sink(row);
    }
    this.band.copyWithin(0, count * line);
    this.band.fill(0, this.band.length - count * line);
    this.top += count;
  }
}

/** Takes rows of logits from the top down, resizes them to a picture and keeps the largest. */
class LabelRows {
  constructor([rows, columns], [height, width], classes) {
    Object.assign(this, { columns, width, classes, received: 0, next: 0, kept: new Map() });
    this.same = rows === height && columns === width;
    this.rows = bilinearTaps(rows, height);
    this.across = bilinearTaps(columns, width);
    this.labels = new Uint16Array(height * width);
  }

  take(row) {
    const number = this.received++;
    if (this.same) {
      this.write(number, row);
      return;
    }
    this.kept.set(number, row);
    while (this.next < this.rows.length && this.rows[this.next].upper <= number) {
      const { lower, upper, weight } = this.rows[this.next];
      const tall = mixed(this.kept.get(lower), this.kept.get(upper), weight);
      this.write(this.next++, resizeLines(tall, this.columns, this.classes, this.across));
    }
    const wanted = this.rows[this.next]?.lower ?? Infinity;
    for (const known of this.kept.keys()) if (known < wanted) this.kept.delete(known);
  }

  write(y, row) {
    for (let x = 0; x < this.width; x++) {
      let best = 0;
      for (let c = 1; c < this.classes; c++) {
        if (row[x * this.classes + c] > row[x * this.classes + best]) best = c;
      }
      this.labels[y * this.width + x] = best;
    }
  }
}

function cut(image, top, left, [height, width]) {
  const data = new Uint8Array(height * width * image.channels);
  const line = width * image.channels;
  for (let y = 0; y < height; y++) {
    const at = ((top + y) * image.width + left) * image.channels;
    data.set(image.data.subarray(at, at + line), y * line);
  }
  return { width, height, channels: image.channels, data };
}

/** Logits [classes, rows, columns] with the classes of a pixel side by side. */
function channelsLast(values, classes) {
  const pixels = values.length / classes;
  const result = new Float32Array(values.length);
  for (let c = 0; c < classes; c++) {
    for (let i = 0; i < pixels; i++) result[i * classes + c] = values[c * pixels + i];
  }
  return result;
}

/**
 * The class of every pixel of a picture, [height * width] of its own size.
 *
 * @param image with the model's channels.
 * @param model the page's model.json.
 * @param mode `slide` or `whole`.
 * @param infer takes an input, gives the outputs' tensors by name (a promise).
 * @param progress is told how many windows of how many are done.
 */
export async function segment(image, model, mode, infer, progress = () => {}) {
  const { scene } = model;
  const own = [image.height, image.width];
  const layout = layOut(own, scene, mode);
  const [output] = model.outputs;
  const windows = layout.tops.flatMap((top) => layout.lefts.map((left) => [top, left]));
  const isMap = output.holds === "classes";
  if (isMap && windows.length > 1) {
    throw new Error(
      `This model gives a class for each pixel, and the ${windows.length} windows of this picture ` +
        "overlap: classes cannot be averaged. Choose “resized to one input”, or export the model " +
        "with --head logits.",
    );
  }
  if (!isMap && 4 * scene.classes * layout.window[0] * layout.run[1] > MAX_BAND_BYTES) {
    throw new Error(
      "The logits of one row of windows take more than 1 GiB. Choose “resized to one input”.",
    );
  }
  const pixels = resizePixels(image, layout.run);
  const labels = new LabelRows(layout.run, own, scene.classes);
  const mean = isMap ? null : new WindowMean(layout, scene.classes, (row) => labels.take(row));
  let map = null;
  for (const [done, [top, left]] of windows.entries()) {
    await progress(done, windows.length);
    const outputs = await infer(inputOf(cut(pixels, top, left, layout.window), model));
    const tensor = outputs[output.name];
    const values = rowOf(tensor);
    if (isMap) {
      map = resizeLabels(values, layout.window, own);
      continue;
    }
    requireFinite(values);
    const [, classes, rows, columns] = tensor.dims;
    const last = channelsLast(values, classes);
    mean.add(top, left, resizeMaps(last, [rows, columns], classes, layout.window));
  }
  mean?.finish();
  return { labels: map ?? labels.labels, windows: windows.length };
}

/** Every class of a label map, the largest first: {index, label, pixels, share}. */
export function classAreas(labels, model) {
  const counts = new Array(model.scene.classes).fill(0);
  for (const label of labels) counts[label] += 1;
  return counts
    .map((pixels, index) => ({
      index,
      label: model.labels[index] ?? `class ${index}`,
      pixels,
      share: pixels / labels.length,
    }))
    .filter((area) => area.pixels)
    .sort((a, b) => b.pixels - a.pixels);
}
