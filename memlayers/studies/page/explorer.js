// The slot explorer: n * n slots, a row for each first half of a key and a column for each second half. All numbers are
// the model's; here they are only looked up and drawn.

const MODEL = DATA.explorer;
const part = (id) => document.getElementById(id);
const ask = part("ask"), canvas = part("grid"), emptied = part("empty");
const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
const headColour = (head) => `--arm-${head % 8}`;
const STRIP = 44; // pixels of the half scores beside the grid
const GAP = 5;
const EDGE = 8; // beyond the grid, for circles of its last slots

for (const layer of MODEL.layers) {
  layer.scores = bytes(layer.scores); // [fact][head][half][key]
  layer.readers = new Uint16Array(bytes(layer.readers).buffer); // [slot]
}
const factAt = new Map(MODEL.facts.map((fact, index) => [`${fact.subject} ${fact.relation}`, index]));
const nameOf = (fact) => `${MODEL.subjects[fact.subject]} ${MODEL.relations[fact.relation]}`;
let now = 0; // the fact
let hovered = -1; // the slot

// What the fact reads in the chosen layer: {slot, weight, head}, the best of each head first.
function readsOf(fact, layer) {
  return fact.reads[layer.place].map(([slot, weight], index) => ({ slot, weight, head: Math.floor(index / layer.topk) }));
}

function chosenLayer() {
  return MODEL.layers[ask.elements.layer.value];
}

function chosenHead() {
  return Number(ask.elements.head.value);
}

function scoreOf(layer, head, half, key) {
  return layer.low + layer.step * layer.scores[((now * layer.heads + head) * 2 + half) * layer.n + key];
}

// A colour of the style sheet in the theme that is shown, "red green blue": a canvas knows no variables.
function rgb(variable) {
  canvas.style.color = `var(${variable})`;
  return getComputedStyle(canvas).color.match(/[\d.]+/g).slice(0, 3).join(" ");
}

// ------------------------------------------------------------------ drawing

// Pixels of the n * n slots: how many facts read each, or what one head scores them.
function slotPixels(layer, head) {
  const { n } = layer;
  const image = new ImageData(n, n);
  const [red, green, blue] = rgb(head < 0 ? "--quiet" : headColour(head)).split(" ");
  const most = Math.log1p(layer.readers.reduce((a, b) => Math.max(a, b), 1));
  const rows = [], columns = [];
  for (let key = 0; key < n && head >= 0; key++) {
    rows.push(scoreOf(layer, head, 0, key));
    columns.push(scoreOf(layer, head, 1, key));
  }
  const low = Math.min(...rows) + Math.min(...columns), high = Math.max(...rows) + Math.max(...columns);
  for (let slot = 0; slot < n * n; slot++) {
    const score = head < 0 ? 0 : (rows[Math.floor(slot / n)] + columns[slot % n] - low) / (high - low);
    const shade = head < 0 ? 0.75 * (Math.log1p(layer.readers[slot]) / most) : score ** 3;
    image.data.set([red, green, blue, 255 * shade], 4 * slot);
  }
  const small = new OffscreenCanvas(n, n);
  small.getContext("2d").putImageData(image, 0, 0);
  return small;
}

