/* Figures and controls: fills the figures with the chosen preset and checkpoint, and links them with the tables. */

const SIDE = 92; // what the axis and the paddings of the main figure take of its width

function Series(element) {
  const packed = data.series[Number(element.dataset.series)];
  const shown = Number(element.dataset.shown);
  const self = { element, packed, run: shown, pinned: -1, views: [], brushed: null };
  const find = (selector) => element.querySelector(selector);
  const status = find(".status");
  const hint = status ? status.textContent : "";

  /* The rows of each data set of a figure, for the preset and checkpoint chosen. */
  function rowsOf(name, group) {
    if (name === "influence") {
      const { fits, windows } = data.runs[self.run].fits[state.preset];
      return { points: drawn(self.run, state.preset), fits: rowsFrom(fits), windows: rowsFrom(windows) };
    }
    if (name === "scatter") return { pairs: pairsOf(self.run, state.preset, packed.top) };
    if (packed.sets[name]) return { rows: setOf(packed.sets[name], group) };
    const wanted = new Set(packed.curve_ranks);
    const quantity = name.slice("steps-".length);
    return { curves: packed.runs.flatMap((run) => drawn(run, state.preset)
      .filter((row) => row.group === group && wanted.has(row.rank) && row[quantity] !== null)
      .map((row) => ({ step: data.runs[run].revision, rank: row.rank, [quantity]: row[quantity] }))) };
  }

  /* The rows of a small data set, given in columns by preset (or for all, "*"): those of the group and checkpoint. */
  function setOf(set, group) {
    return rowsFrom(set[state.preset] || set["*"] || {})
      .filter((row) => (!group || row.group === group) && (row.run === undefined || row.run === self.run));
  }

  function fill(item) {
    const sets = rowsOf(item.name, item.element.dataset.group);
    Object.entries(sets).forEach(([name, rows]) => item.view.data(name, rows));
    return item.view.runAsync();
  }

  const widthOf = (target) => Math.max(200, target.clientWidth - SIDE);
  const heightsOf = (target) => packed.heights[target.dataset.figure][target.clientWidth < 560 ? 0 : 1];

  function fit(item) {
    if (!item.element.clientWidth) return;
    const heights = heightsOf(item.element);
    item.view.width(widthOf(item.element));
    heights.forEach((height, i) => item.view.signal("concat_" + i + "_height", height));
    item.view.runAsync();
  }

  async function embed(target) {
    const name = target.dataset.figure;
    const spec = { ...packed.figures[name], datasets: rowsOf(name, target.dataset.group) };
    if (spec.vconcat) {
      const heights = heightsOf(target);
      spec.vconcat = spec.vconcat.map((part, i) => ({ ...part, width: widthOf(target), height: heights[i] }));
    }
    const drawnFor = state.preset + " " + self.run;
    const { view } = await window.vegaEmbed(target, spec, { actions: false, ast: true, renderer: "svg", tooltip });
    const item = { name, element: target, view };
    self.views.push(item);
    target.querySelector("svg").setAttribute("aria-hidden", "true"); // the element around it carries the description
    if (drawnFor !== state.preset + " " + self.run) fill(item);
    if (spec.vconcat) keepWidth(item);
    if (name === "influence") connect(item);
    light();
  }

  /* Figures of two panels do not follow their element's width by themselves. */
  function keepWidth(item) {
    const width = { now: item.element.clientWidth };
    new ResizeObserver(() => {
      if (item.element.clientWidth === width.now) return;
      width.now = item.element.clientWidth;
      fit(item);
    }).observe(item.element);
  }

  /* The main figure tells the controls and the status line what is pointed at, brushed and zoomed to. */
  function connect(item) {
    item.view.addSignalListener("hover", (_, value) => (value.neuron ? showNeuron(value.neuron[0]) : rest()));
    item.view.addSignalListener("brush", (_, value) => { self.brushed = value.rank; rest(); });
    item.view.addSignalListener("zoom", (_, value) => showZoom(value.rank));
    item.view.addEventListener("click", (_, mark) => {
      const row = mark && mark.datum && (mark.datum.datum || mark.datum);
      if (row && row.neuron !== undefined) pin(row.neuron, false);
    });
  }

  /* Buttons that save a figure as it is drawn, and the rows that it draws. */
  function addSaves(figure) {
    const plots = all(".plot", figure);
    const saves = cell("p", null, "saves");
    for (const plot of plots) {
      const panel = plots.length > 1 ? " (" + (plot.dataset.group || plot.dataset.figure) + ")" : "";
      for (const [kind, write] of [["SVG", saveDrawn], ["CSV", saveRows]]) {
        const button = cell("button", "Save as " + kind + panel, "save");
        button.type = "button";
        button.addEventListener("click", () => write(plot));
        saves.append(button, " ");
      }
    }
    figure.append(saves);
  }

  function saveDrawn(plot) {
    const item = self.views.find((one) => one.element === plot);
    if (item) item.view.toSVG().then((svg) => saveFigure(svg, item.name + "-" + data.runs[self.run].revision + ".svg"));
  }

  /* The first data set of a figure holds its points; the others its lines. */
  function saveRows(plot) {
    const { figure, group } = plot.dataset;
    const [rows] = Object.values(rowsOf(figure, group));
    const name = [figure, group, state.preset, data.runs[self.run].revision].filter(Boolean).join("-");
    saveText(commaSeparated(rows), name + ".csv", "text/csv");
  }

  function light() {
    for (const item of self.views) {
      if (item.name === "influence" || item.name === "scatter") item.view.signal("pinned", self.pinned).runAsync();
    }
    all("tr.lit", element).forEach((row) => row.classList.remove("lit"));
    all(".pin", element).filter((link) => Number(link.dataset.neuron) === self.pinned)
      .forEach((link) => link.closest("tr").classList.add("lit"));
  }

  function pin(neuron, scroll) {
    self.pinned = Number.isInteger(neuron) ? neuron : -1;
    find(".neuron").value = self.pinned < 0 ? "" : self.pinned;
    showNeuron(self.pinned);
    light();
    if (scroll) find("figure.first").scrollIntoView({ block: "start" });
  }

  /* The address of a neuron's card, if the page has one. */
  pin.address = (neuron) => {
    const address = (Number(element.dataset.series) ? "s" + element.dataset.series + "-" : "") + "n" + neuron;
    return document.getElementById(address) ? address : null;
  };

  function say(...parts) {
    status.replaceChildren(...parts);
  }

  function bold(text) {
    const element = document.createElement("b");
    element.textContent = text;
    return element;
  }

  function showNeuron(neuron) {
    if (neuron === undefined || neuron < 0) return say(hint);
    const rows = pointsOf(self.run, state.preset).filter((row) => row.neuron === neuron);
    if (!rows.length) return say("Neuron " + neuron + " is not among the neurons drawn here.");
    const described = rows.map((row) => row.group + ": rank " + counted(row.rank) + ", influence " +
      row.influence_text + " · 10⁻³ nats" + (row.deviation === null ? "" : ", δ " + row.deviation_text) +
      ", " + row.role);
    const tokens = rows[0].up ? ". Raises " + rows[0].up + ". Lowers " + rows[0].down + "." : ".";
    const link = pin.address(neuron) ? cell("a", "Its card.") : "";
    if (link) link.href = "#" + pin.address(neuron);
    say(bold("Neuron " + neuron), " " + described.join("; ") + tokens + " ", link);
  }

  /* What the status line says while nothing is pointed at. */
  function rest() {
    if (self.brushed) showBrush(self.brushed);
    else showNeuron(self.pinned);
  }

  function showBrush(range) {
    const [low, high] = [Math.min(...range), Math.max(...range)];
    const rows = pointsOf(self.run, state.preset).filter(
      (row) => row.rank === row.rare_rank && row.rare_rank >= low && row.rare_rank <= high && row.group === "rare");
    const common = new Map(pointsOf(self.run, state.preset).filter((row) => row.group === "common")
      .map((row) => [row.neuron, row.rank]));
    const listed = rows.slice(0, 12).map((row) => row.neuron + " (" + (common.get(row.neuron) || "–") + ")");
    say(bold(rows.length + " neurons lit"), ", ranks " + Math.ceil(low) + " to " + Math.floor(high) +
      " on rare tokens; in brackets their ranks on common ones: " + listed.join(", ") +
      (rows.length > 12 ? ", …" : ""));
  }

  function showZoom(range) {
    const [low, high] = range || [1, packed.neurons];
    find(".from").value = Math.max(1, Math.ceil(low));
    find(".to").value = Math.min(packed.neurons, Math.floor(high));
  }

  function zoomTo(range) {
    const main = self.views.find((item) => item.name === "influence");
    if (main) main.view.signal("zoom_rank", range).runAsync();
  }

  function rangeChanged() {
    const low = Number(find(".from").value), high = Number(find(".to").value);
    if (low >= 1 && high > low) zoomTo([low * 0.97, high + Math.min(0.9, high * 0.03)]);
  }

  /* The tables of the checkpoint chosen; the page as written holds them for the one shown first. */
  function fillTables() {
    for (const table of all("table[data-rows]", element)) {
      const name = table.dataset.rows;
      const rows = data.runs[self.run].tables[name][state.preset];
      const body = Array.from(table.tBodies).find((part) => !part.hidden);
      body.replaceChildren(...rows.map((cells) => drawRow(cells, data.columns[name], pin)));
      all("th[aria-sort]", table).forEach((heading) => heading.removeAttribute("aria-sort"));
    }
  }

  self.update = function () {
    for (const part of all("[data-preset], [data-run]", element)) {
      const { preset, run } = part.dataset;
      part.hidden = (preset !== undefined && preset !== state.preset) || (run !== undefined && Number(run) !== self.run);
    }
    fillTables();
    self.views.forEach(fill);
    self.brushed = null; // what was said of another curve is not true of this one
    self.views.filter((item) => item.name === "influence").forEach((item) => item.view.data("brush_store", []).run());
    rest();
    light();
  };

  if (!Object.keys(packed.figures).length) {
    self.targets = [];
    return self;
  }
  const step = find(".step");
  const stepName = "step" + element.dataset.series;
  function stepTo(place) {
    self.run = packed.runs[place];
    const name = data.runs[self.run].revision;
    step.setAttribute("aria-valuetext", name);
    find(".control output").textContent = name;
    self.update();
  }
  if (step) step.addEventListener("input", () => {
    const place = Number(step.value);
    stepTo(place);
    writeAddress({ [stepName]: place === packed.runs.length - 1 ? null : place });
  });
  self.restore = function () {
    const place = Number(state.values[stepName]);
    if (!step || !Number.isInteger(place) || place < 0 || place >= packed.runs.length) return;
    step.value = place;
    stepTo(place);
  };
  find(".neuron").addEventListener("input", (event) => {
    pin(event.target.value === "" ? -1 : Number(event.target.value), false);
  });
  find(".from").addEventListener("change", rangeChanged);
  find(".to").addEventListener("change", rangeChanged);
  find(".reset").addEventListener("click", () => {
    zoomTo(null);
    showZoom(null);
    self.views.filter((item) => item.name === "influence").forEach((item) => item.view.data("brush_store", []).run());
    self.brushed = null;
    pin(-1, false);
  });
  all(".pin", element).forEach((link) => link.addEventListener("click",
    () => pin(Number(link.dataset.neuron), !link.hash)));
  all("button.light", element).forEach((button) => button.addEventListener("click",
    () => pin(Number(button.value), true)));
  all(".swatch[data-step]", element).forEach((swatch) => {
    const last = packed.runs.length - 1;
    swatch.style.background = "var(--step" + Math.round((Number(swatch.dataset.step) * 9) / last) + ")";
  });
  all("figure", element).filter((figure) => figure.querySelector(".plot")).forEach(addSaves);
  self.targets = all(".plot", element);
  self.embed = embed;
  return self;
}

