// Ask for an answer with nothing but a NATS client:
//
//   npm install
//   node consumer.mjs "Why is the sky blue?" [id]
//
// The twin of ../consumer.py: choose the id, subscribe, publish the job, show the
// events in order, read the log where live events leave a hole (docs/protocol.md).

import { randomUUID } from "node:crypto";
import { connect, headers } from "@nats-io/transport-node";

const { env } = process;
const PREFIX = env.PREFIX ?? "llm";
const TENANT = env.TENANT ?? "default";
const LANE = env.LANE ?? "default";
const EXIT_CODES = { completed: 0, failed: 1, cancelled: 3 };

// A subject that is silent for so long is compared with the log.
const QUIET_MS = 2000;

let attempt = 0;
let seq = 0;

// Shown before, or from a worker that lost the job.
const stale = (event) =>
  event.attempt < attempt || (event.attempt === attempt && event.seq <= seq);

// The next one. Another attempt is entered through the log.
const follows = (event) =>
  (event.attempt === attempt || seq === 0) && event.seq === seq + 1;

function show(event) {
  if (event.type === "token") {
    process.stdout.write(event.text);
  } else if (event.type === "resumed" && (event.mode === "restart" || event.seq <= seq)) {
    // What stands on the screen is void, all of it or its end.
    process.stdout.write("\n[another worker goes on]\n");
  }
  ({ attempt, seq } = event);
  return event.type in EXIT_CODES;
}

// The log of a request so far, without a consumer on the server.
async function* readLog(nc, subject) {
  let next = 1;
  for (;;) {
    const request = { seq: next, next_by_subj: subject, batch: 4096, max_bytes: 1 << 20 };
    const page = await nc.requestMany(
      `$JS.API.DIRECT.GET.${PREFIX.toUpperCase()}_TOKENS`,
      JSON.stringify(request),
      { strategy: "sentinel", maxWait: 5000 },
    );
    let pending = 0;
    for await (const message of page) {
      if (message.data.length === 0) {
        // The end of this page, or nothing was found.
        pending = Number(message.headers?.get("Nats-Num-Pending") || 0);
        break;
      }
      next = Number(message.headers.get("Nats-Sequence")) + 1;
      yield message.json();
    }
    if (pending === 0) return;
  }
}

// Live events, and null after each silence.
async function* live(subscription) {
  const messages = subscription[Symbol.asyncIterator]();
  let coming = messages.next();
  for (;;) {
    let timer;
    const quiet = new Promise((resolve) => {
      timer = setTimeout(resolve, QUIET_MS, null);
    });
    const result = await Promise.race([coming, quiet]);
    clearTimeout(timer);
    if (result === null) {
      yield null;
    } else if (result.done) {
      return;
    } else {
      coming = messages.next();
      yield result.value.json();
    }
  }
}

async function follow(nc, id, prompt) {
  const subject = `${PREFIX}.tokens.${TENANT}.${id}`;
  const subscription = nc.subscribe(subject);
  const messages = [{ role: "user", content: prompt }];
  const job = { id, request: { model: env.MODEL ?? "llama3.2", messages } };
  const idempotent = headers();
  idempotent.set("Nats-Msg-Id", `${TENANT}/${id}`);
  // A request, so that JetStream says whether the job is stored.
  const answer = await nc.request(
    `${PREFIX}.jobs.${TENANT}.${LANE}`,
    JSON.stringify(job),
    { headers: idempotent, timeout: 5000 },
  );
  const { error } = answer.json();
  if (error) throw new Error(`the job was refused: ${error.description}`);
  for await (const event of live(subscription)) {
    if (event !== null && stale(event)) continue;
    if (event !== null && follows(event)) {
      if (show(event)) return event;
      continue;
    }
    for await (const stored of readLog(nc, subject)) {
      if ((stored.seq > seq || stored.attempt > attempt) && show(stored)) return stored;
    }
  }
  throw new Error("the connection was closed");
}

const [prompt, id = `req-${randomUUID()}`] = process.argv.slice(2);
if (prompt === undefined) {
  console.error('usage: node consumer.mjs "prompt" [id]');
  process.exit(2);
}
const nc = await connect({
  servers: env.NATS_URL ?? "nats://127.0.0.1:4222",
  maxReconnectAttempts: -1,
});
const end = await follow(nc, id, prompt);
await nc.close();
const said = end.error?.message ?? end.reason ?? "completed";
console.error(`\n${end.type} after ${end.seq} events: ${said}`);
process.exitCode = EXIT_CODES[end.type];
