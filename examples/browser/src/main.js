// Joins the parts: pad, learner, pathway, digits, store.

import { Digits, shrink } from "./digits.js";
import { Learner } from "./learner.js";
import { makePad } from "./pad.js";
import { Pathway } from "./pathway.js";
import { build } from "./safetensors.js";
import * as store from "./store.js";

const EPOCHS = 8;
const REPEATS = 6;
const element = (id) => document.getElementById(id);
const drawings = { images: [], labels: [] };

async function start() {
  const plan = await (await fetch(new URL("model/pathway.json", document.baseURI))).json();
  const [learner, digits] = await Promise.all([Learner.load(), Digits.load()]);
  const kept = await store.load();
  if (kept) learner.restore(kept);
  const page = { learner, digits, pathway: new Pathway(element("pathway"), plan), busy: false };
  page.pad = makePad(element("pad"), () => answer(page));
  for (let digit = 0; digit < 10; digit += 1) {
    const button = document.createElement("button");
    button.textContent = String(digit);
    button.addEventListener("click", () => alone(page, () => learnDrawing(page, digit)));
    element("labels").append(button);
  }
  element("clear").addEventListener("click", () => clear(page));
  element("train").addEventListener("click", () => alone(page, () => train(page)));
  element("save").addEventListener("click", () => download(page));
  element("forget").addEventListener("click", () => alone(page, () => forget(page)));
  await measure(page);
  element("status").textContent = kept ? "Ready, with the weights of last time." : "Ready.";
}

/** One thing at a time: two steps at once would lose one of them. */
async function alone(page, work) {
  if (page.busy) return;
  page.busy = true;
  element("status").textContent = "Working...";
  try {
    await work();
    element("status").textContent = "Ready.";
  } catch (error) {
    element("status").textContent = `Failed: ${error.message}`;
  } finally {
    page.busy = false;
  }
}

function show(page, { loss, errors }) {
  element("loss").textContent = loss.toFixed(3);
  element("steps").textContent = String(page.learner.steps);
  page.pathway.show(errors);
}

const nextFrame = () => new Promise((resolve) => setTimeout(resolve));

async function train(page) {
  const total = EPOCHS * page.digits.batchesInEpoch();
  for (let epoch = 0, done = 0; epoch < EPOCHS; epoch += 1) {
    for (const { images, labels } of page.digits.epoch()) {
      show(page, await page.learner.learn(images, labels));
      done += 1;
      element("progress").value = done / total;
      if (done % 4 === 0) await nextFrame();
    }
  }
  await measure(page);
  await store.save(page.learner.snapshot());
}

async function measure(page) {
  const { images, labels } = page.digits.held();
  const answers = await page.learner.classify(images, labels.length);
  const right = answers.filter((found, index) => found === labels[index]).length;
  element("accuracy").textContent = `${((100 * right) / labels.length).toFixed(1)} %`;
  element("steps").textContent = String(page.learner.steps);
}

async function answer(page) {
  const image = shrink(element("pad"));
  if (image === null || page.busy) return;
  const [found] = await page.learner.classify(image, 1);
  element("answer").textContent = String(found);
}

/** Learns from the drawing, and again from the ones before it, so that they are not forgotten. */
async function learnDrawing(page, digit) {
  const image = shrink(element("pad"));
  if (image === null) return;
  drawings.images.push(image);
  drawings.labels.push(digit);
  const all = new Float32Array(drawings.images.length * image.length);
  drawings.images.forEach((one, at) => all.set(one, at * one.length));
  for (let repeat = 0; repeat < REPEATS; repeat += 1) {
    show(page, await page.learner.learn(all, drawings.labels));
    await nextFrame();
  }
  element("drawn").textContent = `Learnt from ${drawings.labels.length} drawings.`;
  clear(page);
  await store.save(page.learner.snapshot());
}

function clear(page) {
  page.pad.clear();
  element("answer").textContent = "-";
}

function download(page) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(build(page.learner.stateDict()));
  link.download = "weights.safetensors";
  link.click();
  URL.revokeObjectURL(link.href);
}

async function forget(page) {
  await store.forget();
  page.learner.reset();
  element("progress").value = 0;
  await measure(page);
}

start().catch((error) => {
  element("status").textContent = `Failed: ${error.message}`;
});