function draw() {
  const layer = chosenLayer(), only = chosenHead(), { n, heads } = layer;
  const width = canvas.clientWidth, ratio = devicePixelRatio || 1;
  if (!width) return;
  canvas.width = canvas.height = Math.round(width * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const start = STRIP + GAP, side = width - start - EDGE, cell = side / n;
  const middle = (key) => start + (key + 0.5) * cell;

  pen.imageSmoothingEnabled = false;
  pen.drawImage(slotPixels(layer, only), start, start, side, side);
  pen.strokeStyle = `rgb(${rgb("--hair")})`;
  pen.strokeRect(start - 0.5, start - 0.5, side + 1, side + 1);

  // Half scores, a strip for each head: rows to the left of the grid, columns above it.
  const thick = STRIP / heads;
  for (let head = 0; head < heads; head++) {
    const colour = rgb(headColour(head));
    for (const half of [0, 1]) {
      const scores = Array.from({ length: n }, (_, key) => scoreOf(layer, head, half, key));
      const low = Math.min(...scores), high = Math.max(...scores);
      for (let key = 0; key < n; key++) {
        const shade = ((scores[key] - low) / (high - low || 1)) ** 2 * (only < 0 || only === head ? 1 : 0.15);
        pen.fillStyle = `rgb(${colour} / ${shade})`;
        const along = start + key * cell, across = head * thick;
        if (half) pen.fillRect(along, across, cell + 0.3, thick - 1);
        else pen.fillRect(across, along, thick - 1, cell + 0.3);
      }
    }
  }

  const line = (slot, style) => {
    pen.strokeStyle = style;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(STRIP, middle(Math.floor(slot / n)));
    pen.lineTo(middle(slot % n), middle(Math.floor(slot / n)));
    pen.lineTo(middle(slot % n), STRIP);
    pen.stroke();
  };
  const isEmpty = emptied.getAttribute("aria-pressed") === "true";
  const reads = readsOf(MODEL.facts[now], layer).filter((read) => only < 0 || read.head === only);
  for (const read of reads) if (only >= 0) line(read.slot, `rgb(${rgb(headColour(read.head))} / .35)`);
  if (hovered >= 0) line(hovered, `rgb(${rgb("--ink")} / .8)`);
  for (const read of reads) {
    pen.beginPath();
    pen.arc(middle(read.slot % n), middle(Math.floor(read.slot / n)), 2 + 14 * Math.sqrt(read.weight), 0, 7);
    pen.fillStyle = `rgb(${rgb(headColour(read.head))} / .72)`;
    if (!isEmpty) pen.fill();
    pen.lineWidth = 1.5;
    pen.strokeStyle = isEmpty ? `rgb(${rgb(headColour(read.head))})` : `rgb(${rgb("--page")})`;
    pen.stroke();
  }
}

// ------------------------------------------------------------------ text

function tell() {
  const fact = MODEL.facts[now], layer = chosenLayer();
  const isEmpty = emptied.getAttribute("aria-pressed") === "true";
  part("tokens").replaceChildren("reads ", ...fact.tokens.map((token) => make("span", { textContent: token })), " and answers");
  part("answers").replaceChildren(...(isEmpty ? fact.without : fact.answers).map(([object, probability]) => {
    const item = make("li", {}, make("span", { textContent: object, className: object === fact.truth ? "true" : "" }),
      make("span", { textContent: probability.toFixed(3) }));
    item.style.setProperty("--p", Math.min(1, probability));
    return item;
  }));
  const reads = readsOf(fact, layer);
  part("truth").textContent = `True: ${fact.truth}. ` + (isEmpty
    ? `The ${fact.slots.length} slots that it reads hold zeros now.`
    : "Probabilities are of whole objects, among all texts.");
  part("how-many").textContent = `${reads.length} reads`;
  part("reads").tBodies[0].replaceChildren(
    ...fact.slots.filter((one) => one[0] === layer.place).map((one) => rowOf(one, layer)));
  for (const head of part("reads").tHead.rows[0].cells) head.removeAttribute("aria-sort");
  part("sharing").replaceChildren(...sharing(layer));
  const heaviest = fact.slots.find((one) => one[0] === layer.place);
  canvas.setAttribute("aria-label", `${layer.n} times ${layer.n} slots, ${reads.length} of them read by ${nameOf(fact)}; `
    + `most weight has slot ${heaviest[1]}, with ${heaviest[2]}.`);
  part("scale").textContent = (chosenHead() < 0
    ? "Grey: how many of all facts read a slot, on a logarithmic scale. Circles: what this question reads, by weight."
    : `Colour: what head ${chosenHead()} scores each slot, the sum of its row's and its column's score.`)
    + " Strips: the half scores of each head.";
}

function rowOf([, slot, weight, heads, readers, known], layer) {
  const number = (value, text = value) => {
    const cell = make("td", { className: "number", textContent: text });
    cell.dataset.n = value;
    return cell;
  };
  const button = make("button", { type: "button", textContent: slot });
  button.dataset.slot = slot;
  const first = make("th", { scope: "row", className: "number" }, button);
  first.dataset.n = slot;
  const by = heads.flatMap((head) => {
    const dot = make("i");
    dot.style.setProperty("--own", `var(${headColour(head)})`);
    return [dot, `${head} `];
  });
  return make("tr", {}, first, number(Math.floor(slot / layer.n)), number(slot % layer.n), number(weight, weight.toFixed(3)),
    make("td", {}, ...by), number(readers), make("td", { textContent: known.join(", ") }));
}

// The facts of the page that give most weight to the slots that this one reads, as buttons that choose them.
function sharing(layer) {
  const mine = new Set(readsOf(MODEL.facts[now], layer).map((read) => read.slot));
  const found = MODEL.facts.map((fact, index) => {
    const weights = fact.reads[layer.place];
    const common = weights.reduce((sum, [slot, weight]) => sum + (mine.has(slot) ? Math.abs(weight) : 0), 0);
    return [common / weights.reduce((sum, [, weight]) => sum + Math.abs(weight), 0), index];
  }).filter(([share, index]) => share > 0 && index !== now).sort((a, b) => b[0] - a[0]).slice(0, 8);
  if (!found.length) return [make("li", { textContent: "none of those shown here" })];
  return found.map(([share, index]) => {
    const button = make("button", { type: "button", textContent: nameOf(MODEL.facts[index]) });
    button.append(make("small", { textContent: `${Math.round(100 * share)}%`, title: "of its weight" }));
    button.addEventListener("click", () => choose(index));
    return make("li", {}, button);
  });
}

// ------------------------------------------------------------------ choosing

function choose(index) {
  now = index;
  hovered = -1;
  ask.elements.subject.value = MODEL.facts[index].subject;
  ask.elements.relation.value = MODEL.facts[index].relation;
  emptied.setAttribute("aria-pressed", "false");
  for (const option of ask.elements.relation.options) {
    option.disabled = !factAt.has(`${MODEL.facts[index].subject} ${option.value}`);
  }
  tell();
  draw();
}

function showHeads() {
  const names = ["all", ...Array(chosenLayer().heads).keys()];
  part("heads").replaceChildren(...names.map((name, index) => {
    const label = make("label", {}, make("input", { type: "radio", name: "head", value: index - 1, checked: !index }), `${name}`);
    if (index) label.style.setProperty("--own", `var(${headColour(index - 1)})`);
    return label;
  }));
}

ask.addEventListener("change", (event) => {
  if (event.target.name === "layer") showHeads();
  if (event.target.name === "subject" || event.target.name === "relation") {
    const { subject, relation } = ask.elements;
    const same = factAt.get(`${subject.value} ${relation.value}`);
    choose(same ?? MODEL.facts.findIndex((fact) => fact.subject === Number(subject.value)));
  } else {
    tell();
    draw();
  }
});
ask.addEventListener("submit", (event) => event.preventDefault());
emptied.addEventListener("click", () => {
  emptied.setAttribute("aria-pressed", String(emptied.getAttribute("aria-pressed") === "false"));
  tell();
  draw();
});

// Over the grid, the slot under the pointer; in the table, the one whose button has the pointer or the focus.
canvas.addEventListener("pointermove", (event) => {
  const layer = chosenLayer(), start = STRIP + GAP, cell = (canvas.clientWidth - start - EDGE) / layer.n;
  const row = Math.floor((event.offsetY - start) / cell), column = Math.floor((event.offsetX - start) / cell);
  const inside = row >= 0 && column >= 0 && row < layer.n && column < layer.n;
  hovered = inside ? row * layer.n + column : -1;
  draw();
  if (!inside) return hideTip();
  const head = chosenHead(), lines = [`slot ${hovered}: row ${row}, column ${column}`];
  if (head >= 0) {
    const [left, top] = [scoreOf(layer, head, 0, row), scoreOf(layer, head, 1, column)];
    const sum = `${left.toFixed(2)} ${top < 0 ? "−" : "+"} ${Math.abs(top).toFixed(2)} = ${(left + top).toFixed(2)}`;
    lines.push(`head ${head} scores ${sum}`);
  }
  for (const read of readsOf(MODEL.facts[now], layer)) {
    if (read.slot === hovered) lines.push(`read by head ${read.head} with weight ${read.weight.toFixed(3)}`);
  }
  lines.push(`${layer.readers[hovered]} of all facts read it`);
  showTip(lines.join("\n"), event.clientX, event.clientY);
});
canvas.addEventListener("pointerleave", () => {
  hovered = -1;
  hideTip();
  draw();
});
for (const [kind, on] of [["pointerover", true], ["focusin", true], ["pointerout", false], ["focusout", false]]) {
  part("reads").tBodies[0].addEventListener(kind, (event) => {
    const slot = event.target.closest("[data-slot]")?.dataset.slot;
    if (slot === undefined) return;
    hovered = on ? Number(slot) : -1;
    draw();
  });
}

showHeads();
document.addEventListener("theme", draw);
new ResizeObserver(draw).observe(canvas);
choose(0);
