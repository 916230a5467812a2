// Lines over time, drawn by uPlot in the colours of the theme. What a chart shows also stands beside it as text.

import { h } from "./dom.js";
import { date, time } from "./format.js";

const MAX_POINTS = 300;
const HEIGHT = 170;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Return a chart that grows: `push(seconds, values)` adds a moment, `element` is to be shown. */
export function liveChart(label, series, format, signal) {
  const data = [[], ...series.map(() => [])];
  const made = chart(label, series, format, signal, data);
  return {
    element: made.element,
    push(seconds, values) {
      [seconds, ...values].forEach((value, at) => {
        data[at].push(value);
        if (data[at].length > MAX_POINTS) data[at].shift();
      });
      made.redraw();
    },
  };
}

/** Return a chart of an effect over time: the line, and the interval around it as an area. */
export function intervalChart(label, times, middle, low, high, format, signal) {
  const series = [
    { name: "effect", tone: "accent", points: true },
    { name: "low", tone: "accent-soft" },
    { name: "high", tone: "accent-soft" },
  ];
  return chart(label, series, format, signal, [times, middle, low, high], [{ series: [3, 2] }], true);
}

function chart(label, series, format, signal, data, bands = [], hasZero = false) {
  const element = h("div", { class: "chart", role: "img", "aria-label": label });
  let plot = null;
  const make = () => {
    plot?.destroy();
    plot = element.clientWidth ? new window.uPlot(options(element.clientWidth, series, format, bands, hasZero), data, element) : null;
  };
  const sizes = new ResizeObserver(() => (plot ? plot.setSize({ width: element.clientWidth, height: HEIGHT }) : make()));
  sizes.observe(element);
  document.addEventListener("themechange", make, { signal });
  signal.addEventListener("abort", () => { sizes.disconnect(); plot?.destroy(); });
  return { element, redraw: () => plot?.setData(data) };
}

function options(width, series, format, bands, hasZero) {
  const grid = { stroke: colour("line"), width: 1 };
  const axis = { stroke: colour("soft"), grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  return {
    width,
    height: HEIGHT,
    padding: [10, 8, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, low, high) => range(low, high, hasZero) } },
    axes: [{ ...axis, space: 80, size: 32, values: (_, ticks) => ticks.map((at) => moment(at, ticks)) }, { ...axis, size: 62, values: (_, ticks) => ticks.map(format) }],
    bands: bands.map((band) => ({ ...band, fill: colour("accent-wash") })),
    series: [{}, ...series.map((each) => ({
      label: each.name,
      stroke: colour(each.tone),
      width: each.tone === "accent-soft" ? 1 : 2,
      points: { show: Boolean(each.points), size: 7, fill: colour(each.tone) },
      fill: each.fill ? colour("accent-wash") : undefined,
    }))],
  };
}

function moment(at, ticks) {
  const isWithinDays = ticks.at(-1) - ticks[0] < 2 * 86_400;
  return isWithinDays ? time(at) : date(at);
}

function range(low, high, hasZero) {
  if (low === null || high === null || low === undefined) return [0, 1];
  const [first, last] = hasZero ? [Math.min(low, 0), Math.max(high, 0)] : [0, high];
  const room = (last - first) * 0.1 || 0.1;
  return [hasZero && first < 0 ? first - room : first, last + room];
}
