// From the pixels of a picture to the model's input, bit for bit as vim-deploy prepares it.
//
// Resizing is Pillow's of 8-bit pictures: filters whose support grows with the reduction, weights
// rounded to fixed point, bytes between the two passes. Sizes and offsets are rounded as Python
// does it. A picture is {width, height, channels, data}, its bytes in rows, channels innermost.

/** Most pixels of a picture that is read or made. */
export const MAX_PIXELS = 89_478_485;
// Bits behind the point of a weight: 32, less 8 for the pixel and 2 for sums beyond 1.
const PRECISION = 32 - 8 - 2;

const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

function hamming(x) {
  x = Math.abs(x);
  if (x >= 1) return 0;
  // The window's constants 0.54 and 0.46, in single precision as Pillow has them.
  return x === 0 ? 1 : sinc(x) * (Math.fround(0.54) + Math.fround(0.46) * Math.cos(x * Math.PI));
}

// Keys' cubic convolution with a = -0.5.
function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

const FILTERS = {
  bicubic: { support: 2, value: cubic },
  bilinear: { support: 1, value: (x) => Math.max(0, 1 - Math.abs(x)) },
  box: { support: 0.5, value: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  hamming: { support: 1, value: hamming },
  lanczos: { support: 3, value: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** The source pixels, and their weights, of target pixels begin to begin + count of a line. */
function tapsOf(from, to, begin, count, filter) {
  const scale = from / to;
  const spread = Math.max(scale, 1);
  const support = filter.support * spread;
  return Array.from({ length: count }, (_, i) => {
    const centre = (begin + i + 0.5) * scale;
    // Both ends are rounded by adding a half and cutting off.
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), from);
    const values = [];
    let sum = 0;
    for (let x = first; x < last; x++) {
      values.push(filter.value((x - centre + 0.5) * (1 / spread)));
      sum += values.at(-1);
    }
    const weights = values.map((value) => {
      const fixed = (sum === 0 ? value : value / sum) * 2 ** PRECISION;
      return Math.trunc(fixed + (fixed < 0 ? -0.5 : 0.5));
    });
    return { first, weights };
  });
}

/** One pixel of a pass; `step` is the distance of neighbours along the line. */
function weighted(source, at, step, weights) {
  let sum = 1 << (PRECISION - 1);
  for (const weight of weights) {
    sum += source[at] * weight;
    at += step;
  }
  return Math.min(Math.max(sum >> PRECISION, 0), 255);
}

/** Where the pixels of a line are taken from. The sum is carried along, as in Pillow. */
function nearestPositions(from, to) {
  const scale = from / to;
  const positions = [];
  for (let i = 0, at = scale * 0.5; i < to; i++, at += scale) {
    positions.push(Math.min(Math.trunc(at), from - 1));
  }
  return positions;
}

function pick(image, columns, rows) {
  const { channels } = image;
  const data = new Uint8Array(rows.length * columns.length * channels);
  let out = 0;
  for (const y of rows) {
    for (const x of columns) {
      const at = (y * image.width + x) * channels;
      for (let c = 0; c < channels; c++) data[out++] = image.data[at + c];
    }
  }
  return { width: columns.length, height: rows.length, channels, data };
}

function resizeColumns(image, width, window) {
  if (width === image.width) {
    const columns = Array.from({ length: window.width }, (_, x) => window.left + x);
    return pick(image, columns, Array.from({ length: image.height }, (_, y) => y));
  }
  const { channels, height } = image;
  const data = new Uint8Array(window.width * height * channels);
  const taps = tapsOf(image.width, width, window.left, window.width, window.filter);
  let out = 0;
  for (let y = 0; y < height; y++) {
    for (const { first, weights } of taps) {
      const at = (y * image.width + first) * channels;
      for (let c = 0; c < channels; c++) {
        data[out++] = weighted(image.data, at + c, channels, weights);
      }
    }
  }
  return { width: window.width, height, channels, data };
}

function resizeRows(image, taps) {
  const line = image.width * image.channels;
  const data = new Uint8Array(taps.length * line);
  let out = 0;
  for (const { first, weights } of taps) {
    for (let i = 0; i < line; i++) {
      data[out++] = weighted(image.data, first * line + i, line, weights);
    }
  }
  return { width: image.width, height: taps.length, channels: image.channels, data };
}

/** The part `window` of `image` resized to width x height: first the columns, then the rows. */
function resample(image, width, height, window, name) {
  if (name === "nearest") {
    const columns = nearestPositions(image.width, width);
    const rows = nearestPositions(image.height, height);
    return pick(
      image,
      columns.slice(window.left, window.left + window.width),
      rows.slice(window.top, window.top + window.height),
    );
  }
  const filter = FILTERS[name];
  if (!filter) throw new Error(`unknown interpolation ${name}`);
  // A direction that keeps its size is not filtered: its weights are the pixels themselves.
  const rows =
    height === image.height
      ? Array.from({ length: window.height }, (_, y) => ({ first: window.top + y, weights: null }))
      : tapsOf(image.height, height, window.top, window.height, filter);
  const first = rows[0].first;
  const last = Math.max(...rows.map((row) => row.first + (row.weights?.length ?? 1)));
  const line = image.width * image.channels;
  const needed = {
    ...image,
    height: last - first,
    data: image.data.subarray(first * line, last * line),
  };
  const columns = resizeColumns(needed, width, { ...window, filter });
  if (height === image.height) return columns;
  for (const row of rows) row.first -= first;
  return resizeRows(columns, rows);
}

/** Python's round. */
function halfToEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** Width and height after the resize, before the crop. */
function resizedSize(width, height, how) {
  const coverWidth = Math.trunc(how.width / how.crop_ratio);
  const coverHeight = Math.trunc(how.height / how.crop_ratio);
  if (width * coverHeight <= height * coverWidth) {
    return [coverWidth, Math.max(Math.trunc((coverWidth * height) / width), coverHeight)];
  }
  return [Math.max(Math.trunc((coverHeight * width) / height), coverWidth), coverHeight];
}

/** A picture with one channel or three; grey is Pillow's: ITU-R 601-2 in 16-bit fixed point. */
export function withChannels(image, channels) {
  if (image.channels === channels) return image;
  const count = image.width * image.height;
  const data = new Uint8Array(count * channels);
  for (let i = 0; i < count; i++) {
    if (channels === 1) {
      const at = i * image.channels;
      const [red, green, blue] = [image.data[at], image.data[at + 1], image.data[at + 2]];
      data[i] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >>> 16;
    } else {
      data.fill(image.data[i], 3 * i, 3 * i + 3);
    }
  }
  return { ...image, channels, data };
}

/** The picture resized and its centre cropped, as `how` (the model's preparation) says. */
export function crop(image, how) {
  const [width, height] = resizedSize(image.width, image.height, how);
  if (width * height > MAX_PIXELS) {
    throw new Error(
      `The picture is too elongated to resize: ${image.width} x ${image.height} pixels would ` +
        `become ${width} x ${height}. Crop it closer to the model's shape first.`,
    );
  }
  const window = {
    left: halfToEven((width - how.width) / 2),
    top: halfToEven((height - how.height) / 2),
    width: how.width,
    height: how.height,
  };
  return resample(withChannels(image, how.channels), width, height, window, how.interpolation);
}

const view = new DataView(new ArrayBuffer(4));

/** The bits of the float16 next to a float32, half to even. */
export function toHalf(value) {
  view.setFloat32(0, value);
  const bits = view.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  // Below the smallest normal number everything is a multiple of 2 ** -24.
  if (magnitude < 0x38800000) return sign | halfToEven(Math.abs(value) * 2 ** 24);
  return sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000) >>> 13);
}

