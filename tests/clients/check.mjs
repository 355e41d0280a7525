// Everything that the Node client can do, tried out between two nodes.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Elo, TaskError } from "../../clients/node/elo_client.mjs";

const { OTHER_HTTP, OTHER_TOKEN, OTHER_ID } = process.env;
const here = new Elo(); // ELO_HTTP, and the token in ELO_HOME
const there = new Elo({ url: OTHER_HTTP, token: OTHER_TOKEN });

async function eventually(what, condition) {
  for (const deadline = Date.now() + 30_000; !(await condition()); await sleep(50)) assert(Date.now() < deadline, what);
}

async function fails(code, work) {
  const error = await work().then((result) => assert.fail(`${code} was expected: ${result}`), (error) => error);
  assert.equal(error.code, code, error);
  return error;
}

const all = async (parts) => { const list = []; for await (const part of parts) list.push(part); return list; };

// The node, and others.
const me = (await here.status()).node.node_id;
await eventually("it is found", async () => (await here.agents("echo")).length);
assert.equal((await here.agents("echo"))[0].node_id, OTHER_ID);
assert.equal((await here.agents()).length, 2);

// Calls: text, and what goes wrong.
assert.deepEqual(await here.call("echo", { text: "çok 日本 \u2028" }), { text: "çok 日本 \u2028" });
const outcome = await here.outcome("echo", [1], { to: OTHER_ID.slice(0, 12) });
assert.deepEqual([outcome.payload, outcome.route, outcome.verified], [[1], "direct", true]);
const error = await fails("NO_PEER", () => here.call("nobody", null, { timeout: 3 }));
assert.deepEqual([error.status, error.details.delivery], [503, "not_sent"]);
assert.equal((await fails("UNAUTHORIZED", () => new Elo({ url: here.url, token: "wrong".repeat(8) }).status())).status, 401);
await fails("UNREACHABLE", () => new Elo({ url: "http://127.0.0.1:1", token: "x" }).status());

// Serving.
there.task("work", async (payload, task) => {
  assert.deepEqual([task.caller, task.capability], [me, "work"]);
  if (payload === "parts") {
    for (let n = 0; n < 3; n++) await task.progress({ n });
    return "whole";
  }
  if (payload === "long") return sleep(4000, task.info.attempt); // twice the lease
  if (payload === "refuse") throw new TaskError("not that", "BAD_REQUEST");
  if (payload === "break") throw new RangeError("oops");
  if (payload === "no json") return 1n;
  while (payload === "wait") {
    await sleep(100);
    await task.progress();
  }
}, { kind: "tool", description: "Does what it is told" });

const serving = there.serve(2);
await eventually("it is offered", async () => (await here.agents("work")).length);
const offered = (await here.agents("work"))[0].capabilities.find((capability) => capability.name === "work");
assert.deepEqual([offered.kind, offered.details.description], ["tool", "Does what it is told"]);
assert.deepEqual(await all(here.stream("work", "parts")), [{ n: 0 }, { n: 1 }, { n: 2 }, "whole"]);
assert.equal(await here.call("work"), null);
assert.equal(await here.call("work", "long"), 1);
assert.match((await fails("BAD_REQUEST", () => here.call("work", "refuse"))).message, /not that/);
assert.match((await fails("HANDLER_ERROR", () => here.call("work", "break"))).message, /oops/);
assert.match((await fails("HANDLER_ERROR", () => here.call("work", "no json"))).message, /can't be sent/);
await fails("HANDLER_ERROR", () => all(here.stream("work", "break")));

// Calls that are looked after.
let call = await here.start("work", "parts");
await eventually("it is done", async () => (await here.check(call, 0, 5)).state === "done");
const progress = await here.check(call, 1);
assert.deepEqual([progress.chunks, progress.outcome.payload, progress.next], [[{ n: 1 }, { n: 2 }], "whole", 3]);
call = await here.start("work", "wait");
await eventually("it is there", async () => (await here.check(call)).state === "accepted");
assert.equal((await here.cancel(call)).error.code, "CANCELLED");
await fails("NOT_FOUND", () => here.check("nothing"));
// Whoever loses interest takes it back.
const signal = AbortSignal.timeout(300);
await assert.rejects(here.call("work", "wait", { signal }), { name: "TimeoutError" });
// Its agent was told, and goes on.
assert.equal(await here.call("work"), null);
there.stop();
await serving;

// Events.
const heard = [], enough = new AbortController();
const listening = (async () => { for await (const event of there.events("test.*", enough.signal)) heard.push(event); })();
await eventually("one arrives", async () => (await here.publish("test.first", { a: [1] })) && heard.length);
await here.publish("test.last");
await eventually("the last one arrives", () => heard.at(-1).event_type === "test.last");
assert.deepEqual([heard[0].data, heard[0].origin], [{ a: [1] }, me]);
enough.abort();
await listening;
await fails("BAD_REQUEST", () => here.events("").next());

console.log("all of it");
