// What scrolls sideways can be scrolled with the keyboard.
addEventListener("DOMContentLoaded", () => {
  for (const part of document.querySelectorAll("pre, .table-wrapper, .chart, .formula")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  }
});
