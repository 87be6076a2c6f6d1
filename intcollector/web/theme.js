// Before anything is painted: the theme chosen last time. A classic script, since modules run after the first paint.
"use strict";
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("intcollector-theme");
  } catch (error) {
    if (!(error instanceof DOMException)) throw error; // storage is forbidden: as the system says
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
