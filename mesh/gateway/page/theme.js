// Before anything is drawn: the colours that were chosen last. A classic script, since modules wait for the page.
try {
  document.documentElement.dataset.theme = localStorage.getItem("monai.theme") ?? "auto";
} catch {
  document.documentElement.dataset.theme = "auto"; // storage is switched off
}
