// From a picture's file to its pixels as vim-deploy reads it: colour profiles and transparency are
// dropped, and a turned photograph stays turned unless whole pictures are wanted.
//
// Browsers do the opposite by themselves. So what they would heed is taken out of the file before
// they decode it; and a PNG with an alpha channel is decoded here, because a canvas loses colours
// that cannot be seen.

import { MAX_PIXELS } from "./prepare.mjs";

const MAX_FILE_BYTES = 1 << 29;
const OTHERWISE =
  "the browser decided on their colours, and scores may differ from those of vim-deploy run.";
// No TextDecoder: what it calls latin1 is another code page.
const name = (bytes, at, length = 4) => String.fromCharCode(...bytes.subarray(at, at + length));

function kindOf(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return "jpeg";
  if (name(bytes, 0, 8) === "\x89PNG\r\n\x1a\n") return "png";
  if (name(bytes, 0, 4) === "GIF8") return "gif";
  if (name(bytes, 0, 4) === "RIFF" && name(bytes, 8) === "WEBP") return "webp";
  if (name(bytes, 0, 2) === "BM") return "bmp";
  throw new Error(
    "This is no PNG, JPEG, GIF, WebP or BMP file. Browsers read no others that the model's own " +
      "tools read as well.",
  );
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

// A browser shows as much of a picture as there is; vim-deploy takes whole ones only.
function requireWhole(isWhole) {
  if (!isWhole) throw new Error("The file is not complete.");
}

/**
 * A JPEG without colour profile, and without Exif unless it is to be turned upright; and whether it
 * has four channels.
 */
function plainJpeg(bytes, upright) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const parts = [bytes.subarray(0, 2)];
  let isCmyk = false;
  let at = 2;
  while (at + 4 <= bytes.length && bytes[at] === 0xff && bytes[at + 1] !== 0xda) {
    if (bytes[at + 1] === 0xff) {
      at += 1;
      continue;
    }
    const end = at + 2 + view.getUint16(at + 2);
    const isProfile = bytes[at + 1] === 0xe2 && name(bytes, at + 4, 11) === "ICC_PROFILE";
    const isExif = bytes[at + 1] === 0xe1;
    const isFrame = (bytes[at + 1] & 0xf0) === 0xc0 && ![0xc4, 0xc8, 0xcc].includes(bytes[at + 1]);
    isCmyk ||= isFrame && bytes[at + 9] === 4;
    if (!isProfile && (upright || !isExif)) parts.push(bytes.subarray(at, end));
    at = end;
  }
  // Among coded pixels 0xff stands before 0 or a restart mark only, so this is the end's mark.
  const isEnd = (value, i) => i >= at && value === 0xff && bytes[i + 1] === 0xd9;
  requireWhole(bytes.findLastIndex(isEnd) >= 0);
  return { plain: joined([...parts, bytes.subarray(at)]), isCmyk };
}

/** The chunks of a PNG: their name, what is in them, and all of their bytes. */
function chunksOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const found = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const end = at + 12 + length;
    if (end > bytes.length) break;
    const body = bytes.subarray(at + 8, at + 8 + length);
    found.push({ name: name(bytes, at + 4), body, all: bytes.subarray(at, end) });
    at = end;
  }
  return found;
}

function plainPng(bytes, chunks, upright) {
  const kept = ["IHDR", "PLTE", "IDAT", "IEND", ...(upright ? ["eXIf"] : [])];
  const parts = chunks.filter((chunk) => kept.includes(chunk.name)).map((chunk) => chunk.all);
  return joined([bytes.subarray(0, 8), ...parts]);
}

/** A WebP without what is told apart; alpha stays where it is part of the pixels (lossless). */
function plainWebp(bytes, upright) {
  const result = bytes.slice();
  const view = new DataView(result.buffer);
  requireWhole(8 + view.getUint32(4, true) <= result.length);
  // What is left out, and the flag of the first chunk that says that it is there.
  const flags = { ICCP: 0x20, ALPH: 0x10, ...(upright ? {} : { EXIF: 0x08 }) };
  for (let at = 12; at + 8 <= result.length; ) {
    const flag = flags[name(result, at)];
    if (flag) {
      if (name(result, 12) === "VP8X") result[20] &= ~flag;
      result.set([0x6e, 0x6f, 0x6e, 0x65], at);
    }
    const length = view.getUint32(at + 4, true);
    at += 8 + length + (length & 1);
  }
  return result;
}

function plainGif(bytes) {
  const result = bytes.slice();
  const table = (packed) => (packed & 0x80 ? 3 << ((packed & 7) + 1) : 0);
  let at = 13 + table(result[10]);
  while (at < result.length && result[at] === 0x21) {
    // Of a frame's control block the flag that one colour is transparent.
    if (result[at + 1] === 0xf9) result[at + 3] &= ~1;
    at += 2;
    while (result[at]) at += result[at] + 1;
    at += 1;
  }
  return result;
}

