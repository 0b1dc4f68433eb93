// Draws the regions in a row, the way forward between them, and the connections that carry errors.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, GAP, HEIGHT, TOP, BAR] = [70, 45, 40, 150, 80];

function add(parent, kind, attributes, text = "") {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

export class Pathway {
  /** @param plan {regions: [name], connections: [{source, target}]} */
  constructor(svg, plan) {
    this.bars = {};
    this.greatest = 1e-6;
    const place = Object.fromEntries(plan.regions.map((name, index) => [name, index * (WIDTH + GAP) + 10]));
    svg.setAttribute("viewBox", `0 0 ${plan.regions.length * (WIDTH + GAP)} ${TOP + HEIGHT + 95}`);
    plan.regions.forEach((name, index) => this.#region(svg, name, place[name], index));
    plan.connections.forEach(({ source, target }, index) => {
      const [from, to] = [place[source] + WIDTH / 2, place[target] + WIDTH / 2];
      const low = TOP + HEIGHT + 30 + 25 * index;
      const bow = `M ${from} ${TOP + HEIGHT} C ${from} ${low}, ${to} ${low}, ${to} ${TOP + HEIGHT}`;
      add(svg, "path", { class: "skip", d: bow, "data-connection": `${source}->${target}` });
    });
  }

  #region(svg, name, x, index) {
    if (index) {
      const y = TOP + HEIGHT / 2;
      add(svg, "line", { class: "forward", x1: x - GAP, x2: x, y1: y, y2: y });
    }
    add(svg, "rect", { class: "region", x, y: TOP, width: WIDTH, height: HEIGHT, rx: 6 });
    add(svg, "text", { x: x + WIDTH / 2, y: TOP + HEIGHT / 2 + 4 }, name);
    const bar = add(svg, "rect", { class: "error", x: x + 20, y: TOP - 10, width: WIDTH - 40, height: 0 });
    const number = add(svg, "text", { x: x + WIDTH / 2, y: TOP - 105, "data-error": name }, "-");
    this.bars[name] = { bar, number };
  }

  /** @param errors the size of each region's error, by name */
  show(errors) {
    this.greatest = Math.max(this.greatest * 0.98, ...Object.values(errors));
    for (const [name, { bar, number }] of Object.entries(this.bars)) {
      const height = (BAR * (errors[name] ?? 0)) / this.greatest;
      bar.setAttribute("height", height);
      bar.setAttribute("y", TOP - 10 - height);
      number.textContent = (errors[name] ?? 0).toPrecision(2);
    }
  }
}
