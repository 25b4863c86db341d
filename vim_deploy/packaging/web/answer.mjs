// What the model's outputs say: the best classes of a picture, as vim-deploy run prints them.

import { fromHalf } from "./prepare.mjs";

/** The numbers of an output of ONNX Runtime as plain ones; only its first row. */
export function rowOf(tensor) {
  const length = tensor.data.length / tensor.dims[0];
  const values = tensor.data.subarray(0, length);
  if (tensor.type === "float16" && values instanceof Uint16Array) {
    return Float32Array.from(values, fromHalf);
  }
  return tensor.type === "int64" ? Array.from(values, Number) : values;
}

/** Throws where there are numbers that are none. */
export function requireFinite(values) {
  let strays = 0;
  for (const value of values) strays += Number.isFinite(value) ? 0 : 1;
  if (strays) {
    throw new Error(
      `The model gave no answer for this picture: ${strays} of ${values.length} numbers are ` +
        "NaN or infinite (VIM-430).",
    );
  }
}

/** exp(x) / sum(exp(x)); one logit is that of class 1 against class 0, whose is 0. */
function softmax(logits) {
  const values = logits.length === 1 ? [0, logits[0]] : Array.from(logits);
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/**
 * The best classes, the most probable first: {index, label, share} each.
 *
 * @param outputs the first row of each output, by name.
 * @param model says what they are (`outputs`) and the names of classes (`labels`).
 */
export function bestClasses(outputs, model, count = 5) {
  const named = model.outputs.find((output) => output.holds === "classes");
  const scores = model.outputs.find((output) => output.holds !== "classes");
  const values = outputs[scores.name];
  requireFinite(values);
  const shares = scores.holds === "logits" ? softmax(values) : Array.from(values);
  const classes = named ? outputs[named.name] : shares.map((_, index) => index);
  // An older file of a model with one logit, for two classes, has one name.
  const labels = model.labels.length === 1 ? [] : model.labels;
  // Sorting keeps the order of equals, which is that of the classes.
  const order = shares.map((_, place) => place).sort((a, b) => shares[b] - shares[a]);
  return order.slice(0, count).map((place) => {
    const index = classes[place];
    return { index, label: labels[index] ?? "", share: shares[place] };
  });
}
