// The versions of the model: how good each is, which one is served, and changing that.

import { get, may, path, post } from "../api.js";
import { h } from "../dom.js";
import { bytes, day, figure, signed } from "../format.js";
import { badge, button, card, dialog, empty, field, head, load, table, toast, trouble } from "../parts.js";
import { version } from "../version.js";

const SHOWN = ["ndcg@10", "hit_rate@10", "recall@20", "coverage@10"];

export async function render({ parts, signal }) {
  if (parts[0]) return version(parts[0], signal);
  const content = h("div", { class: "stack" });
  const show = () => load(content, () => get("models", {}, signal), (found) => models(found, show), { lines: 8, signal });
  show();
  return [head("Models", "Every version that training has published. Figures are of the part that was held out for the test."), content];
}

function models(found, show) {
  const compared = new Set();
  const comparison = h("div", {});
  const choose = (name, isOn) => {
    if (isOn) compared.add(name);
    else compared.delete(name);
    comparison.replaceChildren(...comparisonOf(found.versions.filter((each) => compared.has(each.version))));
  };
  return [
    card("Versions", versions(found, choose, show), rollBack(found, show)),
    comparison,
    card("What was promoted, and why", found.history.length ? table("Latest first", ["When", "What", "Version", "Instead of", "Reason"],
      found.history.map((each) => [day(each.at), each.action, name(each.version), each.replaced ? name(each.replaced) : "–", h("span", { class: "long" }, each.reason)])) : empty("No promotion is on record", "rec-engine train promotes the first version.")),
  ];
}

const name = (text) => h("span", { class: "mono" }, text);

function versions(found, choose, show) {
  const metrics = SHOWN.filter((metric) => found.versions.some((each) => metric in each.metrics));
  const rows = found.versions.map((each) => [
    h("span", {}, h("a", { href: `#/models/${encodeURIComponent(each.version)}`, class: "mono" }, each.version), " ", state(each, found)),
    day(each.created_at), each.dataset || "–", ...metrics.map((metric) => figure(each.metrics[metric])), bytes(each.size_bytes),
    h("label", { class: "check" }, h("input", { type: "checkbox", onchange: (event) => choose(each.version, event.target.checked) }), h("span", { class: "unseen" }, `Compare ${each.version}`)),
    promotion(each, found, show),
  ]);
  return table("Newest first", ["Version", "Made", "Data", ...metrics.map((metric) => `${metric}#`), "Size#", "Compare", "Promote"], rows);
}

function state(each, found) {
  if (each.damage) return badge("damaged", "bad");
  if (each.is_current) return badge("served", "good");
  return each.version === found.rollback_to ? badge("before", "plain") : null;
}

function promotion(each, found, show) {
  if (each.is_current || found.current === null) return "–";
  const label = `Promote ${each.version}`;
  return button("Promote", () => promote(each, found, show), { kind: "tiny", disabled: !may("admin") || Boolean(each.damage), label });
}

function rollBack(found, show) {
  if (!found.rollback_to) return null;
  const act = async () => {
    const reason = await why("Roll back", h("p", {}, "The service returns to ", name(found.rollback_to), "."));
    if (reason !== null) await change(() => post("models/rollback", { reason, leaving: found.current }), show);
  };
  return h("div", { class: "actions end" },
    may("admin") ? null : h("p", { class: "soft small" }, "To change which version is served, enter a key with the scope admin."),
    button("Roll back", act, { kind: "danger", disabled: !may("admin") }));
}

async function promote(each, found, show) {
  const served = found.versions.find((other) => other.is_current);
  const reason = await why("Promote a version", [
    h("p", {}, name(each.version), " answers from now on instead of ", name(found.current), ". Its files are verified first."),
    h("p", { class: "soft" }, each.gate ? `The gate: ${each.gate.sentence}.` : "The gate has not compared the two."),
    served ? differences(served, each) : null,
  ]);
  const act = (force) => post(`models/${path(each.version)}/promote`, { reason, force });
  if (reason !== null) await change(() => act(false), show, () => act(true));
}

function why(title, content) {
  const input = h("input", { maxlength: "1000", autocomplete: "off" });
  return dialog(title, [content, field("Reason, for the record", input)], title, () => input.value.trim());
}

/** Do what was asked for; what the service refuses can be forced after a second look, where there is a way to. */
async function change(act, show, force = null) {
  try {
    const { current } = await act();
    toast(`${current} is promoted; running servers follow within seconds`);
    await show();
  } catch (problem) {
    const isRefused = force !== null && problem.status === 409;
    const isConfirmed = await dialog("That was not done", trouble(problem), isRefused ? "Promote all the same" : "Close");
    if (isRefused && isConfirmed) await change(force, show);
  }
}

function comparisonOf(chosen) {
  if (chosen.length < 2) return [];
  const [later, earlier] = chosen;
  return [card("Comparison", differences(earlier, later, true))];
}

/** Return a table of two versions' figures and how far they are apart, relatively. */
function differences(earlier, later, isWhole = false) {
  const both = Object.keys(later.metrics).filter((metric) => metric in earlier.metrics && (isWhole || SHOWN.includes(metric)));
  if (!both.length) return h("p", { class: "soft" }, "They have no figure in common.");
  const rows = both.map((metric) => [metric, figure(earlier.metrics[metric]), figure(later.metrics[metric]), difference(earlier.metrics[metric], later.metrics[metric])]);
  const caption = earlier.dataset === later.dataset ? "Differences this small may be chance: the reports have intervals." : "They were trained on different data: their figures cannot be compared.";
  return table(caption, ["Figure", `${earlier.version}#`, `${later.version}#`, "Difference#"], rows);
}

const difference = (from, to) => (from ? signed((to - from) / from) : "–");
