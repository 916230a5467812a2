// One experiment: what it has found, and the steps from plan to stop.

import { get, may, path, post } from "./api.js";
import { intervalChart } from "./chart.js";
import { fill, h } from "./dom.js";
import { count, figure, percent, signed, when, words } from "./format.js";
import { badge, button, card, dialog, empty, field, head, load, table, toast, trouble } from "./parts.js";
import { shares, status } from "./pages/experiments.js";

const STEPS = { draft: ["start"], running: ["pause", "stop"], paused: ["resume", "stop"], stopped: [] };
const ACTIONS = {
  deploy_treatment: ["The treatment is better: deploy it", "good"],
  keep_control: ["Keep the control", "worry"],
  no_clear_winner: ["No clear winner", ""],
  investigate_further: ["Something is wrong: look into it first", "worry"],
  continue_running: ["Go on: nothing is decided yet", ""],
  prefer_treatment: ["Users prefer the treatment's list", "good"],
  prefer_control: ["Users prefer the control's list", "worry"],
  no_preference: ["Users prefer neither list", ""],
  run_experiment: ["It has ended: measure the best arm by an A/B test", ""],
};

export async function experiment(id, signal) {
  const found = await get(path("experiments", id), {}, signal);
  const top = h("div", {});
  const parts = { verdict: h("div", {}), effects: h("div", {}), figures: h("div", {}), plan: h("div", {}) };
  const show = (current) => {
    fill(top, head(current.name, current.hypothesis || current.description || null, status(current.status), ...steps(current, show)));
    fill(parts.plan, facts(current));
    measured(current, parts, signal);
  };
  show(found);
  return [top, h("div", { class: "stack" }, parts.verdict, parts.effects, parts.figures, parts.plan)];
}

function steps(current, show) {
  if (!may("admin")) return [];
  return STEPS[current.status].map((step) => button(words(step)[0].toUpperCase() + step.slice(1), () => take(step, current, show), { kind: step === "stop" ? "danger" : step === "start" || step === "resume" ? "main" : "" }));
}

async function take(step, current, show) {
  const input = h("input", { maxlength: "1000", autocomplete: "off" });
  const about = { start: "Users meet it from now on; its metrics and arms stand from here.", pause: "Nobody meets it for the time being.", resume: "Users meet the arms that they met before.", stop: "It ends for good; its results stay." }[step];
  const title = `${step[0].toUpperCase()}${step.slice(1)} ${current.name}`;
  const reason = await dialog(title, [h("p", {}, about), field("Reason, for the record", input)], step[0].toUpperCase() + step.slice(1), () => input.value.trim());
  if (reason === null) return;
  try {
    const changed = await post(`experiments/${path(current.experiment_id)}/${step}`, { reason });
    toast(`${current.name} is ${changed.status}`);
    show(changed);
  } catch (problem) {
    await dialog("That was not done", trouble(problem), "Close");
  }
}

