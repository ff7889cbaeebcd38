"use strict";
// Tables that sort, figures whose arms switch on and off, and the run behind each point. Text only ever goes into the
// page as text (textContent), never as HTML, as names come from records.

const DATA = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
root.classList.add("js");

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// ------------------------------------------------------------------ light and dark

const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = document.getElementById("theme");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
}

function nameTheme() {
  theme.textContent = isDark() ? "Light" : "Dark";
  document.dispatchEvent(new Event("theme")); // what is drawn on a canvas has its colours only once
}

theme.hidden = false;
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
dark.addEventListener("change", nameTheme);
nameTheme();

// ------------------------------------------------------------------ tables

// Numbers from the largest first, as the best is looked for; words from A. Empty cells stay below either way.
function sortBy(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const numeric = head.classList.contains("number");
  const before = head.getAttribute("aria-sort");
  const order = before ? (before === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const key = (row) => (numeric ? parseFloat(row.cells[column].dataset.n) : row.cells[column].textContent.trim());
  const compare = (a, b) => {
    if (!numeric) return sign * a.localeCompare(b, "en", { numeric: true });
    return Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b) : sign * (a - b);
  };
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  rows.sort((a, b) => compare(a[0], b[0]));
  table.tBodies[0].append(...rows.map((pair) => pair[1]));
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("button")?.parentElement;
    if (head) sortBy(table, head.cellIndex);
  });
}

// ------------------------------------------------------------------ figures

const tip = document.getElementById("tip");

