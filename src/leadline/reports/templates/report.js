// Replaces every still image by an interactive chart; the page also works without this script.
const options = {
  config: JSON.parse(document.querySelector("#theme").textContent),
  actions: false,
  renderer: "svg",
  ast: true, // no code is generated from text, so the page's security policy can forbid that
  defaultStyle: false,
  tooltip: { disableDefaultStyle: true },
};

// The page keeps the names of a dataset's fields once, above its rows.
function read(text) {
  const spec = JSON.parse(text);
  for (const [name, [fields, ...rows]] of Object.entries(spec.datasets ?? {}))
    spec.datasets[name] = rows.map((row) => Object.fromEntries(fields.map((field, place) => [field, row[place]])));
  return spec;
}

async function draw(chart) {
  const still = [...chart.childNodes];
  chart.style.minHeight = `${chart.offsetHeight}px`;
  try {
    await vegaEmbed(chart, read(chart.nextElementSibling.textContent), options);
    chart.dataset.drawn = "yes";
  } catch (error) {
    chart.replaceChildren(...still);
    console.error(error);
  }
  chart.style.minHeight = "";
}

document.querySelectorAll(".chart").forEach(draw);

let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach((details) => (details.open = true));
});
addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));