/** The number that these bits are in float16. */
export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >>> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

/** What stands in the input where there is no picture: zeros of the normalised one. */
function fillings(how, mode) {
  return how.mean.map((mean) => {
    if (mode === "uint8") return halfToEven(Math.fround(255 * Math.fround(mean)));
    return mode === "normalize" ? Math.fround(mean) : 0;
  });
}

/**
 * The model's input for one picture, and its sizes.
 *
 * @param image of the model's size, or smaller: then it is filled up at the right and below.
 * @param model says how: `image`, `preprocess`, and `input` with type and batch.
 */
export function inputOf(image, model) {
  const { image: how, preprocess: mode, input } = model;
  const { height, width, channels } = how;
  const rows = typeof input.shape[0] === "number" ? input.shape[0] : 1;
  const planes = mode !== "uint8";
  const one = height * width * channels;
  const data = planes ? new Float32Array(rows * one) : new Uint8Array(rows * one);
  const fill = fillings(how, mode);
  for (let c = 0; c < channels; c++) {
    const mean = mode === "none" ? Math.fround(how.mean[c]) : 0;
    const deviation = mode === "none" ? Math.fround(how.std[c]) : 1;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const at = planes ? (c * height + y) * width + x : (y * width + x) * channels + c;
        if (y >= image.height || x >= image.width) {
          data[at] = fill[c];
          continue;
        }
        const byte = image.data[(y * image.width + x) * channels + c];
        // Every step in float32, as NumPy does them.
        const value = planes ? Math.fround(Math.fround(byte / 255) - mean) / deviation : byte;
        data[at] = value;
      }
    }
  }
  // A fixed batch is filled with the same picture; its first answer is taken.
  for (let row = 1; row < rows; row++) data.copyWithin(row * one, 0, one);
  const dims = planes ? [rows, channels, height, width] : [rows, height, width, channels];
  if (input.dtype !== "float16") return { type: input.dtype, data, dims };
  return { type: "float16", data: Uint16Array.from(data, toHalf), dims };
}
