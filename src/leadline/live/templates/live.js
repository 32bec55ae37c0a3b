// Replaces the parts of the page that have changed, as the server sends them; the page also works without this script.
const status = document.getElementById("status");
const SILENT = 30_000; // milliseconds without an event after which the connection counts as lost
const AGAIN = 3_000; // until the next attempt
let source = null;
let watchdog = 0;
let waiting = {}; // parts that are not replaced now, because text in them is selected

function say(text, kind) {
  status.textContent = text;
  status.className = `status ${kind}`;
}

function heard() {
  clearTimeout(watchdog);
  watchdog = setTimeout(lost, SILENT);
  say(`Live, ${new Date().toLocaleTimeString()}`, "live");
  status.removeAttribute("role"); // the time that passes is not read aloud
}

function lost() {
  if (status.classList.contains("lost")) return;
  status.setAttribute("role", "status");
  say(`Disconnected since ${new Date().toLocaleTimeString()}; trying again`, "lost");
}

function connect() {
  source?.close();
  source = new EventSource(document.body.dataset.events);
  source.addEventListener("parts", (event) => {
    heard();
    update(JSON.parse(event.data));
  });
  source.onerror = () => {
    lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(() => !document.hidden && connect(), AGAIN);
  };
}

function update(parts) {
  waiting = { ...waiting, ...parts };
  for (const [name, html] of Object.entries(waiting)) {
    const part = document.getElementById(name) ?? add(name);
    const selection = getSelection();
    if (!selection.isCollapsed && part.contains(selection.anchorNode)) continue;
    replace(part, html);
    delete waiting[name];
  }
}

// A part that the page did not have when it was loaded, because the study could not be read.
function add(name) {
  const part = document.createElement("section");
  part.id = name;
  document.getElementById("health").before(part);
  return part;
}

// Puts new content in place; what the reader has opened, scrolled to or focused stays as it is.
function replace(part, html) {
  const open = [...part.querySelectorAll("details[open]")].map((details) => details.id);
  const scrolled = [...part.querySelectorAll(".scroll")].map((area) => [area.scrollLeft, area.scrollTop]);
  const focusable = "a, summary, [tabindex]";
  const focused = [...part.querySelectorAll(focusable)].indexOf(document.activeElement);
  part.innerHTML = html;
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  [...part.querySelectorAll(".scroll")].forEach((area, place) => area.scrollTo(...(scrolled[place] ?? [0, 0])));
  if (focused >= 0) part.querySelectorAll(focusable)[focused]?.focus({ preventScroll: true });
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(watchdog);
    source.close(); // browsers open only a few connections to one server
  } else {
    connect();
  }
});
connect();