function facts(current) {
  const varied = current.arms.map((arm) => `${arm.name}: ${Object.entries(arm.configuration).filter(([, value]) => value !== null).map(([name, value]) => `${words(name)} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ") || "as the service is"}`);
  const rows = [
    ["Arms", shares(current)], ["What they change", varied.map((text) => h("div", {}, text))],
    ["Coverage", `${percent(current.phases.at(-1).coverage, 0)} of the users`],
    ["Decided by", current.design.metrics.filter((each) => each.role === "primary").map((each) => words(each.name)).join(", ")],
    ["Guardrails", current.design.metrics.filter((each) => each.role === "guardrail").map((each) => words(each.name)).join(", ") || "none"],
    ["Planned", current.design.planned_users ? `${count(current.design.planned_users)} users` : "no number of users"],
    ["Started", current.started_at ? when(current.started_at) : "not yet"],
  ];
  return card("Plan", h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
}

function measured(current, parts, signal) {
  if (current.status === "draft") {
    fill(parts.verdict, empty("It has not begun", "Start it: from then on users meet its arms and are measured."));
    return;
  }
  const id = path(current.experiment_id);
  load(parts.verdict, () => get(`experiments/${id}/results`, {}, signal), (found) => { fill(parts.figures, figuresOf(found)); return verdict(found); }, { lines: 4, signal });
  if (current.kind === "ab") load(parts.effects, () => get(`experiments/${id}/effects`, {}, signal), (found) => card("Effect over time", found.missing && h("p", { class: "soft" }, `Its planned looks only: ${found.missing}.`), found.missing && !found.moments.length ? null : plots(found.moments, current, signal)), { lines: 6, signal });
}

function verdict(found) {
  const { action, reason, next_step: next, evidence = [] } = found.recommendations;
  const [said, tone] = ACTIONS[action] || [words(action), ""];
  return h("div", { class: "stack" },
    h("div", { class: `verdict ${tone}` }, h("p", { class: "strong" }, said), h("p", {}, reason), h("p", {}, next), evidence.length ? h("ul", {}, evidence.map((text) => h("li", {}, text))) : null),
    found.health?.length ? h("div", { class: "verdict worry" }, found.health.map((text) => h("p", {}, text))) : null);
}

function figuresOf(found) {
  return h("div", { class: "stack" },
    found.comparisons ? card("Effects", comparisons(found.comparisons)) : null,
    found.figures ? card("Arms", figures(found)) : null);
}

function comparisons(rows) {
  return table("Relative to the control. The interval at any time holds however often it is looked at.", ["Metric", "Role", "Arm", "Control#", "Arm's#", "Effect#", "Any time#", "At the end#"],
    rows.map((each) => [words(each.metric), badge(each.role, each.role === "primary" ? "accent" : "plain"), each.arm, figure(each.control), figure(each.treatment), signed(each.relative), interval(each.relative_cs), interval(each.relative_ci)]));
}

function interval(bounds) {
  if (!bounds) return "–";
  const [low, high] = bounds;
  return `${low === null ? "no bound" : signed(low)} to ${high === null ? "no bound" : signed(high)}`;
}

function figures(found) {
  const srm = { ok: ["as allotted", "good"], failed: ["not as allotted", "bad"], unknown: ["not known yet", "plain"] }[found.srm?.status || "unknown"];
  return [h("p", {}, "Users' shares: ", badge(srm[0], srm[1])),
    table("Figures", ["Metric", "Arm", "Users#", "Figure#", "Standard error#"], found.figures.map((each) => [words(each.metric), each.arm, count(each.users), figure(each.value), figure(each.se, 2)]))];
}

function plots(moments, current, signal) {
  const primary = current.design.metrics.filter((each) => each.role === "primary").map((each) => each.name);
  const shown = primary.flatMap((metric) => current.arms.slice(1).map((arm) => plot(moments, metric, arm.name, signal))).filter(Boolean);
  return shown.length ? shown : empty("No effect to show yet", "The first point comes at the end of the first day, or with the first planned look.");
}

function plot(moments, metric, arm, signal) {
  const points = moments.flatMap((moment) => moment.effects
    .filter((each) => each.metric === metric && each.arm === arm && each.relative !== null)
    .map((each) => ({ at: moment.timestamp, isLook: moment.is_look, effect: each.relative, bounds: each.interval_at_any_time || [null, null] })));
  if (!points.length) return null;
  const chart = intervalChart(`${metric} of ${arm} relative to the control, with the interval that holds at any time`, points.map((each) => each.at), points.map((each) => each.effect), points.map((each) => each.bounds[0]), points.map((each) => each.bounds[1]), (value) => signed(value), signal);
  const rows = points.map((each) => [when(each.at), each.isLook ? "planned look" : "end of a day", signed(each.effect), interval(each.bounds)]);
  return h("div", {}, h("h3", {}, `${words(metric)} of ${arm}`), chart.element, h("details", {}, h("summary", {}, "As a table"), table(`${words(metric)} of ${arm} over time`, ["When", "What", "Effect#", "Any time#"], rows)));
}
