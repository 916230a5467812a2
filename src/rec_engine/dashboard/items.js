// Items as lists show them, and why each is there.

import { h } from "./dom.js";
import { figure, named, percent, words } from "./format.js";
import { badge, button, leaning, table } from "./parts.js";

/** Return a link to an item's page. */
export const itemLink = (item) => h("a", { href: `#/items/${encodeURIComponent(item.item_id)}` }, named(item));

/** Return one recommended item: its place, what it is, why it is here, and how far it has moved. */
export function recommendation(item, at, before, { onclick }) {
  const id = String(item.item_id);
  const known = before?.get(id);
  const moved = before && known !== at;
  return h("li", { class: moved ? "moved" : null, "data-item": id },
    h("span", { class: "place", "aria-label": `Place ${at + 1}` }, at + 1),
    h("div", {}, h("div", { class: "title" }, itemLink(item), " ", moved && movement(known, at)),
      h("div", { class: "about" }, [item.categories.join(", "), item.explanation].filter(Boolean).join(" · "))),
    h("div", { class: "end" }, chance(item), button("What if clicked", () => onclick(item), { kind: "tiny", label: `What if clicked: ${named(item)}` })),
    item.why && h("details", {}, h("summary", { "aria-label": `Why ${named(item)}` }, "Why"), why(item.why)));
}

function movement(known, at) {
  if (known === undefined) return badge("new here", "accent");
  return known > at ? badge(`up ${known - at}`, "good") : badge(`down ${at - known}`, "plain");
}

function chance(item) {
  const { ranking_score: chanceOfClick } = item.metadata;
  return chanceOfClick === null || chanceOfClick === undefined
    ? h("span", { class: "small soft" }, `score ${figure(item.score, 3)}`)
    : h("span", { class: "small" }, `${percent(chanceOfClick)} chance of a click`);
}

/** Return everything that speaks for an item: sources, history, and what each feature adds. */
export function why(reasons) {
  const largest = Math.max(...reasons.contributions.map((each) => Math.abs(each.contribution)), 0.001);
  return h("div", { class: "why" },
    h("div", {},
      reasons.drawn_by.length ? h("p", {}, "Drawn by ", reasons.drawn_by.map((item, at) => [at ? ", " : "", itemLink(item)])) : null,
      reasons.rules.length ? h("p", {}, "Rules: ", reasons.rules.map((rule) => `${rule.rule_id} (${rule.action})`).join(", ")) : null,
      sources(reasons.sources)),
    reasons.contributions.length
      ? h("div", {}, table(`Log-odds of a click ${figure(reasons.log_odds, 3)}, of which ${figure(reasons.base, 3)} for any item`,
        ["Feature", "Adds", "Adds#"], reasons.contributions.map((each) => [words(each.feature), leaning(each.contribution / largest), figure(each.contribution, 2)])))
      : h("p", { class: "soft" }, "Nothing was re-ranked: the order is that of the sources."));
}

/** Return which source offered an item at which rank. */
export function sources(found) {
  const offered = found.filter((each) => each.rank !== null);
  const rows = (offered.length ? offered : found).map((each) => [each.source, each.rank ?? "–", figure(each.score, 3)]);
  return table("Sources that offered it", ["Source", "Rank#", "Score#"], rows);
}

/** Return items of any list in short: title, categories, and what is said of each. */
export function shortList(items, said = (item) => item.explanation) {
  return h("ul", { class: "items" }, items.map((item) => h("li", {},
    h("div", {}, h("div", { class: "title" }, itemLink(item)), h("div", { class: "about" }, (item.categories || []).join(", "))),
    h("div", { class: "small soft" }, said(item)))));
}

