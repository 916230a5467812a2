// One version of the model: what its training found out about it.

import { get, key, path } from "./api.js";
import { h } from "./dom.js";
import { age, count, day, figure, percent, signed, words } from "./format.js";
import { bar, button, card, head, load, table, toast } from "./parts.js";

const METRICS = ["ndcg@10", "hit_rate@10", "recall@20"];
const MAX_FEATURES = 12;

export function version(name, signal) {
  const content = h("div", { class: "stack" });
  load(content, () => get(`models/${path(name)}/figures`, {}, signal), figures, { lines: 12, signal });
  return [head(name, "What training found out about this version.", report(name), h("a", { class: "button", href: "#/models" }, "All versions")), content];
}

/** Return a way to the report: a link where no key is needed, else a download, for a link could not show the key. */
function report(name) {
  const where = `models/${path(name)}/report`;
  if (!key()) return h("a", { class: "button", href: where, target: "_blank", rel: "noopener" }, "Report");
  return button("Download the report", async () => {
    try {
      const link = h("a", { href: URL.createObjectURL(new Blob([await get(where)], { type: "text/html" })), download: `${name}.html` });
      link.click();
      URL.revokeObjectURL(link.href);
    } catch (problem) {
      toast(`${problem.title}: ${problem.detail}`);
    }
  });
}

function figures(found) {
  return [
    h("div", { class: "verdict" }, h("p", { class: "strong" }, "Verdict"), h("p", {}, found.verdict)),
    card("Beside other models", models(found)),
    h("div", { class: "grid halves" },
      h("div", { class: "stack" }, card("Where candidates come from", recall(found.sources)), card("What the re-ranker goes by", features(found.importances))),
      h("div", { class: "stack" }, card("For whom it is good", slices(found.slices, found.models.at(-1)?.name)), card("How it was made", made(found)))),
  ];
}

function models(found) {
  const metrics = METRICS.filter((metric) => found.models.every((each) => metric in each.metrics));
  const rows = found.models.map((each) => [each.name, ...metrics.map((metric) => estimate(each.metrics[metric])), each.gain ? signed(each.gain.mean) : "–", each.gain ? `${signed(each.gain.low)} to ${signed(each.gain.high)}` : "–"]);
  return table(`Mean over ${count(found.n_users)} users with 95% intervals; ahead: of this model over the other, in ndcg@10`, ["Model", ...metrics.map((metric) => `${metric}#`), "Ahead by#", "Interval#"], rows);
}

const estimate = (each) => h("span", {}, figure(each.mean), " ", h("span", { class: "soft small" }, `${figure(each.low, 3)}–${figure(each.high, 3)}`));

function recall(sources) {
  return table("Share of what users chose that each source offers", ["Source", "Share", "Recall#", "Alone#", "Offered#"],
    sources.map((each) => [each.name, bar(each.recall), percent(each.recall), percent(each.alone), figure(each.n_offered, 3)]));
}

function features(importances) {
  const rows = Object.entries(importances).slice(0, MAX_FEATURES);
  if (!rows.length) return h("p", { class: "soft" }, "There is no re-ranker.");
  const largest = Math.max(...rows.map(([, share]) => share));
  return table("Share of the trees' gain", ["Feature", "Share", "Share#"], rows.map(([name, share]) => [words(name), bar(share / largest), percent(share)]));
}

function slices(found, model) {
  const rows = found.filter((each) => each.model === model && each.recall);
  if (!rows.length) return h("p", { class: "soft" }, "No part of the users was looked at.");
  return table(`Recall@10 of ${model}, with 95% intervals`, ["Part", "Of the", "Recall#", "Interval#", "Users#"],
    rows.map((each) => [each.name.split(":")[0], each.group, percent(each.recall.mean), `${percent(each.recall.low)} to ${percent(each.recall.high)}`, count(each.n_users)]));
}

function made(found) {
  const seconds = Object.values(found.seconds_by_stage).reduce((total, each) => total + each, 0);
  const facts = [["Made", day(found.created_at)], ["Data", found.dataset], ["Split", words(found.split)], ["Rows", Object.entries(found.n_rows_by_part).map(([part, n]) => `${part} ${count(n)}`).join(", ")],
    ["Epochs", count(found.epochs.length)], ["Re-ranker", found.objective || "none"], ["Took", age(seconds)], ["Leaks found", count(found.leaks.filter((each) => each.found).length)]];
  return h("dl", { class: "facts" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
