"use strict";
// Switches, charts and images of the page. What is said in words and tables stands in the document without it.

const data = JSON.parse(document.getElementById("data").textContent);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const one = (selector, inside = document) => inside.querySelector(selector);
const state = { part: 0, attack: data.attack, eps: null, image: 0, floor: 0, shown: new Set() };
const charts = new Map();
let pixels = null;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

async function unpacked(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), letter => letter.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")));
}

// ---- the part of the grid that is shown ----

const part = () => data.parts[state.part];
const attacks = () => [...new Set(part().points.concat(part().cells).map(row => row.attack))];
const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const tone = colour => (dark() && Object.hasOwn(data.dark, colour) ? data.dark[colour] : colour);
const label = row => data.columns[row.column].label;
const chosenCells = () => part().cells.filter(cell => cell.attack === state.attack && cell.eps === state.eps && state.shown.has(cell.column));

function nearestPart(name, value) {
  // The part that differs least from the present one, with one switch set: not every combination was asked for.
  const wanted = { ...part().place, [name]: value };
  const agreement = each => Object.keys(wanted).filter(key => each.place[key] === wanted[key]).length;
  const fitting = data.parts.filter(each => each.place[name] === value);
  return data.parts.indexOf(fitting.reduce((best, each) => (agreement(each) > agreement(best) ? each : best)));
}

function switched(event) {
  const { name, value } = event.target;
  if (name === "attack") state.attack = value;
  else state.part = nearestPart(name, value);
  refresh();
}

function refresh() {
  const possible = attacks();
  if (!possible.includes(state.attack)) state.attack = possible[0] ?? null;
  for (const input of all(".switches input")) {
    const current = input.name === "attack" ? state.attack : part().place[input.name];
    input.checked = input.value === current;
    if (input.name === "attack") input.disabled = !possible.includes(input.value);
    input.parentElement.hidden = input.disabled;
  }
  for (const block of all("[data-part]")) {
    const one_a_chapter = ["tradeoff", "cost"].includes(block.closest("section").id);
    block.hidden = Number(block.dataset.part) !== (one_a_chapter ? part().chapter : state.part);
  }
  for (const block of all("[data-attack]")) block.hidden = block.dataset.attack !== state.attack;
  drawAccuracy();
  drawTradeoff();
  setBudgets();
  drawImages();
}

// ---- charts ----

async function draw(name, chart, rows, react = () => {}) {
  const box = one(`[data-chart="${name}"]`);
  if (!box) return;
  box.hidden = !chart;
  if (!chart) return;
  const dressed = JSON.parse(JSON.stringify(chart), (key, value) => (key === "legend" ? null : tone(value)));  // buttons name the lines
  const specification = chart.facet ? dressed : { width: "container", height: 320, ...dressed };
  if (rows) specification.data = { values: rows };
  if (chart.facet) fit(specification, new Set(specification.data.values.map(row => row.model)).size, box.clientWidth);
  const turn = (charts.get(name)?.turn ?? 0) + 1;
  charts.set(name, { turn });
  const target = element("div");
  box.replaceChildren(target);
  const drawn = await vegaEmbed(target, specification, { renderer: "svg", actions: false, config: data.look });
  if (charts.get(name).turn !== turn) return drawn.finalize();
  charts.set(name, { turn, view: drawn.view });
  react(drawn.view);
}

function fit(specification, panels, width) {
  specification.columns = width > 620 ? Math.min(panels, 2) : 1;
  specification.spec.width = Math.max(170, Math.floor(width / specification.columns) - 75);
}

function drawAccuracy() {
  const rows = part().points.filter(point => point.attack === state.attack && state.shown.has(point.column));
  const chart = { ...part().chart, description: `${part().chart.description}, ${state.attack}, ${part().title}` };
  draw("accuracy", rows.length ? chart : null, rows);
  const threats = [...new Set(part().points.map(point => point.threat))];
  const box = one('[data-chart="accuracy"]');
  if (part().several && rows.length) box.prepend(element("p", { className: "soft", textContent: `Solid: ${threats[0]}. Dashed: ${threats.slice(1).join(", ")}.` }));
}

