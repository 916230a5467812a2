// Finding items by words of their titles.

import { get } from "../api.js";
import { announce, h, settled } from "../dom.js";
import { count } from "../format.js";
import { itemLink } from "../items.js";
import { button, card, empty, field, head, load, table } from "../parts.js";

const PAGE = 25;
const FURTHEST = 10_000;

export async function render({ query, signal }) {
  const input = h("input", { type: "search", value: query.get("query") || "", autocomplete: "off", maxlength: "256" });
  const select = h("select", {}, h("option", { value: "" }, "All categories"));
  const found = h("div", {});
  const search = () => find(found, input.value, select.value, 0, signal);
  input.addEventListener("input", settled(search));
  select.addEventListener("change", search);
  get("categories", {}, signal).then(({ categories }) => select.append(...categories.map((name) => h("option", { value: name }, name)))).catch(() => {});
  search();
  return [
    head("Catalogue", "By how words of a title begin, or by an item's id. Those that most users met come first."),
    h("div", { class: "stack" },
      h("form", { class: "card search", role: "search", onsubmit: (event) => { event.preventDefault(); search(); } }, field("Words or id", input), field("Category", select)),
      card("Items", found)),
  ];
}

async function find(element, query, category, first, signal) {
  if (signal.aborted) return; // the address is another page's by now
  history.replaceState(null, "", `#/catalogue${query ? `?query=${encodeURIComponent(query)}` : ""}`);
  const asked = () => get("items", { query, category, first, num_items: PAGE }, signal);
  const answer = await load(element, asked, (found) => listOf(found, first, (at) => find(element, query, category, at, signal)), { lines: 10, signal });
  if (answer) announce(`${count(answer.n_found)} items found`);
}

function listOf(found, first, go) {
  if (!found.items.length) return empty("No item is found", "Try fewer letters, another category, or see whether it is hidden.");
  const last = first + found.items.length;
  const rows = found.items.map((item) => [itemLink(item), item.categories.join(", "), count(item.n_users), h("span", { class: "mono" }, String(item.item_id))]);
  return [
    table(`${count(first + 1)} to ${count(last)} of ${count(found.n_found)}`, ["Title", "Categories", "Users#", "Id"], rows),
    h("div", { class: "actions end" },
      button("Earlier", () => go(first - PAGE), { disabled: first === 0 }),
      button("Further", () => go(first + PAGE), { disabled: last >= Math.min(found.n_found, FURTHEST) })),
  ];
}