/* What is under the pointer, beside it. Vega says only when: with points found by nearness it loses their texts. */
const bubble = document.createElement("div");
bubble.className = "bubble";
bubble.hidden = true;

function tooltip(handler, event, item, value) {
  bubble.hidden = !value;
  if (!value) return;
  const row = item.datum.datum || item.datum;
  const entries = row.neuron === undefined ? Object.entries(value) : describe(row);
  bubble.replaceChildren(...entries.flatMap(([label, text]) => [cell("dt", label), cell("dd", text)]));
  const { innerWidth, innerHeight } = window;
  const { width, height } = bubble.getBoundingClientRect();
  const beside = event.clientX + 16 + width < innerWidth ? event.clientX + 16 : event.clientX - 16 - width;
  bubble.style.left = Math.max(4, Math.min(beside, innerWidth - width - 4)) + "px";
  bubble.style.top = Math.max(4, Math.min(event.clientY + 16, innerHeight - height - 4)) + "px";
}

/* A figure by itself has no style sheet: its colours are written out, as on paper. */
function saveFigure(svg, name) {
  saveText(svg.replace(/var\((--\w+)\)/g, (whole, variable) => data.light[variable] || whole), name, "image/svg+xml");
}

function saveText(text, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/* Rows as CSV. A text that a spreadsheet could take as a formula begins with an apostrophe. */
function commaSeparated(rows) {
  const names = Object.keys(rows[0] || {});
  const field = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@]/.test(value) ? "'" + value : String(value);
    return '"' + text.replace(/"/g, '""') + '"';
  };
  const lines = rows.map((row) => names.map((name) => field(row[name])).join(","));
  return [names.join(","), ...lines].join("\r\n") + "\r\n";
}