function drawTradeoff() {
  const found = data.parts[part().chapter].tradeoff;
  const rows = (found?.items ?? []).filter(item => state.shown.has(item.column));
  draw("tradeoff", rows.length ? found.chart : null, rows, showFloor);
  const slider = one("input[name=floor]");
  if (!slider) return;
  one("[data-chosen]").hidden = !found;
  if (!found) return;
  const floors = found.items.map(item => item.clean_accuracy);
  slider.min = Math.floor(Math.min(...floors) * 200) / 200 - 0.005;
  slider.max = Math.min(1, Math.ceil(Math.max(...floors) * 200) / 200 + 0.005);
  state.floor = Number(slider.value = state.floor || slider.min);
  showFloor();
}

function showFloor(view = charts.get("tradeoff")?.view) {
  const found = data.parts[part().chapter].tradeoff;
  if (!found) return;
  const step = found.steps.filter(each => each.floor >= state.floor - 1e-9).at(-1);
  one("[data-chosen] output").textContent = `${(100 * state.floor).toFixed(2)} %`;
  one("[data-chosen] p").textContent = step ? step.words : "No column keeps that much on clean images.";
  view?.signal("floor", state.floor).run();
}

function drawFixed() {
  const fixed = { ...Object.fromEntries(data.certified.map((each, i) => [`certified-${i}`, each])), training: data.training };
  for (const [name, { chart, lines }] of Object.entries(fixed)) {
    draw(name, chart);
    explain(name, lines);
  }
}

function explain(name, lines) {
  // A legend that breaks into lines, as those of Vega-Lite do not.
  one(`[data-legend="${name}"]`)?.replaceChildren(...lines.map(each => element("li", {}, sample(each), each.label)));
}

function sample(line) {
  const drawn = element("i");
  drawn.style.borderTopStyle = line.dash;
  drawn.style.borderTopColor = tone(line.colour);
  return drawn;
}

function makeChips() {
  const spread = data.columns.length <= data.visible ? 1 : (data.columns.length - 1) / (data.visible - 1);
  for (let i = 0; Math.round(i * spread) < data.columns.length && i < data.visible; i++) state.shown.add(Math.round(i * spread));
  const chips = data.columns.map((column, i) => {
    const chip = element("button", { type: "button" }, sample(column), column.label);
    chip.setAttribute("aria-pressed", state.shown.has(i));
    chip.dataset.column = i;
    chip.addEventListener("click", () => {
      if (!state.shown.delete(i)) state.shown.add(i);
      chip.setAttribute("aria-pressed", state.shown.has(i));
      refresh();
    });
    return chip;
  });
  one(".chips")?.append(...chips);
}

function colourChips() {
  for (const chip of all(".chips button")) chip.firstChild.style.borderTopColor = tone(data.columns[chip.dataset.column].colour);
}

// ---- images ----

function setBudgets() {
  const slider = one("input[name=eps]");
  if (!slider) return;
  const budgets = [...new Set(part().cells.filter(cell => cell.attack === state.attack).map(cell => cell.eps))].sort((a, b) => a - b);
  slider.max = Math.max(budgets.length - 1, 0);
  slider.disabled = budgets.length < 2;
  if (!budgets.includes(state.eps)) state.eps = budgets.at(-1) ?? 0;
  slider.value = budgets.indexOf(state.eps);
  slider.setAttribute("aria-valuetext", `eps ${state.eps}`);
  slider.nextElementSibling.textContent = state.eps;
  slider.oninput = () => {
    state.eps = budgets[slider.value];
    setBudgets();
    drawImages();
  };
}

