// Opens the built page in Chromium and does what a visitor does. Prints what it found, as JSON.
//
//     CHROMIUM=/usr/bin/chromium node test/end_to_end.mjs weights.safetensors

import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { serve } from "./serve.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const LONG = 240_000;

const text = (page, id) => page.locator(`#${id}`).textContent();
const share = async (page) => parseFloat(await text(page, "accuracy"));

async function ready(page) {
  await page.waitForFunction(() => document.getElementById("status").textContent.startsWith("Ready"), null, { timeout: LONG });
}

async function sizes(page) {
  return page.$$eval("[data-error]", (found) => Object.fromEntries(found.map((e) => [e.dataset.error, e.textContent])));
}

/** Draws a one, says that it is one, and waits until it is learnt. */
async function draw(page) {
  const box = await page.locator("#pad").boundingBox();
  await page.mouse.move(box.x + 128, box.y + 40);
  await page.mouse.down();
  await page.mouse.move(box.x + 128, box.y + 215, { steps: 8 });
  await page.mouse.up();
  await page.locator("#labels button", { hasText: "1" }).click();
  await page.waitForFunction(() => document.getElementById("drawn").textContent.startsWith("Learnt"), null, { timeout: LONG });
  await ready(page);
}

const server = await serve(resolve(HERE, "..", "dist"));
const origin = `http://127.0.0.1:${server.address().port}`;
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, headless: true, args: FLAGS });
const found = { problems: [], elsewhere: [] };
try {
  const page = await browser.newPage({ acceptDownloads: true });
  page.on("request", (request) => {
    const url = request.url();
    if (!/^(blob|data):/.test(url) && !url.startsWith(`${origin}/`)) found.elsewhere.push(url);
    if (request.method() !== "GET") found.elsewhere.push(`${request.method()} ${url}`);
  });
  page.on("pageerror", (error) => found.problems.push(String(error)));
  page.on("console", (message) => message.type() === "error" && found.problems.push(message.text()));
  await page.goto(origin);
  await ready(page);
  found.untrained = await share(page);
  found.connections = await page.$$eval("[data-connection]", (all) => all.map((one) => one.dataset.connection));
  await draw(page);
  found.errors = await sizes(page);
  found.drawnSteps = Number(await text(page, "steps"));
  await page.locator("#train").click();
  await page.waitForFunction(() => document.getElementById("progress").value > 0.05, null, { timeout: LONG });
  found.errorsInTraining = await sizes(page);
  await page.waitForFunction(() => document.getElementById("progress").value === 1, null, { timeout: LONG });
  await ready(page);
  found.trained = await share(page);
  found.steps = Number(await text(page, "steps"));
  await page.reload();
  await ready(page);
  found.reloaded = await share(page);
  found.reloadedSteps = Number(await text(page, "steps"));
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#save").click()]);
  await download.saveAs(process.argv[2] ?? "weights.safetensors");
  await page.locator("#forget").click();
  await page.waitForFunction(() => document.getElementById("steps").textContent === "0", null, { timeout: LONG });
  await ready(page);
  found.forgotten = await share(page);
} finally {
  await browser.close();
  server.close();
}
console.log(JSON.stringify(found));
