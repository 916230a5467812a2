// What goes on while a page is open: asked again and again, but not while nobody looks.

/** Call `step` now and every so many seconds until the signal says that the page was left. */
export function poll(step, seconds, signal) {
  let timer = 0;
  const next = async () => {
    if (signal.aborted) return;
    if (!document.hidden) await step();
    if (!signal.aborted) timer = setTimeout(next, 1000 * seconds);
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  return next();
}
