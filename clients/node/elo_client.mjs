/**
 * A client of the local HTTP API of `elo serve --http`: the mesh for Node programs (18 or later), without a package.
 *
 *     const elo = new Elo();                          // the node of ~/.elo; or new Elo({url, token}), or ELO_HTTP and ELO_TOKEN
 *     console.log(await elo.call("sum", [1, 2, 3]));  // hands a task to whoever provides it, and waits for its result
 *
 *     elo.task("shout", async (payload, task) => {    // serves a capability: what the function returns is the result
 *       await task.progress("nearly there");          // a part of the answer, and a sign of life
 *       return payload.toUpperCase();
 *     });
 *     await elo.serve();                              // until elo.stop()
 *
 * What fails throws EloError, whose `code` is one of docs/protocol.md, "Error codes", or UNREACHABLE: no node was reached.
 * @typedef {any} Json
 * @typedef {{to?: string, timeout?: number, wait?: number, signal?: AbortSignal}} CallOptions to: a node; timeout: seconds for the
 *   work (60); wait: seconds that an agent that is away may be waited for (0)
 */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

// Statuses that say that the program is at fault: trying again does not help.
const OURS = [400, 401, 403, 409, 413, 422], q = encodeURIComponent;

/** What the node says: `code`, the HTTP `status`, `retryAfter` in seconds, and all of it in `details`. */
export class EloError extends Error {
  /** @param {string} code @param {string} message @param {number} status @param {Record<string, Json>} details */
  constructor(code, message, status = 0, details = {}) {
    super(`${code}: ${message}`);
    Object.assign(this, { name: "EloError", code, status, details, retryAfter: details.retry_after_s });
  }
}

/** Thrown by a handler to answer its caller with an error of that code. */
export class TaskError extends Error {
  /** @param {string} message @param {string} code */
  constructor(message, code = "HANDLER_ERROR") { Object.assign(super(message), { code }); }
}

