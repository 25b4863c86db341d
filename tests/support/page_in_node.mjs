// What a page computes, under node: `node page_in_node.mjs FOLDER JOBS.json`.
//
// FOLDER is a package for the browser. Each job is one object of JOBS.json; its answer stands at the
// same place of the list that is written to standard output. Arrays go through files of raw bytes.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [folder, list] = process.argv.slice(2);
const part = (name) => import(pathToFileURL(path.resolve(folder, name)).href);
const prepare = await part("prepare.mjs");
const answer = await part("answer.mjs");
const scene = await part("scene.mjs");
const decode = await part("decode.mjs");
const ort = await part("runtime/ort.wasm.bundle.min.mjs");
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmBinary = fs.readFileSync(
  path.join(folder, "runtime/ort-wasm-simd-threaded.wasm"),
);

const ARRAYS = { float32: Float32Array, uint8: Uint8Array, float16: Uint16Array };

function read(file, type = "uint8") {
  const bytes = new Uint8Array(fs.readFileSync(file));
  return new ARRAYS[type](bytes.buffer);
}

function write(file, data) {
  fs.writeFileSync(file, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

async function sessionOf(job) {
  const beside = (job.beside ?? []).map(({ path: name, file }) => ({ path: name, data: read(file) }));
  return ort.InferenceSession.create(read(job.model), {
    executionProviders: ["wasm"],
    externalData: beside,
  });
}

const picture = ({ width, height, channels, file }) => ({
  width,
  height,
  channels,
  data: read(file),
});

const KINDS = {
  // A model's outputs for an input: their sizes by name; the numbers in files TO.NAME.
  async infer(job) {
    const session = await sessionOf(job);
    const feeds = { [session.inputNames[0]]: new ort.Tensor(job.type, read(job.input, job.type), job.dims) };
    const outputs = await session.run(feeds);
    await session.release();
    return Object.entries(outputs).map(([name, { type, dims, data }]) => {
      write(`${job.to}.${name}`, data);
      return { name, type, dims };
    });
  },
  // A picture cropped, and as a model's input.
  async input(job) {
    const cropped = prepare.crop(picture(job.picture), job.model.image);
    write(`${job.to}.crop`, cropped.data);
    const { type, data, dims } = prepare.inputOf(cropped, job.model);
    write(`${job.to}.input`, data);
    return { type, dims };
  },
  async halves({ values, bits }) {
    return { bits: values.map(prepare.toHalf), values: bits.map(prepare.fromHalf) };
  },
  async best({ outputs, model }) {
    return answer.bestClasses(outputs, model);
  },
  async segment(job) {
    const session = await sessionOf(job);
    const infer = ({ type, data, dims }) =>
      session.run({ [job.facts.input.name]: new ort.Tensor(type, data, dims) });
    const { labels, windows } = await scene.segment(picture(job.picture), job.facts, job.mode, infer);
    write(job.to, labels);
    return { windows, areas: scene.classAreas(labels, job.facts) };
  },
  async alpha(job) {
    const { image } = await decode.decode(new Blob([read(job.file)]), false);
    write(job.to, image.data);
    return { width: image.width, height: image.height, channels: image.channels };
  },
};

const answers = [];
for (const job of JSON.parse(fs.readFileSync(list, "utf-8"))) {
  try {
    answers.push({ answer: await KINDS[job.kind](job) });
  } catch (error) {
    answers.push({ error: String(error.message ?? error) });
  }
}
process.stdout.write(JSON.stringify(answers));
