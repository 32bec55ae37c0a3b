// Replaces every still image by an interactive chart, with switches for arms and sliders over epochs, and finds rows of
// long tables; the page also works without this script.
const options = {
  config: JSON.parse(document.querySelector("#theme").textContent),
  actions: false,
  renderer: "svg",
  ast: true, // no code is generated from text, so the page's security policy can forbid that
  defaultStyle: false,
  tooltip: { disableDefaultStyle: true },
};

const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const views = new Map(); // chart -> its Vega view
const hidden = new Set(); // names of arms that are switched off
const buttons = []; // of legends
const sliders = new Map(); // figure -> its slider over epochs

// The page keeps the names of a dataset's fields once, above its rows.
function read(text) {
  const spec = JSON.parse(text);
  for (const [name, [fields, ...rows]] of Object.entries(spec.datasets ?? {}))
    spec.datasets[name] = rows.map((row) => Object.fromEntries(fields.map((field, place) => [field, row[place]])));
  return spec;
}

// Every view of a chart that has a mark, with its rows.
function* marks(spec, view = spec, inherited = undefined) {
  const source = view.data?.name ?? inherited;
  for (const child of view.layer ?? []) yield* marks(spec, child, source);
  if (view.mark) yield [view, spec.datasets?.[source] ?? []];
}

function addParameter(spec, name, value) {
  spec.params = [...(spec.params ?? []), { name, value }];
}

// Marks of an arm are drawn unless the chart's parameter `hidden` has its name. Returns the names of all arms.
function makeSwitchable(spec) {
  const names = new Set();
  for (const [view, rows] of marks(spec)) {
    if (!rows.some((row) => row.base !== undefined)) continue;
    rows.forEach((row) => names.add(String(row.base)));
    view.transform = [{ filter: "indexof(hidden, datum.base) < 0" }, ...(view.transform ?? [])];
  }
  addParameter(spec, "hidden", []);
  return names;
}

// Cells of a heat map pale unless they are of the epoch that the chart's parameter `epoch` has; null: all are as they are.
// Returns the epochs, none for other charts.
function makeMovable(spec) {
  const epochs = new Set();
  for (const [view, rows] of marks(spec)) {
    if ((view.mark.type ?? view.mark) !== "rect" || view.encoding?.x?.field !== "epoch") continue;
    rows.forEach((row) => epochs.add(row.epoch));
    const test = "epoch === null || datum.epoch === epoch";
    view.encoding.opacity = { condition: { test, value: 1 }, value: 0.15 };
  }
  if (epochs.size) addParameter(spec, "epoch", null);
  return [...epochs].sort((a, b) => a - b);
}

// A figure has one slider for all its heat maps, whose first place is all epochs.
function addSlider(figure, chart, epochs) {
  const known = sliders.get(figure);
  if (known) {
    known.charts.push(chart);
    known.move();
    return;
  }
  const label = document.createElement("label");
  const range = document.createElement("input");
  const said = document.createElement("output");
  const charts = [chart];
  const move = (place = Number(range.value)) => {
    const epoch = place ? epochs[place - 1] : null;
    said.textContent = range.ariaValueText = epoch === null ? "all" : `${epoch}`;
    for (const one of charts) views.get(one)?.signal("epoch", epoch).run();
  };
  Object.assign(range, { type: "range", min: 0, max: epochs.length, value: 0 });
  range.addEventListener("input", () => move());
  label.className = "epochs";
  label.append("Epoch ", range, " ", said);
  figure.querySelector(".panels").before(label);
  sliders.set(figure, { charts, move });
  move();
}

function addButtons(figure, names) {
  for (const entry of all(".keys li", figure)) {
    const name = entry.textContent.trim();
    if (!names.has(name) || entry.firstElementChild.tagName === "BUTTON") continue;
    const button = document.createElement("button");
    button.type = "button";
    button.title = `Show or hide ${name}`;
    button.dataset.name = name;
    button.append(...entry.childNodes);
    button.addEventListener("click", () => turn(name, hidden.has(name)));
    entry.append(button);
    buttons.push(button);
  }
}