function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = "0"; // as wide as it wants to be
  const left = Math.min(x + 14, root.clientWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left) + scrollX}px`;
  tip.style.top = `${y + scrollY + (y + tip.offsetHeight + 24 > innerHeight ? -tip.offsetHeight - 12 : 14)}px`;
}

function hideTip() {
  tip.hidden = true;
}

const short = (value) => (Math.abs(value) >= 1e5 ? value.toExponential(2) : String(Number(value.toPrecision(3))));

// The settings of a run, what came out, and its command, below the panels of its world.
function tellRun(target, run, colour) {
  const list = (pairs) =>
    make("dl", {}, ...Object.entries(pairs).map(([name, value]) =>
      make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value }))));
  target.classList.add("chosen");
  target.style.setProperty("--own", colour);
  const parts = [make("h4", { textContent: run.title }), list(run.settings), list({ ...run.readouts, n: run.n })];
  if (run.command) {
    const copy = make("button", { type: "button", textContent: "Copy" });
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(run.command);
      copy.textContent = "Copied";
    });
    parts.push(make("div", { className: "line" }, make("code", { textContent: run.command }), copy));
  }
  target.replaceChildren(...parts);
}

// One panel. Spots are what can be looked at: points, which are runs, or else the corners of its curves.
class Chart {
  constructor(element, view, spec, runs, colours) {
    this.element = element;
    this.view = view;
    this.runs = runs;
    this.colours = colours;
    this.target = element.closest("figure").querySelector(".run");
    this.hidden = [];
    this.at = -1;
    const { points, lines, bands } = spec.datasets;
    const spread = new Map(bands.map((one) => [`${one.arm} ${one.x}`, one]));
    const corners = lines.map((one) => ({ ...spread.get(`${one.arm} ${one.x}`), ...one }));
    this.spots = points.length ? points : corners;
    this.flat = typeof points[0]?.x === "string"; // names run down, and values across
    new ResizeObserver(() => this.resize()).observe(element);
    element.addEventListener("pointermove", (event) => this.point(event));
    element.addEventListener("pointerleave", () => this.leave());
    element.addEventListener("blur", () => this.leave());
    element.addEventListener("click", (event) => {
      this.point(event);
      this.choose();
    });
    element.addEventListener("keydown", (event) => this.key(event));
  }

  resize() {
    const width = this.element.clientWidth;
    if (width && width !== this.view.width()) this.view.width(width).runAsync();
  }

  hide(arms) {
    this.hidden = arms;
    this.leave();
    this.view.signal("hidden", arms).runAsync();
  }

  place(spot) {
    const [left, top] = this.view.origin();
    const [across, up] = this.flat ? [spot.y, spot.x] : [spot.x, spot.y];
    return [left + this.view.scale("x")(across), top + this.view.scale("y")(up)];
  }

  visible() {
    return this.spots.filter((spot) => !this.hidden.includes(spot.arm));
  }

  // The nearest spot within a finger's width, so that no one has to hit a point.
  point(event) {
    const box = this.element.getBoundingClientRect();
    let best = null, least = 26;
    for (const spot of this.visible()) {
      const [x, y] = this.place(spot);
      const distance = Math.hypot(x - event.clientX + box.left, y - event.clientY + box.top);
      if (distance < least) [best, least] = [spot, distance];
    }
    this.look(best);
  }

  look(spot) {
    this.at = this.spots.indexOf(spot);
    this.view.signal("current", spot?.run ?? -1).runAsync();
    this.element.style.cursor = spot?.run === undefined ? "" : "pointer";
    if (!spot) return hideTip();
    const box = this.element.getBoundingClientRect();
    const [x, y] = this.place(spot);
    showTip(this.text(spot), box.left + x, box.top + y);
  }

  text(spot) {
    const between = spot.low === undefined || spot.low === spot.high ? "" : ` [${short(spot.low)}, ${short(spot.high)}]`;
    if (spot.run === undefined) return `${spot.arm}: ${short(spot.y)}${between} at ${short(spot.x)}`;
    const run = this.runs[spot.run];
    const settings = Object.entries(run.settings).filter(([name]) => name !== "world" && name !== "seed");
    return [`${run.title}: ${short(spot.y)}${between}`, ...settings.map((pair) => pair.join(" = ")), `n = ${run.n}`].join("\n");
  }

  leave() {
    this.look(null);
  }

  choose() {
    const spot = this.spots[this.at];
    if (spot?.run !== undefined) tellRun(this.target, this.runs[spot.run], this.colours[spot.arm]);
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") return this.leave();
    if (!step) return;
    event.preventDefault();
    const order = this.visible(); // of names as they stand, of curves from left to right
    if (!this.flat) order.sort((a, b) => a.arm.localeCompare(b.arm) || a.x - b.x);
    if (!order.length) return;
    const now = order.indexOf(this.spots[this.at]);
    this.look(order[(now < 0 ? (step > 0 ? 0 : -1) : now + step + order.length) % order.length] ?? order.at(-1));
    this.choose();
  }
}

// The figures of a study, and the buttons that switch its arms off in all of them.
async function showStudy(figure, specs) {
  const runs = DATA.runs[figure.dataset.study];
  const buttons = [...figure.querySelectorAll("[data-arm]")];
  const colours = Object.fromEntries(buttons.map((one) => [one.dataset.arm, one.style.getPropertyValue("--own")]));
  const options = { actions: false, defaultStyle: false, hover: false, renderer: "svg", tooltip: false };
  const charts = await Promise.all([...figure.querySelectorAll(".chart")].map(async (element, index) => {
    const { view } = await vegaEmbed(element, specs[index], options);
    return new Chart(element, view, specs[index], runs, colours);
  }));
  const all = figure.querySelector(".all");
  const press = (button, on) => button.setAttribute("aria-pressed", String(on));
  const update = () => {
    const off = buttons.filter((one) => one.getAttribute("aria-pressed") === "false");
    all.hidden = !off.length;
    for (const chart of charts) chart.hide(off.map((one) => one.dataset.arm));
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      press(button, button.getAttribute("aria-pressed") === "false");
      update();
    });
  }
  all.addEventListener("click", () => {
    for (const one of buttons) press(one, true);
    update();
    buttons[0].focus();
  });
}

for (const figure of document.querySelectorAll(".figure")) showStudy(figure, DATA.charts[figure.dataset.study]);