async function inflated(body) {
  const stream = new Blob([body]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The pixels of a PNG of 8 bits with alpha (colour type 4 or 6), its alpha dropped. */
export async function pixelsOfAlphaPng(chunks, width, height, channels) {
  const body = joined(chunks.filter((chunk) => chunk.name === "IDAT").map((chunk) => chunk.body));
  const raw = await inflated(body);
  const step = channels + 1;
  const line = width * step;
  requireWhole(raw.length === height * (line + 1));
  const rows = new Uint8Array(height * line);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (line + 1)];
    if (filter > 4) throw new Error("The file is damaged.");
    for (let x = 0; x < line; x++) {
      const at = y * line + x;
      const left = x >= step ? rows[at - step] : 0;
      const up = y ? rows[at - line] : 0;
      const corner = x >= step && y ? rows[at - line - step] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else if (filter === 4) guess = nearestOf(left, up, corner);
      rows[at] = raw[y * (line + 1) + 1 + x] + guess;
    }
  }
  const data = new Uint8Array(width * height * channels);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < channels; c++) data[i * channels + c] = rows[i * step + c];
  }
  return { width, height, channels, data };
}

/** Of three neighbours the one that is nearest to left + up - corner, as PNG defines it. */
function nearestOf(left, up, corner) {
  const guess = left + up - corner;
  const toLeft = Math.abs(guess - left);
  const toUp = Math.abs(guess - up);
  const toCorner = Math.abs(guess - corner);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}

function requireSize(width, height) {
  if (width * height > MAX_PIXELS) {
    throw new Error(`${width} x ${height} pixels; at most ${MAX_PIXELS} are decoded.`);
  }
}

async function byBrowser(bytes, kind) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes], { type: `image/${kind}` }), options);
  } catch (error) {
    throw new Error(`The browser cannot decode this picture: ${error.message}`);
  }
  const { width, height } = bitmap;
  requireSize(width, height);
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data: four } = context.getImageData(0, 0, width, height);
  const data = new Uint8Array(width * height * 3);
  let clear = 0;
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) data[3 * i + c] = four[4 * i + c];
    clear += four[4 * i + 3] < 255 ? 1 : 0;
  }
  // Of larger pictures than it can hold a canvas holds nothing, and some browsers do not say so.
  if (clear && kind === "jpeg") {
    throw new Error(`The browser cannot hold a picture of ${width} x ${height} pixels.`);
  }
  const note = clear ? `Parts of the picture are transparent; ${OTHERWISE}` : "";
  return { image: { width, height, channels: 3, data }, note };
}

/**
 * The pixels of a file, and a sentence where they may be others than vim-deploy's.
 *
 * @param upright whether a photograph is turned as its Exif data say: whole pictures are, crops of
 *   classifiers are not.
 */
export async function decode(file, upright) {
  if (file.size > MAX_FILE_BYTES) throw new Error("The file is larger than 512 MiB.");
  const bytes = new Uint8Array(await file.arrayBuffer());
  const kind = kindOf(bytes);
  if (kind === "jpeg") {
    const { plain, isCmyk } = plainJpeg(bytes, upright);
    const found = await byBrowser(plain, kind);
    return isCmyk ? { ...found, note: `The picture's pixels are CMYK; ${OTHERWISE}` } : found;
  }
  if (kind === "webp") return byBrowser(plainWebp(bytes, upright), kind);
  if (kind === "gif") return byBrowser(plainGif(bytes), kind);
  if (kind === "bmp") return byBrowser(bytes, kind);
  const chunks = chunksOf(bytes);
  const head = chunks[0]?.body;
  if (chunks[0]?.name !== "IHDR" || head.length !== 13) throw new Error("The file is damaged.");
  const sizes = new DataView(head.buffer, head.byteOffset, 8);
  const [width, height] = [sizes.getUint32(0), sizes.getUint32(4)];
  requireSize(width, height);
  requireWhole(chunks.at(-1).name === "IEND");
  const [depth, colours, , , interlaced] = head.subarray(8);
  if (depth > 8) throw new Error("The picture has 16 bits a channel; 8 are read.");
  const isTurned = upright && chunks.some((chunk) => chunk.name === "eXIf");
  if ((colours === 4 || colours === 6) && !interlaced && !isTurned) {
    const channels = colours === 4 ? 1 : 3;
    return { image: await pixelsOfAlphaPng(chunks, width, height, channels), note: "" };
  }
  return byBrowser(plainPng(bytes, chunks, upright), kind);
}
