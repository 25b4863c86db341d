// The page around the model: a picture in, classes or a map of them out. Whatever the model or a
// file says becomes text, never markup. `data-state` of the main element, `data-file` (the last one
// that is done) and `data-answer` of the answer are for tests and scripts.

import { bestClasses, rowOf } from "./answer.mjs";
import { decode } from "./decode.mjs";
import { crop, inputOf, withChannels } from "./prepare.mjs";
import { classAreas, segment } from "./scene.mjs";

const OPACITY = 0.5;
const MOST_ROWS = 30;
const at = (id) => document.getElementById(id);
const page = at("page");
let model = null;
let session = null;
let ort = null;
let isBusy = false;
let waiting = null;
let shown = null;

function say(state, text = "") {
  at("status").textContent = text;
  if (state !== "failed") at("error").textContent = "";
  page.dataset.state = state;
}

function fail(error, what) {
  at("answer").hidden = true;
  at("error").textContent = `${what}\n${error.message ?? error}`;
  say("failed");
}

/** Lets the browser draw what was said before it is busy. */
const painted = () =>
  new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));

async function fetched(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: the server answers ${answer.status}`);
  return answer;
}

async function start() {
  at("served").remove();
  say("loading", "Loading the model …");
  model = await (await fetched("model.json")).json();
  document.title = model.name;
  at("name").textContent = model.name;
  at("about").textContent = model.about;
  const [own, others] = [model.bytes, model.runtime_bytes].map((size) => (size / 1e6).toFixed(1));
  say("loading", `Loading the model (${own} MB) and its runtime (${others} MB) …`);
  ort = await import("./runtime/ort.wasm.bundle.min.mjs");
  const { wasm } = ort.env;
  wasm.wasmPaths = { wasm: new URL("runtime/ort-wasm-simd-threaded.wasm", import.meta.url).href };
  // Threads need two headers of the server, which plain ones do not send.
  if (!globalThis.crossOriginIsolated) wasm.numThreads = 1;
  const address = (path) => path.split("/").map(encodeURIComponent).join("/");
  const bytes = async (path) => new Uint8Array(await (await fetched(address(path))).arrayBuffer());
  const externalData = [];
  for (const path of model.beside) externalData.push({ path, data: await bytes(path) });
  session = await ort.InferenceSession.create(await bytes(model.file), {
    executionProviders: ["wasm"],
    externalData,
    extra: { session: model.session },
  });
  if (model.scene) {
    at("mode-label").hidden = false;
    at("mode").value = model.scene.mode;
  }
  at("picture").disabled = false;
  say("ready", "Ready. Choose a picture.");
}

/** Outputs of one run by name, and its milliseconds added to `times`. */
async function infer({ type, data, dims }, times) {
  const begun = performance.now();
  const feeds = { [model.input.name]: new ort.Tensor(type, data, dims) };
  const outputs = await session.run(
    feeds,
    model.outputs.map((output) => output.name),
  );
  times.push(performance.now() - begun);
  return outputs;
}

/** Draws a picture, with the colours of its classes over it where there is a map of them. */
function draw(image, labels = null) {
  const { width, height, channels, data } = image;
  const canvas = at("seen");
  Object.assign(canvas, { width, height });
  canvas.classList.toggle("small", width < 192);
  const drawn = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      const own = data[i * channels + (channels === 1 ? 0 : c)];
      const over = labels ? model.scene.palette[labels[i]][c] : own;
      drawn.data[4 * i + c] = Math.round(OPACITY * over + (1 - OPACITY) * own);
    }
    drawn.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(drawn, 0, 0);
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;

function element(tag, text, ...classes) {
  const made = document.createElement(tag);
  made.textContent = text;
  made.classList.add(...classes);
  return made;
}

function classRow({ index, label, share }) {
  const row = document.createElement("li");
  const meter = document.createElement("meter");
  Object.assign(meter, { min: 0, max: 1, value: share, textContent: percent(share) });
  meter.setAttribute("aria-hidden", "true");
  row.append(element("span", label || `class ${index}`), element("span", percent(share)), meter);
  return row;
}

function areaRow({ index, label, share }) {
  const row = element("li", "", "area");
  const square = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  // Attributes and not a style, which the page's policy would refuse.
  const values = { width: "100%", height: "100%", fill: `rgb(${model.scene.palette[index]})` };
  for (const [key, value] of Object.entries(values)) shape.setAttribute(key, value);
  square.setAttribute("aria-hidden", "true");
  square.append(shape);
  row.append(square, element("span", label), element("span", percent(share)));
  return row;
}

async function classify(image, times) {
  const seen = crop(image, model.image);
  const outputs = await infer(inputOf(seen, model), times);
  const rows = Object.fromEntries(
    Object.entries(outputs).map(([name, tensor]) => [name, rowOf(tensor)]),
  );
  const best = bestClasses(rows, model);
  draw(seen);
  at("seen-name").textContent = `What the model sees: ${seen.width} x ${seen.height} pixels`;
  at("answer-name").textContent = best[0].label || `class ${best[0].index}`;
  at("rows").replaceChildren(...best.map(classRow));
  return { top: best };
}

async function showMap(decoded, times) {
  const image = withChannels(decoded, model.image.channels);
  const progress = async (done, all) => {
    say("busy", `Running window ${done + 1} of ${all} …`);
    await painted();
  };
  const each = (input) => infer(input, times);
  const { labels, windows } = await segment(image, model, at("mode").value, each, progress);
  const areas = classAreas(labels, model);
  draw(image, labels);
  at("seen-name").textContent = `The picture under the colours of its classes; windows: ${windows}`;
  at("answer-name").textContent = `Classes in this picture: ${areas.length}`;
  const rows = areas.slice(0, MOST_ROWS).map(areaRow);
  if (areas.length > MOST_ROWS) rows.push(element("li", `${areas.length - MOST_ROWS} more`));
  at("rows").replaceChildren(...rows);
  return { areas, windows, labels };
}

async function show(file) {
  say("busy", `Running ${file.name} …`);
  await painted();
  const [times, begun] = [[], performance.now()];
  const { image, note } = await decode(file, Boolean(model.scene));
  const decoded = performance.now() - begun;
  const answer = await (model.scene ? showMap : classify)(image, times);
  at("note").textContent = note;
  const [run, whole] = [times.reduce((a, b) => a + b, 0), performance.now() - begun];
  const count = times.length === 1 ? "one run" : `${times.length} runs`;
  at("time").textContent =
    `${count} of the model: ${run.toFixed(0)} ms; decoding ${decoded.toFixed(0)} ms, preparing and ` +
    `drawing ${(whole - run - decoded).toFixed(0)} ms. The first run after loading is slower.`;
  at("answer").hidden = false;
  const { labels, ...plain } = answer;
  at("answer").dataset.answer = JSON.stringify({ file: file.name, times, note, ...plain });
  page.answer = { labels };
  say("done", `${file.name}: ${at("answer-name").textContent}`);
}

/** Runs one picture after the other; of those that come meanwhile the last. */
async function take(file) {
  if (!file || !session) return;
  waiting = file;
  if (isBusy) return;
  isBusy = true;
  while (waiting) {
    shown = waiting;
    waiting = null;
    try {
      await show(shown);
    } catch (error) {
      fail(error, `${shown.name} was not run.`);
    }
    page.dataset.file = shown.name;
  }
  isBusy = false;
}

at("picture").addEventListener("change", ({ target }) => take(target.files[0]));
at("mode").addEventListener("change", () => take(shown));
at("controls").addEventListener("submit", (event) => event.preventDefault());
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
  });
}
document.addEventListener("drop", ({ dataTransfer }) => take(dataTransfer.files[0]));
start().catch((error) => fail(error, "The model cannot be loaded."));
