// Shows a graph that can be asked. What it shows stands in the page as JSON; see inspector.py for its form.
(() => {
  const data = JSON.parse(document.getElementById("altprop-data").textContent);
  const at = (name) => document.getElementById(`altprop-${name}`);
  const ROW = 62;
  const nodes = new Map(data.nodes.map((node) => [node.id, node]));
  const blocks = new Map();
  for (const node of data.nodes) {
    if (node.kind === "region" && node.block) {
      blocks.set(node.block, [...(blocks.get(node.block) || []), node]);
    }
  }
  const state = { folded: new Set(), pass: Math.max(data.passes.length - 1, 0), colour: "plain" };
  const stage = () => (data.passes.length ? data.passes[state.pass].stage : 1);
  const wantsStage = { error: 2, "loss-gradient": 2, activity: 2, loss: 2, "skip-error": 3 };

  // Where a thing stands when its block is folded.
  const home = (node) => {
    if (!node.block || !state.folded.has(node.block)) return node.id;
    return node.kind === "error" ? `errors of ${node.block}` : `block ${node.block}`;
  };

  // Green for 0 degrees, red for 90 and more.
  const hue = (share) => `hsl(${Math.round(120 * (1 - Math.min(Math.max(share, 0), 1)))}, 65%, 82%)`;
  const largest = Math.max(1e-30, ...data.nodes.map((node) => node.size || 0));
  const fill = (node) => {
    if (node.kind === "error" && state.colour === "plain") return "#fdece6";
    if (state.colour === "angle" && node.angle !== null) return hue(node.angle / 90);
    if (state.colour === "size" && node.size !== null) return hue(node.size / largest);
    if (node.kind === "loss") return "#b5432a";
    if (node.kind === "input" || node.kind === "output") return "#ffffff";
    return node.frozen ? "#f3f4f6" : "#eef3fb";
  };

  // A folded block has the colour of the mean of what is in it.
  const known = (inside, what) => inside.map((node) => node[what]).filter((value) => value !== null);
  const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);

  function foldedNodes() {
    const made = [];
    for (const block of state.folded) {
      const inside = blocks.get(block);
      const x = inside.reduce((sum, node) => sum + node.x, 0) / inside.length;
      const width = Math.max(...inside.map((node) => node.width), 8 * block.length + 30);
      const sub = `${inside.length} regions`;
      const details = { block, regions: inside.map((node) => `${node.id}: ${node.sub}`).join("\n") };
      const base = { block, angle: mean(known(inside, "angle")), size: mean(known(inside, "size")), y: inside[0].y, details };
      made.push({ ...base, id: `block ${block}`, kind: "block", label: block, sub, x, width });
      const errors = data.nodes.filter((node) => node.kind === "error" && node.block === block);
      if (errors.length) {
        const more = { id: `errors of ${block}`, kind: "error", label: `${errors.length} e`, sub: "", width: 46 };
        made.push({ ...base, ...more, x: errors[0].x, region: `block ${block}` });
      }
    }
    return made;
  }

  function visibleNodes() {
    const kept = data.nodes.filter((node) => home(node) === node.id && (wantsStage[node.kind] || 0) <= stage());
    const shown = [...kept, ...foldedNodes().filter((node) => (wantsStage[node.kind] || 0) <= stage())];
    const rows = [...new Set(shown.map((node) => Math.round(node.y)))].sort((a, b) => a - b);
    return shown.map((node) => ({ ...node, y: rows.indexOf(Math.round(node.y)) * ROW }));
  }

  // What was captured, before any pass: an operator a box.
  function operatorElements() {
    const rows = new Map(data.operators.nodes.map((node) => [node.id, node.y]));
    const boxes = data.operators.nodes.map((node) => ({
      data: { ...node, fill: "#ffffff", text: node.details.shape ? `${node.label}\n${node.details.shape}` : node.label },
      position: { x: node.x, y: node.y },
      classes: "operator",
    }));
    const arrows = data.operators.edges.map((edge) => {
      const span = rows.get(edge.target) - rows.get(edge.source);
      const far = span > 60;
      return { data: { ...edge, colour: "#4a5568", bend: far ? -110 - 16 * (span / 56) ** 0.8 : 0 },
        classes: far ? "forward far" : "forward" };
    });
    return [...boxes, ...arrows];
  }

  function elements() {
    if (stage() === 0) return operatorElements();
    const shown = visibleNodes();
    const names = new Set(shown.map((node) => node.id));
    const made = shown.map((node) => ({
      data: { ...node, fill: fill(node), text: node.sub ? `${node.label}\n${node.sub}` : node.label },
      position: { x: node.x, y: node.y },
      classes: node.kind,
    }));
    const bands = new Map();
    for (const node of shown) {
      if (node.kind === "region" && node.block) bands.set(node.block, true);
    }
    for (const block of bands.keys()) {
      made.push({ data: { id: `band ${block}`, kind: "band", label: block, block, details: { block } }, classes: "band" });
    }
    for (const one of made) {
      if (one.data.kind === "region" && bands.has(one.data.block)) one.data.parent = `band ${one.data.block}`;
    }
    const seen = new Set();
    for (const edge of data.edges) {
      const source = home(nodes.get(edge.source));
      const target = home(nodes.get(edge.target));
      const key = `${source}|${target}|${edge.kind}`;
      const folded = source !== edge.source || target !== edge.target;
      if ((wantsStage[edge.kind] || 0) > stage() || source === target || !names.has(source) || !names.has(target)) continue;
      if (folded && seen.has(key)) continue;
      seen.add(key);
      const plain = stage() < 4;
      const colour = edge.kind === "skip-error" && !plain ? data.colours[edge.feedback] : undefined;
      const span = Math.abs(place(shown, source) - place(shown, target)) / ROW;
      // The middle of a curve stands half as far off as its control point: errors to the right, ties to the left, and
      // values that go past a box too.
      const widest = Math.max(...shown.map((node) => node.width));
      const far = edge.kind === "forward" && span > 1;
      const bend = edge.kind === "tied" ? -widest - 160 : far ? -widest - 20 * span : 26 + 34 * span ** 0.72;
      const up = place(shown, target) < place(shown, source) ? 1 : -1;
      made.push({
        data: { ...edge, source, target, colour: colour || "#4a5568", bend: bend * up, fixed: !plain && !edge.learned },
        classes: far ? "forward far" : edge.kind,
      });
    }
    return made;
  }

  const place = (shown, id) => shown.find((node) => node.id === id).y;

  const look = [
    { selector: "node[text]", style: { label: "data(text)" } },
    { selector: "node", style: { "font-size": 11, "text-valign": "center", "text-wrap": "wrap",
      "border-width": 1, "border-color": "#3b6ea8", color: "#1f2430",
      shape: "round-rectangle", height: 40, "min-zoomed-font-size": 5 } },
    { selector: "node[width]", style: { width: "data(width)" } },
    { selector: "node[fill]", style: { "background-color": "data(fill)" } },
    { selector: ".band", style: { label: "data(label)", "background-color": "#f6f7f9", "border-color": "#d5dae3",
      "text-valign": "top", "text-halign": "right", "font-size": 10, color: "#5a6272", padding: 6 } },
    { selector: ".block", style: { "border-style": "double", "border-width": 4 } },
    { selector: "node[?output]", style: { "border-width": 2.5 } },
    { selector: "node[?frozen]", style: { "border-color": "#9aa3b2" } },
    { selector: ".input, .output", style: { "border-color": "#9aa3b2", height: 26 } },
    { selector: ".operator", style: { "border-color": "#9aa3b2", height: 34, "font-size": 10 } },
    { selector: ".error", style: { shape: "ellipse", width: 30, height: 30, "border-color": "#b5432a", color: "#b5432a" } },
    { selector: ".loss", style: { color: "white", "border-color": "#b5432a", width: 56, height: 28 } },
    { selector: "edge", style: { width: 1.2, "line-color": "data(colour)", "target-arrow-color": "data(colour)",
      "target-arrow-shape": "triangle", "arrow-scale": 0.8, "curve-style": "bezier" } },
    { selector: ".far", style: { "curve-style": "unbundled-bezier", "control-point-distances": "data(bend)",
      "control-point-weights": 0.5 } },
    { selector: ".activity", style: { "line-style": "dotted", "line-color": "#8a94a6", "target-arrow-shape": "none",
      width: 0.8 } },
    { selector: ".loss-gradient", style: { "line-color": "#b5432a", "target-arrow-color": "#b5432a", width: 2.4 } },
    { selector: ".skip-error", style: { "curve-style": "unbundled-bezier", "control-point-distances": "data(bend)",
      "control-point-weights": 0.5, "source-endpoint": "90deg", "target-endpoint": "90deg" } },
    { selector: ".skip-error[?fixed]", style: { "line-style": "dashed" } },
    { selector: ".tied", style: { "line-style": "dotted", "line-color": "#a16207", "target-arrow-shape": "none", width: 2,
      "curve-style": "unbundled-bezier", "control-point-distances": "data(bend)", "control-point-weights": 0.5,
      "source-endpoint": "270deg", "target-endpoint": "270deg", label: "tied", "font-size": 10, color: "#a16207",
      "text-background-color": "#ffffff", "text-background-opacity": 1, "text-background-padding": 2 } },
    { selector: ".dim", style: { opacity: 0.12 } },
    { selector: ".lit", style: { "border-width": 3, "z-index": 9 } },
    { selector: "edge.lit", style: { width: 3, "z-index": 9 } },
  ];
  const cy = cytoscape({ container: at("graph"), elements: [], style: look, minZoom: 0.05, maxZoom: 4 });

  // What the colours of lines and boxes mean, of those that are there now.
  function key() {
    const lines = [];
    const line = (colour, style, text) => lines.push([`border-top: 2px ${style} ${colour}`, text]);
    const any = (kind) => cy.edges(kind).nonempty();
    if (any(".forward")) line("#4a5568", "solid", "values of the forward");
    if (any(".loss-gradient")) line("#b5432a", "solid", "gradient of the loss");
    const wires = cy.edges(".skip-error").map((edge) => edge.data());
    for (const kind of new Set(wires.map((wire) => wire.feedback))) {
      for (const fixed of [false, true]) {
        const one = wires.find((wire) => wire.feedback === kind && Boolean(wire.fixed) === fixed);
        if (one) line(one.colour, fixed ? "dashed" : "solid", stage() < 4 ? "errors" : `errors, ${kind} feedback, ${fixed ? "fixed" : "learned"}`);
      }
      if (stage() < 4) break;
    }
    if (any(".tied")) line("#a16207", "dotted", "the same weights");
    const swatch = (share) => `background: ${hue(share)}; height: 0.8em; align-self: center`;
    if (state.colour === "angle") {
      lines.push([swatch(0), "0 degrees: the update is the gradient"], [swatch(0.5), "45 degrees"],
        [swatch(1), "90 degrees and more: it does not lower the loss"]);
    }
    if (state.colour === "size") lines.push([swatch(0), "small errors"], [swatch(1), `large errors, ${largest.toPrecision(3)}`]);
    at("key").replaceChildren(...lines.map(([style, text]) => {
      const row = document.createElement("li");
      const mark = document.createElement("span");
      mark.style.cssText = style;
      row.append(mark, text);
      return row;
    }));
  }

  function draw(fit) {
    cy.elements().remove();
    cy.add(elements());
    key();
    const pass = data.passes[state.pass];
    at("did").textContent = pass ? `${pass.name}${pass.did ? `: ${pass.did}` : ""}` : "";
    if (fit) show();
  }

  // All of a small graph; of a tall one the top, at a size that can be read.
  function show() {
    cy.fit(undefined, 24);
    if (cy.zoom() > 1.4) cy.zoom({ level: 1.4, renderedPosition: { x: cy.width() / 2, y: cy.height() / 2 } });
    if (cy.zoom() < 0.75) {
      const box = cy.elements().boundingBox();
      const zoom = Math.max(0.55, Math.min(0.95, (cy.width() - 40) / box.w));
      cy.viewport({ zoom, pan: { x: cy.width() / 2 - (zoom * (box.x1 + box.x2)) / 2, y: 20 - zoom * box.y1 } });
    }
  }

  function tell(element) {
    const values = element.data();
    const names = { "skip-error": values.details && values.details.connection, error: `error neurons of ${values.region}` };
    at("head").textContent = names[values.kind] || values.label || values.kind;
    const list = at("details");
    list.replaceChildren();
    const more = { ...(values.details || {}) };
    if (values.angle !== undefined && values.angle !== null) more["angle "] = `${values.angle.toFixed(1)} degrees to the gradient`;
    if (values.size !== undefined && values.size !== null) more["error "] = values.size.toPrecision(3);
    for (const [key, value] of Object.entries(more)) {
      if (!value) continue;
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      term.textContent = key;
      text.textContent = value;
      list.append(term, text);
    }
  }

  const isError = (element) => ["error", "skip-error", "loss-gradient"].includes(element.data("kind"));

  // The way of an error is where it comes from and where it goes on to; the way of a value likewise.
  function way(element) {
    const kinds = isError(element) ? ".skip-error, .loss-gradient" : ".forward";
    const walk = (start, next) => {
      let found = start;
      for (let fresh = start; fresh.nonempty(); ) {
        const edges = next(fresh).filter(kinds);
        fresh = edges.connectedNodes().difference(found);
        found = found.union(edges).union(edges.connectedNodes());
      }
      return found;
    };
    const from = element.isEdge() ? element.source() : element;
    const to = element.isEdge() ? element.target() : element;
    const all = walk(from, (set) => set.incomers("edge")).union(walk(to, (set) => set.outgoers("edge")));
    return all.union(element).union(element.neighborhood(".tied"));
  }

  function light(element) {
    clear();
    const lit = way(element);
    cy.elements().not(".band").difference(lit).addClass("dim");
    lit.addClass("lit");
    tell(element);
  }

  function clear() {
    cy.elements().removeClass("dim lit");
  }

  function fold(block) {
    if (!state.folded.delete(block)) state.folded.add(block);
    draw(false);
  }

  cy.on("tap", (event) => (event.target === cy ? clear() : light(event.target)));
  cy.on("dbltap", "node", (event) => {
    const { block, kind } = event.target.data();
    if (block && kind !== "error") fold(block);
  });
  cy.on("mouseover", "node, edge", (event) => {
    const details = Object.entries(event.target.data("details") || {}).filter((pair) => pair[1]);
    const box = at("hover");
    if (!details.length) return;
    box.textContent = details.map(([key, value]) => `${key}: ${value}`).join("\n");
    box.style.left = `${event.renderedPosition.x + 16}px`;
    box.style.top = `${event.renderedPosition.y + 56}px`;
    box.hidden = false;
  });
  cy.on("mouseout pan zoom", () => { at("hover").hidden = true; });

  at("pass").max = Math.max(data.passes.length - 1, 0);
  at("pass").value = state.pass;
  at("pass").addEventListener("input", (event) => {
    const before = stage();
    state.pass = Number(event.target.value);
    draw((before === 0) !== (stage() === 0));
  });
  at("colour").addEventListener("change", (event) => { state.colour = event.target.value; draw(false); });
  at("colour-label").hidden = !data.measured;
  at("fit").addEventListener("click", () => cy.fit(undefined, 24));
  at("fold").hidden = !blocks.size;
  at("fold").addEventListener("click", () => {
    const all = state.folded.size === blocks.size;
    state.folded = new Set(all ? [] : blocks.keys());
    at("fold").textContent = all ? "fold blocks" : "unfold blocks";
    draw(true);
  });
  for (const row of data.order) {
    const line = document.createElement("li");
    line.className = row.what;
    line.textContent = `${row.what} ${row.region}`;
    line.addEventListener("click", () => {
      const found = cy.getElementById(home(nodes.get(row.node)));
      if (found.nonempty()) { light(found); cy.animate({ center: { eles: found }, duration: 200 }); }
    });
    at("order").append(line);
  }
  at("schedule").textContent = data.schedule;
  at("schedule-head").hidden = at("schedule").hidden = !data.schedule;
  draw(true);
  window.altpropInspector = { cy, state, data, draw, fold, light };
})();
