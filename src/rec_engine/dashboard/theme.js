// Before anything is drawn: light or dark as it was chosen here, or else as the machine has it.
(() => {
  const machine = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem("rec-engine theme");
    } catch {
      return null; // A browser that keeps nothing follows the machine.
    }
  };
  const follow = () => {
    document.documentElement.dataset.theme = chosen() || (machine.matches ? "dark" : "light");
    document.dispatchEvent(new Event("themechange"));
  };
  follow();
  machine.addEventListener("change", follow);
})();
