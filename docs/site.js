// Whoever has no mouse scrolls wide tables with the keys of the arrows, once the table has the focus.
addEventListener("load", () => {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) table.tabIndex = 0;
});
