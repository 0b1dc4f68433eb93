// A step file, and the state that goes round. The contract says what goes in and what comes out.

import * as ort from "onnxruntime-web/wasm";
import wasm from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";

import { parse } from "./safetensors.js";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL(wasm, document.baseURI).href };

const TYPES = { F32: "float32", I64: "int64" };

async function fetched(name) {
  const response = await fetch(new URL(`model/${name}`, document.baseURI));
  if (!response.ok) throw new Error(`${name} is missing: run make_step.py first`);
  return response;
}

export class Learner {
  static async load() {
    const contract = await (await fetched("step.json")).json();
    const model = await (await fetched("step.onnx")).arrayBuffer();
    const initial = parse(await (await fetched(contract.initial)).arrayBuffer());
    const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
    return new Learner(contract, session, initial);
  }

  constructor(contract, session, initial) {
    this.contract = contract;
    this.session = session;
    this.initial = initial;
    this.input = contract.inputs.find((head) => head.part === "input");
    this.target = contract.inputs.find((head) => head.part === "target");
    this.reset();
  }

  /** Goes back to the first weights. */
  reset() {
    this.restore(this.initial);
  }

  /** Takes a map from name to {dtype, shape, data}. */
  restore(values) {
    this.state = {};
    for (const { name } of this.contract.states) {
      const { dtype, shape, data } = values[name];
      this.state[name] = new ort.Tensor(TYPES[dtype], data.slice(), shape);
    }
  }

  /** What `restore` takes. */
  snapshot() {
    const dtypes = { float32: "F32", int64: "I64" };
    const entry = (tensor) => ({ dtype: dtypes[tensor.type], shape: [...tensor.dims], data: tensor.data.slice() });
    return Object.fromEntries(Object.entries(this.state).map(([name, tensor]) => [name, entry(tensor)]));
  }

  /** The state by its keys in `net.state_dict()`. */
  stateDict() {
    return Object.fromEntries(this.contract.states.map(({ name, state_dict: key }) => [key, this.state[name]]));
  }

  get steps() {
    return Number(this.state["state.step"].data[0]);
  }

  async run(images, labels) {
    const count = labels.length;
    const feeds = { ...this.state };
    feeds[this.input.name] = new ort.Tensor("float32", images, [count, ...this.input.shape.slice(1)]);
    feeds[this.target.name] = new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [count]);
    for (const { name, dtype, default: value } of this.contract.scalars) {
      const data = dtype === "int64" ? BigInt64Array.of(BigInt(value)) : Float32Array.of(value);
      feeds[name] = new ort.Tensor(dtype, data, []);
    }
    return this.session.run(feeds);
  }

  /** Learns from one batch. Gives the loss, and the size of each region's error. */
  async learn(images, labels) {
    const made = await this.run(images, labels);
    for (const { name, next } of this.contract.states) if (next) this.state[name] = made[next];
    const errors = {};
    for (const name of Object.keys(made)) {
      if (name.startsWith("error.")) errors[name.slice("error.".length)] = made[name].data[0];
    }
    return { loss: made.loss.data[0], errors };
  }

  /** The most likely class of each image; what the step would have learnt is thrown away. */
  async classify(images, count) {
    const { prediction } = await this.run(images, new Array(count).fill(0));
    const classes = prediction.dims[1];
    return Array.from({ length: count }, (_, row) => {
      const scores = prediction.data.subarray(row * classes, (row + 1) * classes);
      return scores.indexOf(Math.max(...scores));
    });
  }
}
