// Sets the theme before the first paint, so that no page flashes in the wrong one.
// Loaded without defer; the rest of the dashboard's script is nexus.js.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const choice = localStorage.getItem("nexus-theme");
    const theme = choice === "light" || choice === "dark" ? choice : dark.matches ? "dark" : "light";
    document.documentElement.dataset.bsTheme = theme;
  };
  apply();
  dark.addEventListener("change", apply);
  addEventListener("storage", apply);
  window.nexusTheme = {
    get: () => localStorage.getItem("nexus-theme") ?? "system",
    set(choice) {
      if (choice === "system") localStorage.removeItem("nexus-theme");
      else localStorage.setItem("nexus-theme", choice);
      apply();
    },
  };
})();
