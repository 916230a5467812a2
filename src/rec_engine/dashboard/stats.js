// What `/stats` says, as the overview needs it: totals since the service started, and what came since the last look.

const PREFIX = "rec_engine_";

export const STAGES = ["state", "eligible", "recall", "rank", "arrange", "record"];

/** Return the series of a metric. */
const series = (stats, name) => stats[PREFIX + name] || [];

const sum = (rows, field = "value") => rows.reduce((total, row) => total + (row[field] || 0), 0);

/** Return the figures of one look. */
export function read(stats) {
  const cache = Object.fromEntries(series(stats, "cache_lookups_total").map((row) => [row.result, row.value]));
  const requests = series(stats, "request_duration_seconds");
  return {
    answers: sum(series(stats, "answers_total")),
    requests: sum(requests, "n"),
    recommend: requests.find((row) => row.route === "/recommend" && row.status === "2xx") || null,
    stages: STAGES.map((stage) => series(stats, "stage_duration_seconds").find((row) => row.stage === stage)).filter(Boolean),
    hits: cache.hit || 0,
    misses: cache.miss || 0,
    levels: series(stats, "cache_level_lookups_total"),
    errors: series(stats, "errors_total"),
    degraded: series(stats, "degraded_answers_total"),
    events: sum(series(stats, "feedback_events_total")),
    dropped: sum(series(stats, "impressions_dropped_total")),
    waiting: sum(series(stats, "write_queue_depth")),
    usersInMemory: sum(series(stats, "users_in_memory")),
    cacheBytes: sum(series(stats, "cache_memory_bytes")),
    workers: sum(series(stats, "workers")),
    modelAge: series(stats, "model_age_seconds")[0]?.value ?? null,
    versions: series(stats, "model_info").map((row) => row.version),
  };
}

/** Return what happened between two looks: rates a second, the mean time of an answer by stage, the share of hits. */
export function between(earlier, later, seconds) {
  const hits = later.hits - earlier.hits;
  const looks = hits + later.misses - earlier.misses;
  return {
    answers: Math.max(0, later.answers - earlier.answers) / seconds,
    events: Math.max(0, later.events - earlier.events) / seconds,
    milliseconds: meanOf(earlier.recommend, later.recommend),
    hitRate: looks > 0 ? hits / looks : null,
  };
}

function meanOf(earlier, later) {
  if (!later) return null;
  const n = later.n - (earlier?.n || 0);
  return n > 0 ? (later.n * later.mean_ms - (earlier ? earlier.n * earlier.mean_ms : 0)) / n : null;
}
