// One user: what he did, what he would be shown and why, and what would change if he met something else.

import { get, may, path, post } from "../api.js";
import { announce, fill, h, settled } from "../dom.js";
import { age, attribute, count, figure, named, percent, when, words } from "../format.js";
import { itemLink, recommendation } from "../items.js";
import { badge, bar, button, card, empty, field, freshId, head, load } from "../parts.js";

const WANTED = 10;
const SHOWN_CATEGORIES = 100;

export async function render({ parts, signal }) {
  const userId = parts.join("/");
  const search = finder(userId, signal);
  if (!userId) {
    const hint = "Give the id of somebody whom the model knows, or of nobody: then you see what a newcomer is shown.";
    return [head("Users", "A user's history beside what the service recommends, with the reason for each item."), h("div", { class: "stack" }, card("Find a user", search), empty("No user is chosen yet", hint))];
  }
  const profile = h("div", {});
  const asked = { diversity: null, categories: new Set(), whatIf: [] };
  const list = h("div", { "aria-live": "off" });
  const show = lister(userId, asked, list, signal);
  load(profile, () => get(path("user", userId, "profile"), {}, signal), (found) => profileOf(found), { lines: 10, signal });
  show();
  return [
    head(`User ${userId}`, "On the left what is known, on the right what would be shown now. Nothing that you try here is recorded."),
    h("div", { class: "grid side" },
      h("div", { class: "stack" }, card("Another user", search), profile),
      card("Recommendations", controls(asked, show, signal), list)),
  ];
}

function finder(userId, signal) {
  const listId = freshId("users");
  const suggestions = h("datalist", { id: listId });
  const input = h("input", { type: "search", value: userId, list: listId, autocomplete: "off", required: true, maxlength: "256" });
  const suggest = settled(async () => {
    if (!may("admin")) return;
    const found = await get("users", { prefix: input.value.trim(), num_users: 12 }, signal).catch(() => ({ users: [] }));
    fill(suggestions, found.users.map((id) => h("option", { value: String(id) })));
  });
  input.addEventListener("input", suggest);
  suggest();
  return h("form", { class: "search", onsubmit: (event) => { event.preventDefault(); location.hash = `#/users/${encodeURIComponent(input.value.trim())}`; } },
    field("User id", input), suggestions, button("Show", null, { kind: "main", type: "submit" }));
}

function profileOf(profile) {
  const categories = Object.entries(profile.favourite_categories);
  const attributes = Object.entries(profile.attributes);
  return h("div", { class: "stack" },
    card("Profile",
      h("div", { class: "row" }, profile.is_known ? badge("known to the model", "good") : badge("new to the model", "worry"), badge(`${count(profile.n_interactions)} interactions`)),
      h("p", { class: "soft small spaced" }, profile.last_seen ? `Last seen ${when(profile.last_seen)}, ${age(Date.now() / 1000 - profile.last_seen)} ago` : "Never seen"),
      attributes.length ? h("dl", { class: "facts" }, attributes.map(([name, value]) => [h("dt", {}, words(name)), h("dd", {}, attribute(name, value))])) : null,
      categories.length ? [h("h3", {}, "What he likes"), h("ul", { class: "shares" }, categories.slice(0, 6).map(([name, share]) => h("li", {}, h("span", {}, name), bar(share / categories[0][1]), h("span", {}, percent(share, 0)))))] : null),
    card("History", profile.recent.length
      ? h("ul", { class: "items" }, profile.recent.map((entry) => h("li", {}, h("div", {}, h("div", { class: "title" }, itemLink(entry)), h("div", { class: "about" }, when(entry.timestamp))), entry.weight > 0 ? null : badge("disliked", "worry"))))
      : empty("Nothing is known of him", "He gets what is popular, until he meets something.")));
}

function controls(asked, show, signal) {
  const shown = h("output", {}, "as the service has it");
  const slider = h("input", { type: "range", min: "0", max: "1", step: "0.05", value: "0" });
  const changed = settled(show, 120);
  slider.addEventListener("input", () => {
    asked.diversity = Number(slider.value);
    fill(shown, figure(asked.diversity, 2));
    changed();
  });
  const chips = h("ul", { class: "chips picker" });
  load(chips, () => get("categories", {}, signal), (found) => found.categories.slice(0, SHOWN_CATEGORIES).map((name) => h("li", {}, chip(name, asked, show))), { lines: 1, signal });
  return h("div", {},
    h("div", { class: "field" }, h("label", { for: "diversity" }, "Diversity: ", shown), Object.assign(slider, { id: "diversity" })),
    h("fieldset", {}, h("legend", {}, "Only these categories"), chips));
}

function chip(name, asked, show) {
  const made = button(name, () => {
    const isOn = !asked.categories.has(name);
    if (isOn) asked.categories.add(name);
    else asked.categories.delete(name);
    made.setAttribute("aria-pressed", String(isOn));
    show();
  });
  made.setAttribute("aria-pressed", "false");
  return made;
}

/** Return what asks for the list and shows it, with what has moved since the last one. */
function lister(userId, asked, element, signal) {
  let before = null;
  let turn = 0;
  const show = async () => {
    const mine = (turn += 1);
    const body = {
      user_id: userId,
      num_recommendations: WANTED,
      explain: true,
      filter_categories: [...asked.categories],
      context: { recent_items: asked.whatIf.map((item) => item.item_id) },
      ...(asked.diversity === null ? {} : { diversity: asked.diversity }),
    };
    const fresh = h("div", {});
    if (!before) fill(element, fresh);
    const answer = await load(fresh, () => post("recommend/preview", body, signal), (found) => listOf(found, before, asked, show), { lines: 12, signal });
    if (mine !== turn || signal.aborted) return;
    fill(element, whatIfOf(asked, show), fresh);
    if (!answer) return;
    before = new Map([...fresh.querySelectorAll("[data-item]")].map((each, at) => [each.dataset.item, at]));
    announce(`${before.size} recommendations`);
  };
  return show;
}

function whatIfOf(asked, show) {
  if (!asked.whatIf.length) return null;
  const drop = (item) => { asked.whatIf = asked.whatIf.filter((each) => each !== item); show(); };
  return h("div", { class: "whatif" }, h("p", { class: "strong small" }, "What if these had just been clicked"),
    h("ul", { class: "chips" }, asked.whatIf.map((item) => h("li", {}, button(`${named(item)} ×`, () => drop(item), { label: `Take ${named(item)} away` })))),
    h("p", { class: "soft small" }, "Only this page knows; the log and the cache do not."));
}

function listOf(answer, before, asked, show) {
  const { metadata } = answer;
  if (!answer.recommendations.length) return empty("Nothing may be shown to him", "Take a category away, or look whether a rule hides too much.");
  const click = (item) => { asked.whatIf = [...asked.whatIf, item]; show(); };
  const about = [`${count(metadata.num_candidates)} candidates`, metadata.reranked ? "re-ranked" : "not re-ranked", metadata.experiment && `experiment ${metadata.experiment}`, metadata.degraded.length && `without ${metadata.degraded.join(", ")}`];
  return [
    h("p", { class: "soft small" }, about.filter(Boolean).join(" · "), " · version ", h("span", { class: "mono" }, metadata.model_version)),
    h("ol", { class: "items" }, answer.recommendations.map((item, at) => recommendation(item, at, before, { onclick: click, userId: answer.user_id }))),
  ];
}
