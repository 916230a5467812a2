// How the service is doing now, and what it has done since it started.

import { get } from "../api.js";
import { liveChart } from "../chart.js";
import { fill, h } from "../dom.js";
import { age, bytes, compact, count, day, figure, milliseconds, percent } from "../format.js";
import { badge, bar, card, head, load, skeleton, table, tile, trouble } from "../parts.js";
import { poll } from "../poll.js";
import { between, read } from "../stats.js";

const SECONDS = 2;
const MODEL_SECONDS = 10;

export function render({ signal }) {
  const tiles = {
    traffic: tile("Answers a second"),
    latency: tile("Answer time, p99"),
    hits: tile("Cache hit rate"),
    events: tile("Events on disk"),
    errors: tile("Errors"),
  };
  const charts = {
    traffic: liveChart("Answers a second, over the last minutes", [{ name: "answers", tone: "accent", fill: true }], (value) => figure(value, 3), signal),
    latency: liveChart("Mean time of an answer, over the last minutes", [{ name: "mean", tone: "accent", fill: true }], (value) => `${figure(value, 3)} ms`, signal),
  };
  const stages = h("div", {}, skeleton(6));
  const store = h("div", {}, skeleton(5));
  const model = h("div", {}, skeleton(6));
  const failure = h("div", {});
  poll((current) => look(tiles, charts, { stages, store, failure }, current), SECONDS, signal);
  poll((current) => showModel(model, current, signal), MODEL_SECONDS, signal);
  return [
    head("Overview", "All server processes together, since the service started. The charts begin when this page is opened.", badge("live", "good")),
    failure,
    h("dl", { class: "tiles" }, Object.values(tiles).map((each) => each.element)),
    h("div", { class: "grid halves" },
      h("div", { class: "stack" }, card("Traffic", charts.traffic.element), card("Time by stage", stages), card("Log and cache", store)),
      h("div", { class: "stack" }, card("Answer time", charts.latency.element), card("Model", model))),
  ];
}

let before = null;

async function look(tiles, charts, parts, signal) {
  try {
    const at = performance.now() / 1000;
    const now = read(await get("stats", {}, signal));
    const since = before && before.now.answers <= now.answers ? between(before.now, now, Math.max(at - before.at, 0.1)) : null;
    before = { at, now };
    showTiles(tiles, now, since);
    charts.traffic.push(Date.now() / 1000, [since ? since.answers : null]);
    charts.latency.push(Date.now() / 1000, [since ? since.milliseconds : null]);
    fill(parts.stages, stagesOf(now));
    fill(parts.store, storeOf(now));
    fill(parts.failure);
  } catch (error) {
    if (error.name !== "AbortError") fill(parts.failure, trouble(error));
  }
}

function showTiles(tiles, now, since) {
  const looks = now.hits + now.misses;
  const errors = now.errors.reduce((total, row) => total + row.value, 0);
  tiles.traffic.set(since ? figure(since.answers, 3) : "–", `${compact(now.answers)} in all`);
  tiles.latency.set(now.recommend ? milliseconds(now.recommend.p99_ms) : "–", now.recommend ? `median ${milliseconds(now.recommend.p50_ms)}` : "no answer yet");
  tiles.hits.set(looks ? percent(now.hits / looks) : "–", `${compact(looks)} looks`);
  tiles.events.set(compact(now.events), since ? `${figure(since.events, 3)} a second` : "");
  tiles.errors.set(compact(errors), now.errors.map((row) => `${compact(row.value)} × ${row.status}`).join(", ") || "none so far");
}

function stagesOf(now) {
  const largest = Math.max(...now.stages.map((row) => row.mean_ms || 0), 0.001);
  const rows = now.stages.map((row) => [row.stage, bar((row.mean_ms || 0) / largest), milliseconds(row.mean_ms), milliseconds(row.p50_ms), milliseconds(row.p99_ms)]);
  return h("div", { class: "stages" }, table("Of recommendations. Cached ones have no eligible, recall, rank and arrange.", ["Stage", "Share", "Mean#", "Median#", "p99#"], rows));
}

function storeOf(now) {
  const degraded = now.degraded.map((row) => `${row.part} ${count(row.value)}`).join(", ");
  return facts([
    ["Server processes", count(now.workers)],
    ["Events acknowledged", count(now.events)],
    ["Waiting to be written", count(now.waiting)],
    ["Impressions dropped", count(now.dropped)],
    ["Users in memory", count(now.usersInMemory)],
    ["Answers in memory", bytes(now.cacheBytes)],
    ["Answers without a part", degraded || "none"],
  ]);
}

async function showModel(element, current, signal) {
  if (element.querySelector("dl")) {
    try {
      fill(element, modelOf(await get("model/status", {}, current)));
    } catch {
      // The tiles above say that the service does not answer.
    }
  } else await load(element, () => get("model/status", {}, current.aborted ? signal : current), modelOf, { lines: 6, signal });
}

function modelOf(status) {
  const chosen = ["ndcg@10", "hit_rate@10", "recall@20", "coverage@10"].filter((name) => name in status.metrics);
  return [
    status.failure && h("div", { class: "trouble" }, h("p", { class: "strong" }, "The promoted version is not served"), h("p", {}, status.failure)),
    facts([
      ["Version", h("a", { href: "#/models" }, status.version)],
      ["Made", `${day(status.created_at)}, ${age((Date.now() - new Date(status.created_at)) / 1000)} ago`],
      ["Trained on", status.dataset],
      ["Users", count(status.n_users)],
      ["Items", count(status.n_items)],
      ["Interactions", count(status.n_interactions)],
      ["Search", `${status.index_type}, recall@100 ${figure(status.index_recall)}`],
      ["Re-ranker", status.has_ranker ? "LightGBM" : "none"],
      ...chosen.map((name) => [name, figure(status.metrics[name])]),
    ]),
  ];
}

const facts = (rows) => h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