function turn(name, on) {
  if (on) hidden.delete(name);
  else hidden.add(name);
  const off = [...hidden].map(encodeURIComponent).join(",");
  history.replaceState(null, "", off ? `#hide=${off}` : location.pathname + location.search);
  show(hidden);
}

function show(off) {
  for (const view of views.values()) view.signal("hidden", [...off]).run();
  for (const panel of all(".panel[data-arm]")) panel.hidden = off.has(panel.dataset.arm);
  for (const button of buttons) button.setAttribute("aria-pressed", String(!off.has(button.dataset.name)));
  for (const box of all("#switches input")) box.checked = !off.has(box.value);
}

function readAddress() {
  if (!location.hash.startsWith("#hide=")) return;
  hidden.clear();
  for (const part of location.hash.slice(6).split(",")) {
    try {
      if (part) hidden.add(decodeURIComponent(part));
    } catch {} // not a name that this page has written
  }
  show(hidden);
}

async function draw(chart) {
  const still = [...chart.childNodes];
  chart.style.minHeight = `${chart.offsetHeight}px`;
  try {
    const spec = read(chart.nextElementSibling.textContent);
    const names = makeSwitchable(spec);
    const epochs = makeMovable(spec);
    const { view } = await vegaEmbed(chart, spec, options);
    views.set(chart, view.logLevel(1)); // which would warn of a chart all of whose arms are switched off
    if (hidden.size) view.signal("hidden", [...hidden]).run();
    addButtons(chart.closest("figure"), names);
    if (epochs.length > 1) addSlider(chart.closest("figure"), chart, epochs);
    chart.dataset.drawn = "yes";
  } catch (error) {
    chart.replaceChildren(...still);
    console.error(error);
  }
  chart.style.minHeight = "";
}

// One chart after another, those first that can be seen, so that the page can be read and scrolled meanwhile.
async function drawAll() {
  const waiting = new Set(all(".chart"));
  const near = new Set();
  const watcher = new IntersectionObserver(
    (entries) => entries.forEach((entry) => near[entry.isIntersecting ? "add" : "delete"](entry.target)),
    { rootMargin: "300px" },
  );
  waiting.forEach((chart) => watcher.observe(chart));
  await new Promise((ready) => setTimeout(ready));
  while (waiting.size) {
    const chart = [...near].find((one) => waiting.has(one)) ?? waiting.values().next().value;
    waiting.delete(chart);
    await draw(chart);
    await new Promise((ready) => setTimeout(ready));
  }
  watcher.disconnect();
  show(hidden);
}

function addSwitches() {
  const place = document.querySelector("#switches");
  if (all("input", place).length < 2) return;
  place.hidden = false;
  place.addEventListener("change", (event) => turn(event.target.value, event.target.checked));
}

function addSearch(part) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  const said = document.createElement("span");
  box.type = "search";
  said.setAttribute("role", "status");
  label.className = "search";
  label.append("Find in this table ", box, " ", said);
  part.before(label);
  box.addEventListener("input", () => {
    const wanted = box.value.trim().toLowerCase();
    const rows = all("tbody tr", part);
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    const found = rows.filter((row) => !row.hidden).length;
    said.textContent = wanted ? `${found} of ${rows.length} rows` : "";
  });
}

addSwitches();
all(".scroll.tall").forEach(addSearch);
readAddress();
addEventListener("hashchange", readAddress);
drawAll();

let opened = [];
let filtered = [];
addEventListener("beforeprint", () => {
  opened = all("details:not([open])");
  opened.forEach((details) => (details.open = true));
  filtered = all("tbody tr[hidden]");
  filtered.forEach((row) => (row.hidden = false));
  show(new Set()); // paper has all arms
  for (const slider of sliders.values()) slider.move(0); // and all epochs
});
addEventListener("afterprint", () => {
  opened.forEach((details) => (details.open = false));
  filtered.forEach((row) => (row.hidden = true));
  show(hidden);
  for (const slider of sliders.values()) slider.move();
});
