// A shop as its visitors see it: what they click is real feedback, and the next carousels know of it.

import { get, may, path, post } from "../api.js";
import { announce, fill, h } from "../dom.js";
import { named } from "../format.js";
import { button, card, empty, field, freshId, head, toast, trouble, turn } from "../parts.js";

const SHOPPER = "rec-engine shopper";
const SHOWN = 12;

export async function render({ query, signal }) {
  const state = { shopper: query.get("shopper") || sessionStorage.getItem(SHOPPER) || "demo-shopper", chosen: null, requestByItem: new Map() };
  const shelves = h("div", { class: "stack" });
  const input = h("input", { value: state.shopper, required: true, maxlength: "256", autocomplete: "off" });
  const enter = (event) => {
    event.preventDefault();
    state.shopper = input.value.trim() || "demo-shopper";
    state.chosen = null;
    sessionStorage.setItem(SHOPPER, state.shopper);
    show(state, shelves, signal);
  };
  show(state, shelves, signal);
  return [
    head("Demo shop", "A shopper's view. Clicks here are real feedback of this shopper: the log keeps them, and the next answer knows them."),
    h("div", { class: "stack" },
      h("form", { class: "card search", onsubmit: enter }, field("Shopper id", input), button("Enter as this shopper", null, { type: "submit" })),
      shelves),
  ];
}

async function show(state, element, signal) {
  const isWanted = turn(element, signal);
  element.setAttribute("aria-busy", "true");
  const [own, similar, trending] = await Promise.all([
    asked(post("recommend", { user_id: state.shopper, num_recommendations: SHOWN }, signal)),
    state.chosen ? asked(get(path("similar-items", state.chosen.item_id), { num_items: SHOWN }, signal)) : null,
    asked(get("trending", { num_items: SHOWN, time_window: "7d" }, signal)),
  ]);
  if (!isWanted()) return;
  if (own.recommendations) state.requestByItem = new Map(own.recommendations.map((item) => [String(item.item_id), own.request_id]));
  const click = (item) => choose(state, item, element, signal);
  fill(element,
    state.chosen && spotlight(state, element, signal),
    shelf("For you", own, own.recommendations, click, state, own.metadata?.user_known ? "From what you have clicked so far." : "Nothing is known of you yet: these are popular. Click something."),
    state.chosen && shelf(`Similar to ${named(state.chosen)}`, similar, similar.similar_items, click, state),
    shelf("Trending this week", trending, trending.items, click, state, null, "Nobody has clicked anything this week."));
  element.removeAttribute("aria-busy");
}

/** Return what is answered, or the problem in its place: a shelf that fails leaves the others. */
const asked = (answer) => answer.catch((problem) => ({ problem }));

async function choose(state, item, element, signal) {
  state.chosen = item;
  await send(state, item, "click");
  await show(state, element, signal);
  announce(`You look at ${named(item)}. The carousels have changed.`);
  element.querySelector("h2")?.focus();
}

async function send(state, item, action) {
  if (!may("ingest")) return toast("Feedback needs a key with the scope ingest or admin");
  const request = state.requestByItem.get(String(item.item_id));
  try {
    await post("feedback", { user_id: state.shopper, item_id: item.item_id, action, ...(request ? { request_id: request } : {}) });
    if (action !== "click") toast(`${action === "purchase" ? "Bought" : action === "like" ? "Liked" : "In the cart"}: ${named(item)}`);
  } catch (problem) {
    toast(`${problem.title}: ${problem.detail}`);
  }
  return undefined;
}

function spotlight(state, element, signal) {
  const item = state.chosen;
  const act = (text, action, kind = "") => button(text, async () => { await send(state, item, action); await show(state, element, signal); }, { kind });
  const box = card(named(item), h("div", { class: "spotlight" }, art(item),
    h("div", {}, h("p", { class: "soft" }, item.categories.join(", ")), item.explanation && h("p", {}, `Shown ${item.explanation}`),
      h("div", { class: "actions" }, act("Add to cart", "add_to_cart", "main"), act("Buy", "purchase"), act("Like", "like"), h("a", { class: "button", href: `#/items/${encodeURIComponent(item.item_id)}` }, "Behind the scenes")))));
  box.classList.add("chosen");
  box.querySelector("h2").tabIndex = -1;
  return box;
}

function shelf(title, answer, items, click, state, about = null, otherwise = "There is nothing to show.") {
  const id = freshId("shelf");
  const content = answer.problem ? trouble(answer.problem)
    : items.length ? h("ul", { class: "carousel", "aria-labelledby": id, tabindex: "0" }, items.map((item) => h("li", {}, product(item, click, state))))
      : empty("Empty", otherwise);
  return h("section", { class: "card", "aria-labelledby": id }, h("h2", { id }, title), about && h("p", { class: "soft small" }, about), content);
}

function product(item, click, state) {
  const isChosen = state.chosen && String(state.chosen.item_id) === String(item.item_id);
  return h("button", { type: "button", class: "product", "aria-current": isChosen ? "true" : null, onclick: () => click(item), "data-item": String(item.item_id) },
    art(item), h("span", { class: "text" }, named(item), h("span", { class: "about" }, item.categories.slice(0, 2).join(", "))));
}

/** Return a picture in place of one that the catalogue does not have: a hue of the category, and its initials. */
function art(item) {
  const kind = item.categories.at(-1) || named(item);
  let hue = 0;
  for (const letter of kind) hue = (hue * 31 + letter.codePointAt(0)) % 360;
  const initials = kind.split(/\s+/).map((word) => [...word][0]).join("").slice(0, 3).toUpperCase();
  return h("span", { class: "art", "aria-hidden": "true", style: { "--hue": String(hue) } }, initials);
}
