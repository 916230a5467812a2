// The frame: which page is shown, the theme, and the key of this session.

import { access, key, may, refreshAccess, useKey } from "./api.js";
import { announce, fill, h } from "./dom.js";
import { dialog, field, icon, toast, trouble } from "./parts.js";

const PAGES = [
  { name: "overview", title: "Overview", at: "", shows: () => import("./pages/overview.js") },
  { name: "users", title: "Users", at: "users", shows: () => import("./pages/users.js") },
  { name: "items", title: "Item", at: "items", parent: "catalogue", shows: () => import("./pages/item.js") },
  { name: "catalogue", title: "Catalogue", at: "catalogue", shows: () => import("./pages/catalogue.js") },
  { name: "models", title: "Models", at: "models", shows: () => import("./pages/models.js") },
  { name: "experiments", title: "Experiments", at: "experiments", shows: () => import("./pages/experiments.js") },
  { name: "events", title: "Events", at: "events", shows: () => import("./pages/events.js") },
  { name: "shop", title: "Demo shop", at: "shop", shows: () => import("./pages/shop.js") },
];

const main = document.getElementById("main");
const navigation = document.getElementById("navigation");
let leaving = new AbortController();

/** Return the parts of the address behind the hash, and what it asks for. */
function address() {
  const [where, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { parts: where.split("/").map(decode), query: new URLSearchParams(query) };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const { parts, query } = address();
  const page = PAGES.find((each) => each.at === parts[0]) || PAGES[0];
  mark(page);
  document.title = `${page.title} · rec-engine`;
  try {
    const { render } = await page.shows();
    if (signal.aborted) return;
    if (access.needs_key && !may("serve")) return locked();
    fill(main, await render({ parts: parts.slice(1), query, signal }));
  } catch (error) {
    if (signal.aborted) return;
    console.error(error);
    fill(main, trouble(error, show));
  }
  if (!signal.aborted) arrived(page);
}

function arrived(page) {
  const heading = main.querySelector("h1");
  if (heading) document.title = `${heading.textContent} · rec-engine`;
  announce(`${page.title} is shown`);
  if (arrived.before) heading?.focus({ preventScroll: true });
  if (arrived.before) scrollTo(0, 0);
  arrived.before = true;
}

function locked() {
  const about = "This service lets in who shows a key. One with the scope serve reads, one with the scope admin changes things.";
  fill(main, h("div", { class: "card" }, h("h1", { tabindex: "-1" }, "A key is needed"), h("p", { class: "soft" }, about),
    h("p", {}, "Make one on the service's machine: ", h("code", {}, "rec-engine keys new --name me --scope admin")),
    h("button", { class: "main", type: "button", onclick: askForKey }, "Enter a key")));
}

function mark(page) {
  for (const link of navigation.querySelectorAll("a")) {
    if (link.dataset.page === (page.parent || page.name)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  openMenu(false);
}

async function askForKey() {
  const input = h("input", { type: "password", autocomplete: "off", spellcheck: "false", placeholder: "rek_…" });
  const about = h("p", { class: "soft" }, access.needs_key
    ? "It stays in this tab until the tab is closed, and goes to this service only."
    : "This service has no keys: everybody who reaches it may do everything. A key is not needed here.");
  const forget = key() && h("p", { class: "small" }, "Leave the field empty to forget the key that is in use.");
  const given = await dialog("Key of this session", [about, field("Key", input), forget], "Use it", () => input.value.trim());
  if (given === null) return;
  try {
    await useKey(given);
  } catch (problem) {
    await dialog("The key is not used", trouble(problem), "Close");
    return;
  }
  showKey();
  toast(access.scopes.length ? `You may: ${access.scopes.join(", ")}` : "This key opens nothing here");
  show();
}

function showKey() {
  const held = access.needs_key ? access.scopes.at(-1) || "none" : "not needed";
  fill(document.getElementById("key"), icon("key"), h("span", { class: "wordy" }, `Key: ${held}`));
}

function isDark() {
  return document.documentElement.dataset.theme === "dark";
}

function nameTheme() {
  const button = document.getElementById("theme");
  fill(button, icon(isDark() ? "light" : "dark"), h("span", { class: "wordy" }, isDark() ? "Light theme" : "Dark theme"));
}

function changeTheme() {
  const wanted = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = wanted;
  try {
    localStorage.setItem("rec-engine theme", wanted);
  } catch {
    // A browser that keeps nothing forgets it with the page.
  }
  document.dispatchEvent(new Event("themechange"));
}

function openMenu(isOpen) {
  navigation.classList.toggle("open", isOpen);
  document.querySelector(".menu").setAttribute("aria-expanded", String(isOpen));
}

async function start() {
  fill(navigation, PAGES.filter((page) => !page.parent).map((page) =>
    h("a", { href: `#/${page.at}`, "data-page": page.name }, icon(page.name), page.title)));
  document.querySelector(".menu").addEventListener("click", () => openMenu(!navigation.classList.contains("open")));
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
  document.getElementById("theme").addEventListener("click", changeTheme);
  document.getElementById("key").addEventListener("click", askForKey);
  document.addEventListener("themechange", nameTheme);
  nameTheme();
  addEventListener("hashchange", show);
  try {
    await refreshAccess();
  } catch (error) {
    fill(main, trouble(error, () => location.reload()));
    return;
  }
  showKey();
  await show();
}

start();
