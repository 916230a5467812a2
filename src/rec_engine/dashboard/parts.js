// The few parts that pages are made of.

import { Problem } from "./api.js";
import { announce, fill, h, svg } from "./dom.js";

let nextId = 0;

/** Return an id that no other element has. */
export const freshId = (name) => `${name}-${(nextId += 1)}`;

/** Return the head of a page; the heading takes the focus when the page is opened. */
export function head(title, about = null, ...actions) {
  return h("div", { class: "head" },
    h("div", {}, h("h1", { tabindex: "-1" }, title), about && h("p", { class: "soft" }, about)),
    actions.length ? h("div", { class: "actions" }, actions) : null);
}

/** Return a card with a heading. */
export function card(title, ...children) {
  const id = freshId("card");
  return h("section", { class: "card", "aria-labelledby": id }, h("h2", { id }, title), children);
}

/** Return a figure with its name. */
export function tile(name, value = "–", note = "") {
  const shown = h("dd", { class: "value" }, value);
  const said = h("dd", { class: "note" }, note);
  const element = h("div", { class: "tile" }, h("dt", {}, name), shown, said);
  return { element, set: (text, about = "") => { shown.textContent = text; said.textContent = about; } };
}

export const badge = (text, tone = "plain") => h("span", { class: `badge ${tone}` }, text);

export function button(text, onclick, { kind = "", disabled = false, label = null, type = "button" } = {}) {
  return h("button", { type, class: kind, onclick, disabled, "aria-label": label }, text);
}

/** Return a table that scrolls by itself where it is too wide. Columns that end in # are numbers. */
export function table(caption, columns, rows, { hidden = false } = {}) {
  const isNumber = columns.map((name) => name.endsWith("#"));
  const cells = (row) => row.map((cell, at) => h(at ? "td" : "th", { scope: at ? null : "row", class: isNumber[at] ? "number" : null }, cell));
  const made = h("table", {},
    h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, columns.map((name, at) => h("th", { scope: "col", class: isNumber[at] ? "number" : null }, name.replace("#", ""))))),
    h("tbody", {}, rows.map((row) => h("tr", {}, cells(row)))));
  // What the eye reads stands outside of what scrolls; whoever listens has the caption.
  return h("div", {}, hidden ? null : h("p", { class: "caption", "aria-hidden": "true" }, caption),
    h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption }, made));
}

/** Return a bar from 0 to 1; what it says stands beside it as text, so it is for the eye only. */
export function bar(share, tone = "") {
  const width = `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  return h("span", { class: `bar ${tone}`, "aria-hidden": "true" }, h("span", { style: { width } }));
}

/** Return a bar that goes left or right of the middle, from -1 to 1. */
export function leaning(share) {
  const width = `${Math.min(1, Math.abs(share || 0)) * 50}%`;
  return h("span", { class: `bar leaning ${share < 0 ? "down" : "up"}`, "aria-hidden": "true" }, h("span", { style: { width } }));
}

export function skeleton(lines = 4) {
  return h("div", { class: "skeleton", role: "status" }, h("span", { class: "unseen" }, "Loading"),
    Array.from({ length: lines }, () => h("span", { class: "line", "aria-hidden": "true" })));
}

/** Return what stands where there is nothing yet: that it is so, and what to do. */
export const empty = (title, hint, action = null) => h("div", { class: "empty" }, h("p", { class: "strong" }, title), h("p", { class: "soft" }, hint), action);

/** Return what went wrong, in the service's own words, and what to do about it. */
export function trouble(error, retry = null) {
  const found = error instanceof Problem ? error : new Problem({ title: "This page has an error", detail: String(error), hint: "Load the page again." });
  return h("div", { class: "trouble", role: "alert" },
    h("p", { class: "strong" }, found.title),
    found.detail && h("p", {}, found.detail),
    found.hint && h("p", { class: "soft" }, `What to do: ${found.hint}`),
    retry && button("Try again", retry));
}

const turns = new WeakMap();

/** Return what says whether an element still waits for this, or is by now to show something else. */
export function turn(element, signal = undefined) {
  const mine = {};
  turns.set(element, mine);
  return () => turns.get(element) === mine && !signal?.aborted;
}

/** Show in an element what is asked for, a skeleton before that, and a problem with a way to try again.
 *
 * What was asked for last is what it shows, whatever is answered last; null is returned for what is not shown.
 */
export async function load(element, asked, shown, { lines = 4, signal = undefined } = {}) {
  const isWanted = turn(element, signal);
  fill(element, skeleton(lines));
  element.setAttribute("aria-busy", "true");
  try {
    const found = await asked();
    if (!isWanted()) return null;
    fill(element, shown(found));
    return found;
  } catch (error) {
    if (error.name !== "AbortError" && isWanted()) {
      if (!(error instanceof Problem)) console.error(error);
      fill(element, trouble(error, () => load(element, asked, shown, { lines, signal })));
    }
    return null;
  } finally {
    if (isWanted()) element.removeAttribute("aria-busy");
  }
}

/** Return a labelled control. */
export function field(label, control, hint = null) {
  control.id ||= freshId("field");
  const hintId = hint && freshId("hint");
  if (hintId) control.setAttribute("aria-describedby", hintId);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, hint && h("p", { class: "hint", id: hintId }, hint));
}

/** Ask in a dialog; resolve to what `read` gives, or to null where somebody thought better of it. */
export function dialog(title, content, confirm, read = () => true) {
  return new Promise((resolve) => {
    const id = freshId("dialog");
    const box = h("dialog", { "aria-labelledby": id });
    const done = (value) => { box.close(); box.remove(); resolve(value); };
    const form = h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); done(read()); } },
      h("h2", { id }, title), content,
      h("div", { class: "actions end" }, button("Cancel", () => done(null), { kind: "quiet" }), button(confirm, null, { kind: "main", type: "submit" })));
    box.addEventListener("cancel", (event) => { event.preventDefault(); done(null); });
    document.body.append(fill(box, form));
    box.showModal();
  });
}

/** Say for a moment that something was done. */
export function toast(text) {
  announce(text);
  const element = h("div", { class: "toast", "aria-hidden": "true" }, text);
  document.body.append(element);
  setTimeout(() => element.remove(), 4000);
}

export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, ICONS[name].map((d) => svg("path", { d })));
}

const ICONS = {
  overview: ["M4 13h6V4H4z", "M14 20h6v-9h-6z", "M4 20h6v-3H4z", "M14 7h6V4h-6z"],
  users: ["M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8z", "M4 20c1-4 4-6 8-6s7 2 8 6"],
  catalogue: ["M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14z", "M16 16l5 5"],
  models: ["M12 3l8 4.5v9L12 21l-8-4.5v-9z", "M4 7.5l8 4.5 8-4.5", "M12 12v9"],
  experiments: ["M9 3h6", "M10 3v6l-5.5 9.5A1.7 1.7 0 0 0 6 21h12a1.7 1.7 0 0 0 1.5-2.5L14 9V3", "M7.5 15h9"],
  events: ["M3 12h4l3 7 4-14 3 7h4"],
  light: ["M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8z", "M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5"],
  dark: ["M20 14.5A8 8 0 0 1 9.5 4a8 8 0 1 0 10.5 10.5z"],
  key: ["M8 19a4 4 0 1 0 0-8 4 4 0 0 0 0 8z", "M11 12l8-8M16 7l3 3"],
  shop: ["M5 8h14l1 12H4z", "M9 8V6a3 3 0 0 1 6 0v2"],
};
