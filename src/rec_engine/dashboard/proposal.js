// Planning an experiment: what it varies, by what it is decided, and how many users and days that takes.

import { access, get, post } from "./api.js";
import { fill, h } from "./dom.js";
import { count, figure, signed } from "./format.js";
import { button, card, empty, field, head, load, trouble } from "./parts.js";

const METRICS = ["ctr", "conversion_rate", "revenue_per_user", "engagement_time"];
const NAME = "[A-Za-z0-9][A-Za-z0-9._\\-]{0,63}";

export async function proposal(signal) {
  if (!access.scopes.includes("admin")) return [head("New experiment"), empty("Only for administrators", "Enter a key with the scope admin.")];
  const { versions } = await get("models", {}, signal).catch(() => ({ versions: [] }));
  const inputs = fieldsOf(versions);
  const plan = h("div", { "aria-live": "polite" }, h("p", { class: "soft" }, "By what users did in the past, the calculator says how many users and days it takes."));
  const failure = h("div", {});
  const create = async (event) => {
    event.preventDefault();
    try {
      const made = await post("experiments", asked(inputs));
      location.hash = `#/experiments/${encodeURIComponent(made.experiment_id)}`;
    } catch (problem) {
      fill(failure, trouble(problem));
    }
  };
  const reckon = () => {
    const body = { proposal: asked(inputs, true), past_days: Number(inputs.past.value) || 28 };
    load(plan, () => post("experiments/plan", body, signal), (found) => planned(found, inputs), { lines: 3, signal });
  };
  return [
    head("New experiment", "Nobody meets it before it is started; until then everything can be changed."),
    h("form", { class: "grid halves", onsubmit: create },
      h("div", { class: "stack" }, card("What is tried", what(inputs)), card("For whom", whom(inputs))),
      h("div", { class: "stack" }, card("By what it is decided", decided(inputs)),
        card("How long it takes", field("Days of the past to go by", inputs.past), button("Calculate", reckon), plan),
        failure, h("div", { class: "actions end" }, h("a", { class: "button", href: "#/experiments" }, "Cancel"), button("Create", null, { kind: "main", type: "submit" })))),
  ];
}

function fieldsOf(versions) {
  const number = (value, more = {}) => h("input", { type: "number", step: "any", value: String(value), ...more });
  return {
    id: h("input", { required: true, pattern: NAME, maxlength: "64", autocomplete: "off" }),
    name: h("input", { required: true, maxlength: "200", autocomplete: "off" }),
    hypothesis: h("textarea", { rows: "2", maxlength: "10000" }),
    reranking: h("select", {}, h("option", { value: "" }, "as the service has it"), h("option", { value: "false" }, "off"), h("option", { value: "true" }, "on")),
    diversity: number("", { min: "0", max: "1", placeholder: "as the service has it" }),
    exploration: number("", { min: "0", max: "10", placeholder: "as the service has it" }),
    model: h("select", {}, h("option", { value: "" }, "the served one"), versions.map((each) => h("option", { value: each.version }, each.version))),
    share: number(50, { min: "1", max: "99", required: true }),
    coverage: number(100, { min: "1", max: "100", required: true }),
    metric: h("select", {}, METRICS.map((name) => h("option", { value: name }, name.replaceAll("_", " ")))),
    guardrail: h("select", {}, h("option", { value: "" }, "none"), METRICS.map((name) => h("option", { value: name }, name.replaceAll("_", " ")))),
    effect: number(5, { min: "0.1", max: "1000" }),
    users: h("input", { type: "number", min: "2", step: "1" }),
    past: h("input", { type: "number", min: "1", max: "3650", step: "1", value: "28" }),
  };
}

const what = (inputs) => [
  field("Name", inputs.name), field("Id", inputs.id, "Letters, digits, dot, dash and underscore."), field("Hypothesis", inputs.hypothesis, "What is expected, and why."),
  field("Model of the treatment", inputs.model), field("Re-ranking", inputs.reranking), field("Diversity, 0 to 1", inputs.diversity), field("Exploration, 0 to 10", inputs.exploration),
];

const whom = (inputs) => [field("Users who take part, in %", inputs.coverage), field("Of them, who meet the treatment, in %", inputs.share)];

const decided = (inputs) => [
  field("Primary metric", inputs.metric), field("Guardrail", inputs.guardrail, "A metric that must not be harmed: the service stops the experiment where it is."),
  field("Smallest effect worth finding, in %", inputs.effect), field("Planned users in all arms", inputs.users, "Leave it empty, or take what the calculator says."),
];

/** Return the proposal that the fields hold; one that is only reckoned with needs no name. */
function asked(inputs, isDraft = false) {
  const number = (input) => (input.value === "" ? undefined : Number(input.value));
  const treatment = {
    use_reranking: inputs.reranking.value ? inputs.reranking.value === "true" : undefined,
    diversity: number(inputs.diversity),
    exploration: number(inputs.exploration),
    model_version: inputs.model.value || undefined,
  };
  return {
    experiment_id: inputs.id.value.trim() || (isDraft ? "draft" : ""),
    name: inputs.name.value.trim() || (isDraft ? "Draft" : ""),
    hypothesis: inputs.hypothesis.value.trim(),
    treatment,
    treatment_percentage: Number(inputs.share.value) / 100,
    coverage: Number(inputs.coverage.value) / 100,
    target_metrics: METRICS.filter((name) => name === inputs.metric.value).concat(METRICS.filter((name) => name !== inputs.metric.value && name !== inputs.guardrail.value)),
    guardrails: inputs.guardrail.value && inputs.guardrail.value !== inputs.metric.value ? [inputs.guardrail.value] : [],
    minimum_effect: inputs.effect.value ? Number(inputs.effect.value) / 100 : undefined,
    planned_users: number(inputs.users),
  };
}

function planned(found, inputs) {
  const take = button("Plan with so many users", () => { inputs.users.value = String(found.users_needed); inputs.users.focus(); }, { kind: "tiny" });
  const rows = [
    ["Users needed", found.users_needed === null ? "no effect is named" : count(found.users_needed)],
    ["That takes", `${count(found.days)} days, at ${figure(found.users_a_day, 3)} new users a day`],
    [`${found.metric.replaceAll("_", " ")} so far`, figure(found.baseline)],
    ["Effect that is found then", found.detectable_effect === null ? "none" : signed(found.detectable_effect)],
  ];
  return [h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])), found.users_needed ? h("div", { class: "actions" }, take) : null];
}
