// One item: what it is, what is like it, who met it, and why a user does not see it.

import { get, may, path } from "../api.js";
import { h } from "../dom.js";
import { attribute, count, figure, named, when, words } from "../format.js";
import { shortList, sources } from "../items.js";
import { badge, button, card, empty, field, head, load, table } from "../parts.js";

const SIMILAR = 8;
const LATEST = 12;

export async function render({ parts, signal }) {
  const itemId = parts.join("/");
  if (!itemId) return [head("Item"), empty("No item is chosen", "Find one in the catalogue.", h("a", { class: "button", href: "#/catalogue" }, "To the catalogue"))];
  const item = await get(path("items", itemId), {}, signal);
  const similar = h("div", {});
  const events = h("div", {});
  const shown = h("div", {});
  load(similar, () => get(path("similar-items", itemId), { num_items: SIMILAR }, signal), similarOf, { lines: 8, signal });
  if (may("admin")) {
    load(events, () => get("events", { item_id: itemId, num_events: LATEST }, signal), eventsOf, { signal });
    load(shown, () => get("impressions", { item_id: itemId, num_answers: LATEST }, signal), answersOf, { signal });
  }
  return [
    head(named(item), item.categories.join(", "), item.is_visible ? null : badge("hidden", "worry")),
    h("div", { class: "grid halves" },
      h("div", { class: "stack" }, about(item), whyNot(itemId, signal)),
      h("div", { class: "stack" }, card("Similar items", similar),
        may("admin") ? [card("Who did something with it", events), card("Who was shown it", shown)] : card("Who met it", empty("Only for administrators", "Events name users: enter a key with the scope admin.")))),
  ];
}

function about(item) {
  const facts = [["Id", h("span", { class: "mono" }, String(item.item_id))], ["Users who met it", count(item.n_users)],
    ...Object.entries(item.attributes).map(([name, value]) => [words(name), attribute(name, value)])];
  return card("What it is", item.description && h("p", {}, item.description),
    h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
}

function similarOf(answer) {
  if (!answer.similar_items.length) return empty("Nothing is like it", "It is the only visible item.");
  return shortList(answer.similar_items, (each) => `cosine ${figure(each.score, 3)}`);
}

const user = (id) => h("a", { href: `#/users/${encodeURIComponent(id)}` }, id);

function eventsOf(found) {
  if (!found.events.length) return empty("No event of late", "Events of the log show here as soon as they come; those of the training data are only counted.");
  return table("Latest events", ["User", "What", "When"], found.events.map((each) => [user(each.user_id), words(each.action), when(each.timestamp)]), { hidden: true });
}

function answersOf(found) {
  if (!found.answers.length) return empty("Nobody was shown it of late", "The latest 2,000 answers were looked through.");
  return table("Latest answers", ["User", "Place#", "When"], found.answers.map((each) => [user(each.user_id), each.position, when(each.timestamp)]), { hidden: true });
}

function whyNot(itemId, signal) {
  const input = h("input", { type: "search", required: true, maxlength: "256", autocomplete: "off" });
  const answer = h("div", { "aria-live": "polite" });
  const asks = (event) => {
    event.preventDefault();
    const query = { user_id: input.value.trim(), item_id: itemId };
    load(answer, () => get("debug/why-not", query, signal), reasonOf, { lines: 3, signal });
  };
  if (!may("admin")) return card("Why does a user not see it?", empty("Only for administrators", "Enter a key with the scope admin."));
  return card("Why does a user not see it?",
    h("form", { class: "search", onsubmit: asks }, field("User id", input), button("Ask", null, { kind: "main", type: "submit" })), answer);
}

const STEPS = ["catalogue", "categories", "filter", "rules", "history", "exclude_items", "recall", "rank", "arrange"];

function reasonOf(found) {
  const isShown = found.step === "shown";
  const said = isShown ? "He does see it" : `It is dropped at the step “${words(found.step)}”`;
  return [
    h("div", { class: `verdict ${isShown ? "good" : "worry"}` }, h("p", { class: "strong" }, said), h("p", {}, sentence(found.detail))),
    h("p", { class: "small soft" }, "Steps, in order: ", STEPS.map((step, at) => [at ? " → " : "", step === found.step ? h("strong", {}, words(step)) : words(step)])),
    found.place === null ? null : h("p", { class: "small soft" }, `Place ${found.place} by score ${figure(found.score)}; the last item shown has ${figure(found.needed)}.`),
    found.sources.length ? sources(found.sources) : null,
  ];
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
