// The end of the log, as it grows.

import { get, may } from "../api.js";
import { announce, fill, h } from "../dom.js";
import { count, lately, when, words } from "../format.js";
import { badge, button, card, empty, field, head, trouble } from "../parts.js";
import { poll } from "../poll.js";

const SECONDS = 2;
const KEPT = 200;
const SHOWN = 60;
const ACTIONS = ["view", "click", "like", "dislike", "share", "add_to_cart", "purchase", "rating"];
const GOOD = new Set(["like", "share", "add_to_cart", "purchase"]);

export async function render({ signal }) {
  if (!may("admin")) return [head("Events"), empty("Only for administrators", "Events name users: enter a key with the scope admin.")];
  const state = { events: [], position: 0, isPaused: false, action: "", user: "", fresh: new Set() };
  const list = h("ol", { class: "tail", "aria-label": "Latest events, newest first" });
  const about = h("p", { class: "soft small" });
  const failure = h("div", {});
  const show = () => fill(list, rows(state)) && fill(about, said(state));
  const pause = button("Pause", () => {
    state.isPaused = !state.isPaused;
    fill(pause, state.isPaused ? "Go on" : "Pause");
    show();
  });
  const action = h("select", { onchange: () => { state.action = action.value; show(); } }, h("option", { value: "" }, "All"), ACTIONS.map((name) => h("option", { value: name }, words(name))));
  const user = h("input", { type: "search", autocomplete: "off", oninput: () => { state.user = user.value.trim(); show(); } });
  poll((current) => look(state, failure, show, current), SECONDS, signal);
  return [
    head("Events", "What users did, as it reaches the log.", pause),
    h("div", { class: "stack" }, h("div", { class: "card search" }, field("What", action), field("User id", user)), card("Latest", failure, about, list)),
  ];
}

async function look(state, failure, show, signal) {
  if (state.isPaused) return;
  try {
    const isFirst = state.position === 0;
    const found = await get("events", { after: state.position, num_events: 100 }, signal);
    state.fresh = new Set(isFirst ? [] : found.events.map((each) => each.position));
    state.events = [...found.events, ...state.events].slice(0, KEPT);
    state.position = found.position;
    if (!isFirst && found.events.length) announce(`${count(found.events.length)} new events`);
    fill(failure);
    show();
  } catch (error) {
    if (error.name !== "AbortError") fill(failure, trouble(error));
  }
}

const wanted = (state) => state.events.filter((each) => (!state.action || each.action === state.action) && (!state.user || each.user_id === state.user));

function said(state) {
  const name = state.isPaused ? "Paused" : "Live";
  return `${name}; the log is at position ${count(state.position)}; ${count(wanted(state).length)} of the latest ${count(state.events.length)} events.`;
}

function rows(state) {
  const found = wanted(state);
  if (!found.length) return h("li", { class: "nothing" }, empty("No event yet", "Send one to POST /feedback, or click something in the demo shop."));
  return found.slice(0, SHOWN).map((each) => h("li", { class: state.fresh.has(each.position) ? "fresh" : null },
    h("time", { datetime: new Date(1000 * each.timestamp).toISOString(), title: when(each.timestamp) }, lately(each.timestamp)),
    h("span", {}, badge(words(each.action), each.action === "dislike" ? "worry" : GOOD.has(each.action) ? "good" : "accent"), each.value === null ? null : ` ${each.value}`),
    h("span", {}, h("a", { href: `#/items/${encodeURIComponent(each.item_id)}` }, each.title || `Item ${each.item_id}`)),
    h("span", { class: "soft" }, "by ", h("a", { href: `#/users/${encodeURIComponent(each.user_id)}` }, each.user_id))));
}