/** A task that this agent has. `caller` is a node id; whatever else came with it is in `info`. */
export class Task {
  #elo;
  /** @param {Elo} elo @param {Record<string, Json>} info */
  constructor(elo, info) {
    const { task_id: id, capability, caller, payload } = info;
    [this.#elo] = [elo, Object.assign(this, { info, id, capability, caller, payload })];
  }

  /** Sends the caller a part of the answer; without one it is a sign of life. GONE: nobody waits any more. @param {Json} [data] */
  progress(data) { return this.#elo.request("POST", `/v1/tasks/${q(this.id)}/progress`, { data }); }
}

/** The node of this machine. */
export class Elo {
  #token; #home; #handlers = new Map(); #stopped = new AbortController();
  /** @param {{url?: string, token?: string, home?: string}} [options] */
  constructor({ url, token, home } = {}) {
    url = url ?? process.env.ELO_HTTP ?? "http://127.0.0.1:7880";
    this.url = (url.includes("://") ? url : `http://${url}`).replace(/\/+$/, "");
    this.#token = token ?? process.env.ELO_TOKEN;
    this.#home = home ?? process.env.ELO_HOME ?? join(homedir(), ".elo");
  }
  async #open(method, path, body, accept, headers, signal) {
    const token = this.#token ?? (await readFile(join(this.#home, "http.token"), "utf8")).trim();
    headers = { authorization: `Bearer ${token}`, accept, "content-type": "application/json", ...headers };
    const init = { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) };
    const answer = await fetch(this.url + path, init).catch((error) => {
      signal?.throwIfAborted();
      throw new EloError("UNREACHABLE", `${this.url}: ${error.cause?.message ?? error.message}`);
    });
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({}));
    throw new EloError(problem.code ?? "HTTP", problem.detail ?? answer.statusText, answer.status, problem);
  }

  /** Any request of the API; undefined for an answer without a body.
   * @param {string} method @param {string} path @param {Json} [body] @param {AbortSignal} [signal] @returns {Promise<Json>} */
  async request(method, path, body, signal) {
    const text = await (await this.#open(method, path, body, "application/json", {}, signal)).text();
    return text ? JSON.parse(text) : undefined;
  }

  /** Server-sent events. */
  async *#stream(method, path, body, headers, signal) {
    const answer = await this.#open(method, path, body, "text/event-stream", headers, signal);
    let rest = "", event = {}, data = [];
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + piece).split("\n");
      rest = lines.pop();
      for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
        const at = line.indexOf(":");
        const [field, value] = at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")];
        if (field === "data") data.push(value);
        else if (field) event[field] = value;
        else if (line === "") { // the end of one; what begins with a colon is a comment
          if (data.length) yield { name: event.event ?? "message", id: event.id, data: JSON.parse(data.join("\n")) };
          [event, data] = [{}, []];
        }
      }
    }
  }

  #call = (capability, payload = null, { to, timeout = 60, wait = 0 } = {}) =>
    ({ capability, payload, to, timeout_s: timeout + wait, wait_for_agent_s: wait });

  /** Calls, and gives all that is known of the result: `payload`, `responder`, `route`, `timings`, …
   * @param {string} capability @param {Json} [payload] @param {CallOptions} [options] @returns {Promise<Json>} */
  outcome(capability, payload, options) {
    return this.request("POST", "/v1/calls", this.#call(capability, payload, options), options?.signal);
  }

  /** Calls whoever provides the capability, or one node, and gives the result.
   * @param {string} capability @param {Json} [payload] @param {CallOptions} [options] @returns {Promise<Json>} */
  async call(capability, payload, options) { return (await this.outcome(capability, payload, options)).payload; }

  /** Calls, and gives the parts of the answer as they come, and last its result.
   * @param {string} capability @param {Json} [payload] @param {CallOptions} [options] @returns {AsyncGenerator<Json>} */
  async *stream(capability, payload, options) {
    const body = this.#call(capability, payload, options);
    for await (const { name, data } of this.#stream("POST", "/v1/calls", body, {}, options?.signal)) {
      if (name === "error") throw new EloError(data.code ?? "FAILED", data.detail ?? "", 0, data);
      if (name === "chunk") yield data;
      else if (name === "outcome") return yield data.payload;
    }
    throw new EloError("STOPPED", "the node stopped before there was a result");
  }

  /** Starts a call that goes on without this program, and gives its id.
   * @param {string} capability @param {Json} [payload] @param {CallOptions} [options] @returns {Promise<string>} */
  async start(capability, payload, options) {
    return (await this.request("POST", "/v1/calls", { ...this.#call(capability, payload, options), async: true })).id;
  }

  /** How far a call is: `state`, `chunks` from number `after` on, then `outcome` or `error`. @param {string} id */
  check(id, after = 0, wait = 0) { return this.request("GET", `/v1/calls/${q(id)}?after=${after}&wait_s=${wait}`); }
  /** Takes a call back. @param {string} id */
  cancel(id) { return this.request("DELETE", `/v1/calls/${q(id)}`); }
  /** Who provides a capability; without one, everybody who is known. @returns {Promise<Json[]>} */
  async agents(capability = "") { return (await this.request("GET", `/v1/agents?capability=${q(capability)}`)).agents; }
  /** The node's own state. */
  status() { return this.request("GET", "/v1/status"); }
  /** Publishes an event, and gives its id. @param {string} type @param {Json} [data] @returns {Promise<string>} */
  async publish(type, data = null) { return (await this.request("POST", "/v1/events", { type, data })).id; }

  /** Events as they come, for ever. After a break it goes on where it was; `{lost: …}` tells of a gap.
   * @param {string} pattern @param {AbortSignal} [signal] @returns {AsyncGenerator<Json>} */
  async *events(pattern = "*", signal = undefined) {
    for (let headers = {}; ; await sleep(500)) {
      try {
        for await (const { name, id, data } of this.#stream("GET", `/v1/events?pattern=${q(pattern)}`, undefined, headers, signal)) {
          if (id) headers = { "last-event-id": id };
          if (name === "message" || name === "gap") yield data;
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (OURS.includes(error.status)) throw error;
      }
    }
  }

  /** Makes a function the handler of a capability.
   * @param {string} name @param {(payload: Json, task: Task) => Json} handler @param {{kind?: string, description?: string}} [offer] */
  task(name, handler, offer = {}) { this.#handlers.set(name, { handler, offer }); }

  /** Ends `serve` after the task that is worked on. */
  stop() { this.#stopped.abort(); }
  /** Offers what has a handler, and works on its tasks one at a time (called several times: on several). It goes on when the node
   * restarts. If this program dies its task is offered again after `lease` seconds. */
  async serve(lease = 60) {
    const signal = this.#stopped.signal;
    for (let offered = false; !signal.aborted; ) {
      try {
        if (!offered) for (const [name, { offer }] of this.#handlers) await this.request("PUT", `/v1/offers/${q(name)}`, offer);
        offered = true;
        const body = { capabilities: [...this.#handlers.keys()], wait_s: 20, lease_s: lease };
        const info = await this.request("POST", "/v1/tasks/next", body, signal);
        if (info) await this.#work(new Task(this, info), lease);
      } catch (error) { // the node is away, or it restarted and knows of no offer
        if (OURS.includes(error.status)) throw error;
        offered = await sleep(500, false, { signal }).catch(() => false);
      }
    }
  }

  #said = (error) => ({ code: [TaskError, EloError].some((own) => error instanceof own) ? error.code : undefined, message: `${error?.message ?? error}` });

  async #work(task, lease) {
    const alive = setInterval(() => task.progress().catch(() => {}), (lease * 1000) / 3); // work may take longer than the lease
    const answer = await Promise.resolve()
      .then(() => this.#handlers.get(task.capability).handler(task.payload, task))
      .then((result) => ({ result: result ?? null }), (error) => ({ error: this.#said(error) }))
      .finally(() => clearInterval(alive));
    const reply = (answer) => this.request("POST", `/v1/tasks/${q(task.id)}/reply`, answer);
    await Promise.resolve().then(() => reply(answer)).catch((error) => // it is no JSON, too large, or answered by another agent
      error.code === "UNREACHABLE" ? Promise.reject(error)
        : reply({ error: { message: `the result can't be sent: ${error.message}` } }).catch(() => {}));
  }
}
