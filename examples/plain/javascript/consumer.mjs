// Ask for an answer with nothing but a NATS client:
//
//   npm install
//   node consumer.mjs "Why is the sky blue?" [id]
//
// The twin of ../consumer.py: choose the id, subscribe, publish the job, show the
// events in order, read the log where live events leave a hole, show nothing behind a
// hole that stays, give up when the request cannot end any more (docs/protocol.md).

import { randomUUID } from "node:crypto";
import { connect, headers } from "@nats-io/transport-node";

const { env } = process;
const PREFIX = env.PREFIX ?? "llm";
const TENANT = env.TENANT ?? "default";
const LANE = env.LANE ?? "default";
const EXIT_CODES = { completed: 0, failed: 1, cancelled: 3 };

// A subject that is silent for so long is compared with the log.
const QUIET_MS = 2000;

// The job's deadline, and how long after it a request is given up: its job is gone then.
const DEADLINE_MS = 600_000;
const LOST_AFTER_MS = 30_000;

// A hole in the log that reading it again for so long does not fill stays.
const HOLE_MS = 2000;

let attempt = 0;
let seq = 0;

const isNumber = (value) => Number.isInteger(value) && value >= 1 && value <= 2 ** 53;

// The event, or null for what is none of this request's: to be passed over.
function readEvent(message, id) {
  let event;
  try {
    event = message.json();
  } catch {
    return null;
  }
  const fits =
    event?.id === id &&
    typeof event.type === "string" &&
    isNumber(event.seq) &&
    isNumber(event.attempt);
  return fits ? event : null;
}

// Shown before, or from a worker that lost the job.
const stale = (event) =>
  event.attempt < attempt || (event.attempt === attempt && event.seq <= seq);

// The next one. Another attempt is entered through the log.
const follows = (event) =>
  (event.attempt === attempt || seq === 0) && event.seq === seq + 1;

// Nothing is missing before the event, behind `last` in the log. A log that was lost is
// made anew for the end alone, which keeps its number.
const continues = (event, last) =>
  event.seq === last + 1 ||
  follows(event) ||
  (last === 0 && event.error?.code === "log_lost");

function show(event) {
  if (event.type === "token") {
    process.stdout.write(event.text ?? "");
  } else if (event.type === "resumed" && (event.mode === "restart" || event.seq <= seq)) {
    // What stands on the screen is void, all of it or its end.
    process.stdout.write("\n[another worker goes on]\n");
  }
  ({ attempt, seq } = event);
  return event.type in EXIT_CODES;
}

// The log of a request so far, without a consumer on the server.
async function* readLog(nc, subject, id) {
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
      const event = readEvent(message, id);
      if (event !== null) yield event;
    }
    if (pending === 0) return;
  }
}

// Live messages, and null after each silence.
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
      yield result.value;
    }
  }
}

// Shows what the log has: whether it was whole as far as it went, and the end.
async function showLog(nc, subject, id) {
  let last = 0;
  for await (const event of readLog(nc, subject, id)) {
    if (stale(event)) {
      if (event.seq <= seq) last = event.seq; // shown already
      continue;
    }
    if (!continues(event, last)) return { whole: false };
    last = event.seq;
    if (show(event)) return { whole: true, end: event };
  }
  return { whole: true };
}

async function follow(nc, id, prompt) {
  const subject = `${PREFIX}.tokens.${TENANT}.${id}`;
  const subscription = nc.subscribe(subject);
  const messages = [{ role: "user", content: prompt }];
  const request = { model: env.MODEL ?? "llama3.2", messages };
  const job = { id, request, deadline_ms: DEADLINE_MS };
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
  const lostAt = Date.now() + DEADLINE_MS + LOST_AFTER_MS;
  let holeSince = null;
  for await (const message of live(subscription)) {
    const event = message === null ? null : readEvent(message, id);
    if (event !== null && follows(event)) {
      if (show(event)) return event;
    } else if (message === null || (event !== null && !stale(event))) {
      // Where nobody answers now, the next silence asks again.
      const { whole, end } = await showLog(nc, subject, id).catch(() => ({ whole: true }));
      if (end) return end;
      holeSince = whole ? null : (holeSince ?? Date.now());
    }
    if (holeSince !== null && Date.now() - holeSince > HOLE_MS) {
      throw new Error(`lost: what follows event ${seq} is no longer kept`);
    }
    if (Date.now() > lostAt) throw new Error("lost: no end came in time");
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
