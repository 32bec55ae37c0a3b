// What scrolls sideways can be scrolled with the keyboard, and the page's two sides have names.
addEventListener("DOMContentLoaded", () => {
  for (const part of document.querySelectorAll("pre, .table-wrapper, .formula")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  }
  for (const [side, name] of Object.entries({ ".sidebar-drawer": "Pages", ".toc-drawer": "On this page" })) {
    document.querySelector(side)?.setAttribute("aria-label", name);
  }
});
