// A Fieldtally client that loses nothing: a report is in IndexedDB before anything else happens, and is sent until the
// gateway has named it in a receipt. No dependency: copy this file. README.md says what it guarantees and what not.
const [TYPE, BATCH] = ["application/cloudevents-batch+json", 50]; // of a request, and the reports in it
const NUMBER_MAX = 1_000_000_000; // no device makes so many: a higher number in the log is a fault, or another's
const LINK = /^#token=([\w-]{43})&source=((\/[A-Z]{2}\/[A-Za-z0-9-]{1,64}\/)[A-Za-z0-9-]{1,64})$/;
const OUTCOMES = { __proto__: null, recorded: "sent", duplicate: "sent", conflict: "rejected", rejected: "rejected" };

/** A UUID of version 7 (RFC 9562): 48 bits of time, 74 random ones. */
export function uuid7(ms = Date.now()) {
  const bits = Array.from(crypto.getRandomValues(new Uint8Array(19)), (byte) => (byte & 15).toString(16)).join("");
  const hex = `${ms.toString(16).padStart(12, "0")}7${bits.slice(1, 4)}${"89ab"["0x" + bits[0] & 3]}${bits.slice(4)}`;
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** RFC 3339 with the device's own offset: what its clock showed where it happened. */
export function rfc3339(date = new Date()) {
  const offset = -date.getTimezoneOffset();
  const iso = (minutes) => new Date(minutes * 60_000).toISOString();
  return iso(date / 60_000 + offset).slice(0, 19) + (offset < 0 ? "-" : "+") + iso(Math.abs(offset)).slice(11, 16);
}
// In the log, or on its way there, or perhaps: sent before without an answer, or in conflict with what is there.
const mayBeLogged = ({ state, tried, problem }) => tried > 1 || /sent|pending|conflict/.test([state, problem?.code]);
const done = (request) => new Promise((resolve, reject) =>
  Object.assign(request, { onsuccess: () => resolve(request.result), onerror: () => reject(request.error) }));
const inState = (reports, state, most) => done(reports.index("state").getAll(state, most));

/** Dispatches "change" whenever something is different from before, in this tab or in another one. */
export class Outbox extends EventTarget {
  pausesMs = [1_000, 60_000]; // before the second attempt, doubling up to the longest
  #db; #channel; #timer; #most = BATCH; #queued = false; #standing;

  static async open(name = "fieldtally") {
    const [outbox, request] = [new Outbox(), indexedDB.open(name, 1)];
    request.onupgradeneeded = () => {
      request.result.createObjectStore("device");
      const reports = request.result.createObjectStore("reports", { keyPath: "order", autoIncrement: true });
      for (const field of ["id", "key", "state"]) reports.createIndex(field, field, { unique: field === "id" });
    };
    outbox.#db = await done(request);
    Object.assign(outbox.#channel = new BroadcastChannel(name), { onmessage: () => outbox.#wake() });
    addEventListener("online", () => outbox.flush());
    outbox.#wake();
    return outbox;
  }

  /** Take an enrolment link; works offline too. The same link again, or another device's of the unit, loses nothing. */
  async join(link) {
    const url = new URL(link.trim());
    const [, token, source, unit] = LINK.exec(decodeURIComponent(url.hash)) ?? [];
    if (!source) throw new Error("This is no enrolment link: it ends in #token=…&source=/side/unit/device");
    await this.#transact("readwrite", async (device, reports) => {
      if (!(device.source ?? source).startsWith(unit) && (await done(reports.index("state").count("pending"))))
        throw new Error(`Reports of ${device.source} are still waiting: send them before joining as another unit`);
      if (device.source !== source) Object.assign(device, { next: 1, used: undefined });
      Object.assign(device, { gateway: url.href.replace(/\/*[#?].*/, "/"), token, source, pause: undefined });
    });
    navigator.storage?.persist?.(); // else a browser that is short of space may throw everything away
    return this.flush();
  }

  /** Resolve to the report's id once it is on disk. `type` as in "apprehension"; `time` is a Date or RFC 3339. */
  async report(type, data, { subject, time = new Date() } = {}) {
    const content = { type: `org.fieldtally.${type}.v1`, subject, time, data: structuredClone(data) };
    return this.#transact("readwrite", (device, reports) => this.#add(device, reports, content));
  }

  /** Put new data in a report's place, or take it back; resolve to the new id. What is not in the log is let go. */
  async amend(id, data, about) { return this.#revise(id, { ...about, data: structuredClone(data) }); }
  async withdraw(id, reason) { return this.#revise(id, { type: "org.fieldtally.withdrawal.v1", data: { reason } }); }
  pending() { return this.#list("pending"); }
  rejected() { return this.#list("rejected"); }
  sent() { return this.#list("sent"); }
  /** Who this device is, if the gateway knows it, why sending pauses, which numbers were used (until `dismiss`). */
  async status() {
    const { token, next, ...device } = await this.#transact("readonly", (device) => device);
    return { ...device, known: Boolean(this.#standing), strange: this.#standing?.highest > NUMBER_MAX };
  }
  dismiss() { return this.#transact("readwrite", (device) => { device.used = undefined; }); }

  /** Send now instead of after the pause, unless the gateway asked for it. */
  flush() {
    this.#standing = undefined;
    return this.#transact("readwrite", (device) => { if (!device.pause?.asked) device.pause = undefined; });
  }

  // One transaction over everything: on disk when it resolves, undone as a whole if `work` throws. All tabs hear of it.
  async #transact(mode, work) {
    const transaction = this.#db.transaction(["device", "reports"], mode, { durability: "strict" });
    const ended = new Promise((resolve) => { transaction.oncomplete = transaction.onabort = resolve; });
    const [devices, reports] = ["device", "reports"].map((store) => transaction.objectStore(store));
    try {
      const device = (await done(devices.get(0))) ?? { next: 1 };
      const result = await work(device, reports);
      if (mode === "readwrite") await done(devices.put(device, 0));
      if ((await ended).type === "abort") throw transaction.error;
      if (mode === "readwrite") { this.#wake(); this.#channel.postMessage("changed"); }
      return result;
    } catch (error) {
      try { transaction.abort(); } catch { /* it has ended by itself */ }
      throw error;
    }
  }

  // The text made here is what is sent, however often: a new spelling of it would be other content.
  async #add(device, reports, { type, subject, time, amends, revision, data }) {
    if (!device.source) throw new Error("This device has not joined: take its enrolment link first");
    if (device.next > NUMBER_MAX) device.next = 1 + (await done(reports.count())); // no number stops a report
    const [id, source, at] = [uuid7(), device.source, time.getTime ? rfc3339(time) : time];
    const head = { specversion: "1.0", type, id, source, reportno: device.next++, side: source.slice(1, 3) };
    const event = { ...head, subject: subject || undefined, time: at, amends, revision, data };
    const text = JSON.stringify(event, (_, value) => value?.toWellFormed?.() ?? value); // else it spoils all it is with
    return done(reports.add({ id, key: amends ?? id, revision: revision ?? 0, state: "pending", text })).then(() => id);
  }

  #revise = (id, changes) => this.#transact("readwrite", async (device, reports) => {
    const versions = await done(reports.index("key").getAll((await done(reports.index("id").get(id)))?.key ?? ""));
    const rejected = versions.filter(({ state }) => state === "rejected");
    const logged = versions.some(mayBeLogged);
    if (!logged && !rejected.length) throw new Error(`Report ${id} is not on this device, or has been replaced`);
    for (const version of rejected) await done(reports.put({ ...version, state: "replaced" }));
    const [{ type }, { subject, time }] = [versions[0], versions.at(-1)].map(({ text }) => JSON.parse(text));
    const revision = 1 + Math.max(...versions.map((version) => version.revision));
    const content = { type, subject, time, ...changes, ...(logged && { amends: versions[0].key, revision }) };
    return logged || !changes.type ? this.#add(device, reports, content) : undefined;
  });
  #list = async (state) => (await this.#transact("readonly", (_, reports) => inState(reports, state)))
    .map(({ text, ...rest }) => ({ ...rest, event: JSON.parse(text), mayBeLogged: mayBeLogged(rest) }));
  // One delivery at a time, among all tabs; whoever wakes it meanwhile gets one more after it.
  #wake() {
    this.dispatchEvent(new Event("change"));
    if (this.#queued) return;
    this.#queued = true;
    const run = () => { this.#queued = false; return this.#deliver(); };
    (navigator.locks?.request(this.#db.name, run) ?? run()).catch(console.error);
  }

  // One request. What came of it is written down, and whatever is written wakes the next.
  async #deliver() {
    clearTimeout(this.#timer);
    if (!navigator.onLine) return; // what is not even tried cannot be in the log; the event "online" wakes us
    const read = async (device, reports) => [device, await inState(reports, "pending", this.#most)];
    const [device, batch] = await this.#transact("readonly", read);
    const pauseMs = device.pause?.since <= Date.now() ? device.pause.until - Date.now() : 0; // a clock set back ends it
    if (pauseMs > 0) return void (this.#timer = setTimeout(() => this.#wake(), pauseMs));
    if (!batch.length) return !device.token || this.#standing || this.#compareNumbers(device);
    const mark = (_, reports) => batch.forEach((one) => reports.put(Object.assign(one, { tried: one.tried ? 2 : 1 })));
    if (batch.some(({ tried }) => !(tried > 1))) await this.#transact("readwrite", mark); // before: no answer may come
    const { status, answer, askedMs } = await this.#ask(device, "v1/events", `[${batch.map(({ text }) => text)}]`);
    // One of them may be why, or their length: fewer go together until it works, and who fails alone goes to the back.
    const [{ order, ...first }, ...others] = batch;
    this.#most = [0, 400, 413, 500].includes(status) ? Math.ceil(batch.length / 2) : Math.min(this.#most * 2, BATCH);
    if (others.length && (status === 400 || status === 413)) return this.#wake();
    const tooLarge = status === 413 && answer?.code === "too-large"; // by the gateway; a proxy's 413 is no receipt
    const receipt = tooLarge ? { ...first, status: "rejected", problem: answer } : status === 202 && answer?.results;
    await this.#transact("readwrite", async (device, reports) => {
      let settled = 0;
      for (const report of batch) {
        const { status, problem } = [receipt].flat().find((result) => result?.id === report.id) ?? {};
        const state = problem?.retryable ? undefined : OUTCOMES[status];
        if (state) settled += Boolean(await done(reports.put({ ...report, state, problem })));
        if (state === "rejected" && report.tried > 1) this.#standing = undefined; // to ask whether the log has it
      }
      if (status && !others.length && !settled) reports.delete(order) && reports.add(first);
      const tries = settled ? 1 : (device.pause?.tries ?? 0) + 1;
      const grownMs = Math.min(this.pausesMs[0] * 2 ** (tries - 1), this.pausesMs[1]) * (0.5 + Math.random() / 2);
      const why = answer?.title ?? (status ? `an answer (${status}) that is no receipt for all` : "no connection");
      const pause = (since) => ({ why, tries, since, until: since + askedMs + grownMs, asked: askedMs > 0 });
      device.pause = settled < batch.length ? pause(Date.now()) : undefined;
    });
  }

  // Learns which numbers were used, by a device that is installed again, and which rejected ones are not in the log.
  async #compareNumbers({ source, ...gateway }) {
    const { status, answer: log, askedMs } = await this.#ask(gateway, "v1/devices/me");
    const known = status === 200 && `/${log?.side}/${log?.unit}/${log?.device}` === source;
    if (!known) return void (this.#timer = setTimeout(() => this.#wake(), Math.max(askedMs, this.pausesMs[1])));
    const to = log.missing.reduceRight((top, [from]) => (top > NUMBER_MAX ? from - 1 : top), log.highest);
    await this.#transact("readwrite", async (it, reports) => {
      if (it.source !== source) return; // somebody has joined anew meanwhile
      if (it.next <= to && to <= NUMBER_MAX) Object.assign(it, { used: { from: it.next, to }, next: to + 1 });
      for (const one of await inState(reports, IDBKeyRange.bound("rejected", "replaced"))) {
        const { source: by, reportno: no } = JSON.parse(one.text);
        const there = no <= log.highest && !log.missing.some(([from, to]) => from <= no && no <= to);
        if (by === source && !there) reports.put({ ...one, tried: 1 });
      }
      this.#standing = log;
    });
  }

  async #ask({ gateway, token }, path, body) {
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": TYPE, "Fieldtally-Sent": rfc3339() };
    const how = { method: body ? "POST" : "GET", headers, body, redirect: "error", cache: "no-store" };
    const response = await fetch(gateway + path, { ...how, signal: AbortSignal.timeout(30_000) }).catch(() => null);
    const asked = response?.headers.get("Retry-After") ?? "";
    const askedMs = (/^\d+$/.test(asked) ? asked * 1_000 : Date.parse(asked) - Date.now()) || 0;
    const answer = await response?.json().catch(() => null);
    return { status: response?.status ?? 0, answer, askedMs: Math.min(Math.max(askedMs, 0), 3_600_000) };
  }
}
