// Before anything is drawn: light or dark as it was chosen here, or else as the machine has it.
(() => {
  try {
    const chosen = localStorage.getItem("rec-engine theme");
    if (chosen) document.documentElement.dataset.theme = chosen;
  } catch {
    // A browser that keeps nothing follows the machine.
  }
})();
