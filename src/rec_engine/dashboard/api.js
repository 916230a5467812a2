// The service's public routes, asked as any other client would ask them.

const KEY = "rec-engine key";

/** What the service says when it does not do what was asked: RFC 9457, with what to do about it. */
export class Problem extends Error {
  constructor({ status = 0, title, detail = "", hint = "", request_id = "" }) {
    super(title);
    Object.assign(this, { status, title, detail, hint, requestId: request_id });
  }
}

/** What this session may do; see `GET /access`. */
export const access = { needs_key: false, scopes: [] };

export const may = (scope) => access.scopes.includes(scope);

/** Return the key of this session; it is kept no longer than the tab is open. */
export const key = () => sessionStorage.getItem(KEY) || "";

/** Use another key from now on, once it is known what it allows; a Problem is thrown where that cannot be found out. */
export async function useKey(given) {
  if (!/^[!-~]*$/.test(given)) {
    throw new Problem({ title: "This is no key", hint: "Copy it as rec-engine keys new has printed it: letters, digits, - and _." });
  }
  const found = await get("access", {}, undefined, given);
  if (given) sessionStorage.setItem(KEY, given);
  else sessionStorage.removeItem(KEY);
  Object.assign(access, found);
}

export async function refreshAccess() {
  Object.assign(access, await get("access"));
}

/** Return a path of the service: each part is data, and may hold whatever ids hold. */
export const path = (...parts) => parts.map((part) => encodeURIComponent(part)).join("/");

export const get = (where, query = {}, signal = undefined, withKey = key()) => ask("GET", where, { query, signal, withKey });
export const post = (where, body = {}, signal = undefined) => ask("POST", where, { body, signal });
export const put = (where, body) => ask("PUT", where, { body });
export const remove = (where) => ask("DELETE", where);

/** Return what the service answers; a Problem is thrown where it refuses or cannot be reached. */
export async function ask(method, where, { query = {}, body = undefined, signal = undefined, withKey = key() } = {}) {
  const answer = await sent(method, where, { query, body, signal, withKey });
  if (answer.status === 204) return null;
  const isJson = (answer.headers.get("content-type") || "").includes("json");
  return isJson ? answer.json() : answer.text();
}

async function sent(method, where, { query, body, signal, withKey }) {
  const url = new URL(where, document.baseURI);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  const headers = withKey ? { "x-api-key": withKey } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  const text = body === undefined ? undefined : JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(url, { method, headers, body: text, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "The service cannot be reached", hint: "See whether it is running, then try again." });
  }
  if (!answer.ok) throw new Problem(await problemOf(answer));
  return answer;
}

async function problemOf(answer) {
  const unknown = { status: answer.status, title: `The service answered ${answer.status}`, hint: "Try again in a moment." };
  try {
    return { ...unknown, ...(await answer.json()) }; // what stands between may have said something of its own
  } catch {
    return unknown;
  }
}