/* ---- start ---- */

document.documentElement.classList.add("scripted");
const bar = document.querySelector(".bar"); // sticky, of one row or more: what is jumped to must not end up under it
new ResizeObserver(() => {
  document.documentElement.style.scrollPaddingTop = bar.offsetHeight + 12 + "px";
}).observe(bar);
document.body.append(bubble);
all("table.sortable").forEach(makeSortable);
const series = all("section.series").map(Series);
const loose = all("[data-preset]").filter((part) => !part.closest("section.series"));
function choosePreset(preset) {
  state.preset = preset;
  loose.forEach((part) => { part.hidden = part.dataset.preset !== state.preset; });
  series.forEach((one) => one.update());
}
all("input[name=preset]").forEach((input) => input.addEventListener("change", () => {
  choosePreset(input.value);
  writeAddress({ preset: input.value === data.presets[0] ? null : input.value });
}));
all("button.copy").forEach((button) => button.addEventListener("click", async () => {
  const text = document.getElementById(button.value).textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch (refused) { // a page from disk may not reach the clipboard: the text is selected instead
    getSelection().selectAllChildren(document.getElementById(button.value));
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}));
const menu = document.querySelector("button.menu");
menu.addEventListener("click", () => {
  menu.setAttribute("aria-expanded", menu.getAttribute("aria-expanded") === "true" ? "false" : "true");
});
all("#menu a").forEach((link) => link.addEventListener("click", () => menu.setAttribute("aria-expanded", "false")));
connectCards();
/* What the address says: the preset, the checkpoint of each series, and the place on the page. */
const preset = all("input[name=preset]").find((input) => input.value === state.values.preset);
if (preset) {
  preset.checked = true;
  choosePreset(preset.value);
}
series.forEach((one) => one.restore && one.restore());
/* The first figure at once, so that the page can be used; each other one in a turn of its own. */
const waiting = series.flatMap((one) => one.targets.map((target) => () => one.embed(target)));
function mark(name) {
  if (document.documentElement.dataset[name]) return;
  document.documentElement.dataset[name] = "yes";
  performance.mark(name);
}
const turn = () => new Promise((resolve) => { setTimeout(resolve, 0); });
(async () => {
  for (const [i, draw] of waiting.entries()) {
    await draw();
    if (i === 0) mark("ready");
    await turn();
  }
  mark("ready");
  mark("drawn");
  if (state.place && !moved) openAddressed(); // once more: figures above it have their height now
})();
let moved = false; // by the reader
["wheel", "touchmove", "keydown", "pointerdown"].forEach((kind) => {
  window.addEventListener(kind, () => { moved = true; }, { once: true, passive: true });
});
if (state.place) openAddressed();
