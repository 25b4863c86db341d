// One picture through one model in onnxruntime-web: `node consumer_web.mjs RUNTIME JOB.json`.
//
// RUNTIME is the folder with its files. JOB.json has the paths `model`, `input` (raw float32) and
// `to`, and the input's `dims`. Output N is left as raw float32 in TO.N; standard output gets the
// list of the outputs' dims.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [runtime, list] = process.argv.slice(2).map((name) => path.resolve(name));
const { model, input, to, dims } = JSON.parse(fs.readFileSync(list, "utf-8"));
const ort = await import(pathToFileURL(path.join(runtime, "ort.wasm.bundle.min.mjs")).href);
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmBinary = fs.readFileSync(path.join(runtime, "ort-wasm-simd-threaded.wasm"));

const bytes = new Uint8Array(fs.readFileSync(input));
try {
  const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(model)), {
    executionProviders: ["wasm"],
  });
  const image = new ort.Tensor("float32", new Float32Array(bytes.buffer), dims);
  const found = await session.run({ [session.inputNames[0]]: image });
  const shapes = session.outputNames.map((name, number) => {
    const { data, dims: shape } = found[name];
    fs.writeFileSync(`${to}.${number}`, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return shape;
  });
  process.stdout.write(JSON.stringify(shapes));
} catch (error) {
  process.stderr.write(String(error.message ?? error));
  process.exitCode = 1;
}
