// What goes on while a page is open: asked again and again, but not while nobody looks.

const LONGEST_SECONDS = 10;

/** Call `step` now and every so many seconds until the signal says that the page was left.
 *
 * It is given a signal that ends its requests as well where nothing is answered: a service that hangs must be seen to.
 */
export function poll(step, seconds, signal) {
  let timer = 0;
  const next = async () => {
    if (signal.aborted) return;
    if (!document.hidden) await step(AbortSignal.any([signal, AbortSignal.timeout(1000 * LONGEST_SECONDS)]));
    if (!signal.aborted) timer = setTimeout(next, 1000 * seconds);
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  return next();
}
