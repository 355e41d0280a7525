// An agent that is killed, or whose node is: `agent.mjs work` answers, `agent.mjs hang` takes a task and never does.
import { Elo } from "../../clients/node/elo_client.mjs";

const elo = new Elo();

elo.task("work", async (payload, task) => {
  console.log(`has ${payload}, as number ${task.info.attempt}`);
  if (process.argv[2] === "hang") await new Promise(() => {});
  return { by: "mjs", of: payload };
});

setTimeout(() => console.log("serving"), 200);
await elo.serve(2);
