// Numbers and times for people; nothing is rounded so far that it would say something else.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const calendar = new Intl.DateTimeFormat("en", { month: "short", day: "numeric" });

export const NOTHING = "–";

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const count = (value) => (known(value) ? whole.format(value) : NOTHING);
export const compact = (value) => (known(value) ? (Math.abs(value) < 10_000 ? whole.format(value) : short.format(value)) : NOTHING);
export const figure = (value, digits = 4) => (known(value) ? Number(value.toPrecision(digits)).toString() : NOTHING);
export const percent = (value, digits = 1) => (known(value) ? `${(100 * value).toFixed(digits)}%` : NOTHING);
export const signed = (value, digits = 1) => (known(value) ? `${value >= 0 ? "+" : "−"}${(100 * Math.abs(value)).toFixed(digits)}%` : NOTHING);
export const milliseconds = (value) => (known(value) ? `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms` : NOTHING);
export const when = (unixSeconds) => moment.format(new Date(1000 * unixSeconds));
export const time = (unixSeconds) => clock.format(new Date(1000 * unixSeconds));
export const date = (unixSeconds) => calendar.format(new Date(1000 * unixSeconds));
/** Return a moment: the time of day of one within a day, else its date too. */
export const lately = (unixSeconds, now = Date.now() / 1000) => (Math.abs(now - unixSeconds) < 43_200 ? time(unixSeconds) : when(unixSeconds));
export const day = (text) => (text ? moment.format(new Date(text)) : NOTHING);

export function bytes(value) {
  if (!known(value)) return NOTHING;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; value >= 1000 && at < units.length - 1; at += 1) value /= 1000;
  return `${value < 10 && at ? value.toFixed(1) : value.toFixed(0)} ${units[at]}`;
}

export function age(seconds) {
  if (!known(seconds)) return NOTHING;
  for (const [unit, length] of [["day", 86_400], ["hour", 3_600], ["minute", 60]]) {
    const n = Math.floor(seconds / length);
    if (n >= 1) return `${whole.format(n)} ${unit}${n === 1 ? "" : "s"}`;
  }
  return "less than a minute";
}

/** Return a title, or the id of an item that has none. */
export const named = (item) => item.title || `Item ${item.item_id}`;

/** Return words for a name of the code, such as a stage or a step. */
export const words = (name) => String(name).replaceAll("_", " ");

/** Return the value of an attribute: lists with commas, Unix seconds of what is called like a moment as that. */
export function attribute(name, value) {
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value !== "number") return String(value);
  return /released|joined|since|date|_at$/.test(name) && value > 1e8 && value < 1e10 ? when(value) : figure(value, 6);
}
