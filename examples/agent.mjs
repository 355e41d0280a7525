// An agent in JavaScript: serves `shout`, and tells who there is.
//
//     elo serve --http 127.0.0.1:7880      # the node of this machine
//     node examples/agent.mjs              # this agent, beside it
//     elo call shout '"hello"'
import { Elo, TaskError } from "../clients/node/elo_client.mjs";

const elo = new Elo();

elo.task("shout", async (payload, task) => {
  if (typeof payload !== "string") throw new TaskError("the payload is a line of text", "BAD_REQUEST");
  await task.progress("taking a breath");
  return payload.toUpperCase();
}, { description: "Says it loudly" });

console.log(`serving shout at ${elo.url}`);
await elo.serve();
