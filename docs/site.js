// What the theme leaves out for those who use a screen reader or have no mouse.
addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  // What is scrolled can have the focus, so that the arrow keys scroll it.
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .md-search__scrollwrap")) box.tabIndex = 0;
  // Of several parts of a page with one name, each has a number.
  const seen = {};
  for (const part of document.querySelectorAll("nav[aria-label]")) {
    const name = part.getAttribute("aria-label");
    seen[name] = (seen[name] ?? 0) + 1;
    if (seen[name] > 1) part.setAttribute("aria-label", `${name} ${seen[name]}`);
  }
});
