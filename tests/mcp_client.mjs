// The official TypeScript SDK of MCP (npm `@modelcontextprotocol/sdk`) drives `elo mcp`: see mcp_sdk.rs for what runs around it.
//
// The first argument is the folder whose node_modules has the SDK, the second JSON: {"agent": SERVER, "caller": SERVER}, where
// SERVER is {"command", "args", "env"} for a process of its own, or {"url", "token"}.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.argv[2]}/x.js`);
const load = (path) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/sdk/${path}`)));
const { Client } = await load("client/index.js");
const { StdioClientTransport } = await load("client/stdio.js");
const { StreamableHTTPClientTransport } = await load("client/streamableHttp.js");

const settings = JSON.parse(process.argv[3]);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function connected(server) {
  const transport = server.url
    ? new StreamableHTTPClientTransport(new URL(server.url), {
        requestInit: { headers: { Authorization: `Bearer ${server.token}` } },
      })
    : new StdioClientTransport(server);
  const client = new Client({ name: "test", version: "1" });
  await client.connect(transport);
  return client;
}

const raw = (client, name, args = {}, options = undefined) =>
  client.callTool({ name, arguments: args }, undefined, options);

async function call(client, name, args, options) {
  const result = await raw(client, name, args, options);
  assert.notEqual(result.isError, true, JSON.stringify(result));
  return JSON.parse(result.content[0].text);
}

async function refused(client, name, args) {
  const result = await raw(client, name, args);
  assert.equal(result.isError, true, JSON.stringify(result));
  return result.structuredContent;
}

async function until(what, condition) {
  for (let i = 0; i < 600; i++) {
    const found = await condition();
    if (found) return found;
    await pause(100);
  }
  throw new Error(`waited in vain: ${what}`);
}

const agent = await connected(settings.agent);
const caller = await connected(settings.caller);

// What there is.
const { tools } = await caller.listTools();
assert.equal(tools.length, 12);
assert.equal(tools.find((tool) => tool.name === "status").annotations.readOnlyHint, true);
assert.match(caller.getInstructions(), /next_task/);
assert.equal((await caller.listResources()).resources.length, 3);
assert.equal((await caller.listResourceTemplates()).resourceTemplates.length, 1);
await call(agent, "offer", { capabilities: [{ name: "review" }] });
await until("the agent is found", async () => (await call(caller, "find_agents", { capability: "review" })).agents.length);
assert.equal((await call(agent, "status")).offers[0].name, "review");
assert.ok((await call(caller, "peers")).peers.length);
const read = await caller.readResource({ uri: "elo://agents/agent" });
assert.equal(JSON.parse(read.contents[0].text).name, "agent");

// A task, its progress and its answer.
const told = [];
const calling = call(caller, "call_agent", { capability: "review", payload: { text: "çay" } }, {
  onprogress: ({ message }) => told.push(message),
  resetTimeoutOnProgress: true,
});
const { task } = await call(agent, "next_task", { wait_s: 30 });
assert.deepEqual(task.payload, { text: "çay" });
await call(agent, "progress", { task_id: task.task_id, text: "reading" });
await until("progress is told", async () => told.includes("reading"));
await call(agent, "reply", { task_id: task.task_id, result_json: "[123456789012345678901234567890]" });
const answer = await calling;
assert.equal(answer.responder_name, "agent");
assert.equal(answer.payload[0], 123456789012345678901234567890);
assert.equal((await refused(agent, "reply", { task_id: task.task_id, result: 1 })).code, "GONE");

// A call that is left alone, and taken back.
const started = await call(caller, "call_agent", { capability: "review", wait: false });
const second = (await call(agent, "next_task", { wait_s: 30 })).task;
await call(agent, "reply", { task_id: second.task_id, error: "no such branch" });
const check = await call(caller, "check_call", { id: started.id, wait_s: 30 });
assert.deepEqual([check.state, check.error.message], ["failed", "no such branch"]);
const third = await call(caller, "call_agent", { capability: "review", wait: false });
// It is at the agent: otherwise it might come while something else is waited for below.
const taken = (await call(agent, "next_task", { wait_s: 30 })).task;
assert.equal((await call(caller, "cancel_call", { id: third.id })).state, "failed");
await until("the agent is told that it is over", async () =>
  (await raw(agent, "progress", { task_id: taken.task_id, text: "at it" })).isError);

// Requests that are cancelled: nobody waits then, and the agent hears that its task is over.
const stop = new AbortController();
const waits = raw(agent, "next_task", { wait_s: 120 }, { signal: stop.signal }).catch((error) => error);
await until("it waits", async () => (await call(agent, "status")).agents_waiting);
stop.abort();
await waits;
await until("it waits no more", async () => (await call(agent, "status")).agents_waiting === 0);
const stopCall = new AbortController();
const cancelled = raw(caller, "call_agent", { capability: "review" }, { signal: stopCall.signal }).catch((error) => error);
const fourth = (await call(agent, "next_task", { wait_s: 30 })).task;
stopCall.abort();
await cancelled;
await until("the agent is told", async () =>
  (await raw(agent, "progress", { task_id: fourth.task_id, text: "at it" })).isError);

// Two agents never get the same task.
const other = await connected(settings.agent);
const calls = [0, 1, 2, 3, 4, 5].map((n) => call(caller, "call_agent", { capability: "review", payload: n }));
const got = [];
const serve = async (client) => {
  while (got.length < calls.length) {
    const next = (await call(client, "next_task", { wait_s: 0.5 })).task;
    if (next) {
      got.push(next.payload);
      await call(client, "reply", { task_id: next.task_id, result: next.payload });
    }
  }
};
await Promise.all([serve(agent), serve(other)]);
assert.deepEqual(got.sort(), [0, 1, 2, 3, 4, 5]);
assert.deepEqual((await Promise.all(calls)).map(({ payload }) => payload), [0, 1, 2, 3, 4, 5]);

// An agent that is gone between the lease and the reply.
const again = call(caller, "call_agent", { capability: "review" });
const lost = (await call(other, "next_task", { wait_s: 30, lease_s: 1 })).task;
await other.close();
const found = (await call(agent, "next_task", { wait_s: 30 })).task;
assert.deepEqual([found.task_id, found.attempt], [lost.task_id, 2]);
await call(agent, "reply", { task_id: found.task_id, result: "done" });
assert.equal((await again).payload, "done");

// Events, from where this session was.
await call(agent, "next_events", { pattern: "build.*", wait_s: 0 });
const heard = await until("the event is heard", async () => {
  await call(caller, "publish", { event_type: "build.done", data: { n: 1 } });
  const { events } = await call(agent, "next_events", { pattern: "build.*", wait_s: 0.3 });
  return events.length && events;
});
assert.deepEqual([heard[0].event_type, heard[0].data], ["build.done", { n: 1 }]);
assert.match((await agent.readResource({ uri: "elo://events/recent" })).contents[0].text, /build\.done/);

await agent.close();
await caller.close();
console.log("all well");
