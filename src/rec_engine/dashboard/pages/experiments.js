// Experiments: what is tried on users, how it stands, and what to do.

import { get, may } from "../api.js";
import { h } from "../dom.js";
import { percent, when } from "../format.js";
import { badge, card, empty, head, load, table } from "../parts.js";
import { experiment } from "../experiment.js";
import { proposal } from "../proposal.js";

const NEW = "-new"; // no experiment is called so: ids begin with a letter or a digit
const TONES = { draft: "plain", running: "good", paused: "worry", stopped: "accent" };
const KINDS = { ab: "A/B test", interleaving: "Interleaving", bandit: "Bandit" };

export async function render({ parts, signal }) {
  if (parts[0] === NEW) return proposal(signal);
  if (parts[0]) return experiment(parts[0], signal);
  const list = h("div", {});
  load(list, () => get("experiments", {}, signal), all, { lines: 6, signal });
  return [
    head("Experiments", "Some users get another answer than others; afterwards it is known whether that was better, and how sure that is.",
      may("admin") ? h("a", { class: "button main", href: `#/experiments/${NEW}` }, "New experiment") : null),
    card("All experiments", list),
  ];
}

function all(found) {
  if (!found.length) return empty("No experiment yet", may("admin") ? "Plan one: the calculator says how many users and days it takes." : "Somebody with an admin key can plan one.", may("admin") && h("a", { class: "button", href: `#/experiments/${NEW}` }, "Plan an experiment"));
  const rows = found.map((each) => [
    h("span", {}, h("a", { href: `#/experiments/${encodeURIComponent(each.experiment_id)}` }, each.name), " ", h("span", { class: "soft mono" }, each.experiment_id)),
    status(each.status), KINDS[each.kind], shares(each), percent(each.phases.at(-1).coverage, 0), each.started_at ? when(each.started_at) : "–",
  ]);
  return table("By id", ["Experiment", "Status", "Kind", "Arms", "Coverage#", "Started"], rows);
}

export const status = (name) => badge(name, TONES[name]);

export const shares = (each) => each.arms.map((arm, at) => `${arm.name} ${percent(each.phases.at(-1).shares[at], 0)}`).join(", ");