function stack(number, image) {
  const [kept, channels, height, width] = data.stacks[number];
  const size = channels * height * width;
  if (image >= kept) return null;
  const start = stack.starts[number] + image * size;
  return { values: pixels.subarray(start, start + size), channels, height, width };
}

function onCanvas({ width, height }, name, colourOf) {
  const canvas = element("canvas", { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([...colourOf(i), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  return canvas;
}

function picture(number, image, name) {
  const found = stack(number, image);
  if (!found) return "";
  const plane = found.width * found.height;
  return onCanvas(found, name, i => [0, 1, 2].map(c => found.values[i + (found.channels === 3 ? c * plane : 0)]));
}

function change(before, after, image, name) {
  const [from, to] = [stack(before, image), stack(after, image)];
  if (!from || !to) return "";
  const plane = from.width * from.height;
  const differences = Array.from({ length: plane }, (_, i) => to.values[i] - from.values[i]);
  const largest = Math.max(1, ...differences.map(Math.abs));
  return onCanvas(from, name, i => {
    const [weight, colour] = [Math.abs(differences[i]) / largest, differences[i] > 0 ? [226, 110, 30] : [0, 110, 190]];
    return colour.map(value => 245 + (value - 245) * weight);
  });
}

function verdict(cell) {
  // Who takes the image for what, and how surely.
  const { shown } = cell;
  const [said, truth, sure] = [shown.predictions[state.image], shown.labels[state.image], shown.confidences[state.image]];
  const kind = said === truth ? "right" : "wrong";
  const words = element("span", { className: `verdict ${kind}`, textContent: `${said === truth ? "✓" : "✗"} ${said}` });
  words.title = `taken for class ${said}, which is ${kind}`;
  const outcome = element("div", { className: "outcome" }, element("b", { textContent: named(cell) }), element("br"), words);
  outcome.dataset.cell = named(cell);
  if (sure === null) return outcome;  // no finite confidence
  const bar = element("meter", { className: kind, min: 0, max: 1, value: sure });
  bar.setAttribute("aria-hidden", true);
  outcome.append(` at ${(100 * sure).toFixed(1)}\u00a0%`, bar);
  return outcome;
}

const named = cell => (part().several ? `${label(cell)}, ${cell.threat}` : label(cell));

function drawImages() {
  const box = one(".browser");
  if (!box || !pixels) return;
  const cells = chosenCells(), pictured = cells.filter(cell => cell.shown);
  one("[data-empty]").hidden = pictured.length > 0;
  one("[data-scene]").textContent = state.eps ? `Attacked by ${state.attack} at eps ${state.eps} · ${part().title}` : `Without attack · ${part().title}`;
  box.hidden = one(".thumbs").hidden = !pictured.length;
  if (pictured.length) {
    const scenes = new Map();  // defenses that were given the very same images share them
    for (const cell of pictured) scenes.set(cell.shown.attacked, [...(scenes.get(cell.shown.attacked) ?? []), cell]);
    box.classList.toggle("several", scenes.size > 1);
    box.replaceChildren(...[...scenes.values()].map((cells, i) => scene(cells, i === 0)));
    drawThumbs(pictured[0].shown);
  }
  drawClasses(cells.filter(cell => cell.classes.length));
}

function scene(cells, first) {
  // Original (in the first scene alone), attacked and perturbation once; then what each defense makes of the attacked.
  const { original, attacked } = cells[0].shown, clean = original === attacked;
  const unchanged = cells.filter(cell => cell.shown.purified === attacked);
  const changed = cells.filter(cell => cell.shown.purified !== attacked);
  const figures = [];
  if (first || clean) figures.push(imageFigure("original", picture(original, state.image, about("original", cells[0])), clean ? unchanged : []));
  if (!clean) {
    figures.push(imageFigure("attacked", picture(attacked, state.image, about("attacked", cells[0])), unchanged));
    figures.push(imageFigure("perturbation", change(original, attacked, state.image, about("perturbation", cells[0])), []));
  }
  for (const cell of changed) figures.push(imageFigure("", picture(cell.shown.purified, state.image, about(`purified by ${named(cell)}`, cell)), [cell]));
  return element("div", { className: "scene" }, ...figures);
}

const about = (what, cell) => `${what}, class ${cell.shown.labels[state.image]}`;

function imageFigure(name, image, cells) {
  const caption = element("figcaption", {}, name, ...cells.map(verdict));
  const figure = element("figure", {}, image, caption);
  figure.dataset.stage = name || "purified";
  return figure;
}

function drawThumbs(shown) {
  const count = data.stacks[shown.original][0], box = one(".thumbs");
  state.image = Math.min(state.image, count - 1);
  if (box.dataset.of !== String(shown.original)) {
    box.dataset.of = shown.original;
    box.replaceChildren(...Array.from({ length: count }, (_, i) => {
      const button = element("button", { type: "button", title: `image ${i + 1}, class ${shown.labels[i]}` }, picture(shown.original, i, `image ${i + 1}, class ${shown.labels[i]}`));
      button.addEventListener("click", () => { state.image = i; drawImages(); });
      return button;
    }));
  }
  all("button", box).forEach((button, i) => button.setAttribute("aria-pressed", i === state.image));
}

function drawClasses(cells) {
  const table = one(".classes");
  if (!table) return;
  const count = Math.max(0, ...cells.map(cell => cell.classes.length));
  const heads = ["defense", ...Array.from({ length: count }, (_, k) => k)].map(text => element("th", { textContent: text, scope: "col" }));
  const rows = cells.map(cell => {
    const entries = cell.classes.map(([correct, images]) => {
      if (!images) return element("td", { textContent: "—" });
      const entry = element("td", { textContent: (100 * correct / images).toFixed(1), title: `${correct} of ${images}` });
      [entry.style.background, entry.style.color] = data.heat[Math.round(100 * correct / images)];
      return entry;
    });
    return element("tr", {}, element("th", { scope: "row", textContent: named(cell) }), ...entries);
  });
  table.replaceChildren(element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
}

function showReconstructions() {
  const select = one("select[name=run]");
  if (!select) return;
  const runs = data.training.reconstructions;
  select.append(...runs.map((run, i) => element("option", { value: i, textContent: run.run })));
  const show = () => {
    const names = ["original", "with noise", "reconstructed"];
    const { run, stacks } = runs[select.value];
    const strips = stacks.map((number, k) => [number, names[k]]).filter(([number], k) => k !== 1 || number !== stacks[0]);  // no noise: the same images
    one(".strips").replaceChildren(...strips.map(([number, name]) => element("figure", {}, element("figcaption", { textContent: name }), strip(number, `${name}, ${run}`))));
  };
  select.addEventListener("change", show);
  show();
}

function strip(number, name) {
  const images = Array.from({ length: data.stacks[number][0] }, (_, i) => picture(number, i, name));
  const { width, height } = images[0];
  const canvas = element("canvas", { width: width * images.length, height });
  images.forEach((image, i) => canvas.getContext("2d").drawImage(image, i * width, 0));
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  return canvas;
}

// ---- beginning ----

async function begin() {
  for (const each of all(".controls, [data-scripted]")) each.hidden = false;
  makeChips();
  colourChips();
  for (const form of all(".switches")) form.addEventListener("change", switched);
  one("input[name=floor]")?.addEventListener("input", event => { state.floor = Number(event.target.value); showFloor(); });
  window.eval(await (await unpacked("library")).text());
  pixels = new Uint8Array(await (await unpacked("pixels")).arrayBuffer());
  let start = 0;
  stack.starts = data.stacks.map(shape => (start += shape.reduce((a, b) => a * b)) - shape.reduce((a, b) => a * b));
  if (data.parts.length) refresh();
  drawFixed();
  showReconstructions();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colourChips(); if (data.parts.length) refresh(); drawFixed(); });
  document.documentElement.dataset.ready = "true";
}

begin();
