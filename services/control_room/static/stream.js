// The link to the server: one event stream at a time, opened anew after whatever ends it. It tells what it hears, and
// leaves it to others to say what that means.

const PAUSE_MS = [2_000, 10_000]; // before another attempt: anywhere between, so that a restart meets no herd
const SILENCE_MS = 15_000; // a half-open connection raises no error; the server speaks every 5 s
const FROZEN_MS = 5_000; // timers that stood still for so long: asleep, or stopped

/** Dispatches "snapshot", "change", "heartbeat", "side" with their data as `detail`; "ended" when the log-in has. */
export class Stream extends EventTarget {
  #steady;
  #id;
  #source;
  #timer;
  #heardAt;
  #openedAt = 0; // a new connection has its own time to speak, however long the one before was silent
  #tickedAt;
  #first = false;
  #stale = false;
  #closed = false;

  /** `id` says what the page knows; `steady` is its clock. */
  constructor(id, steady) {
    super();
    [this.#id, this.#steady] = [id, steady];
    this.#heardAt = this.#tickedAt = steady.now();
    // Whatever may mean that timers stood still or the network is another one: look at once, not at the next tick.
    for (const [target, event] of [
      [window, "online"],
      [window, "pageshow"],
      [document, "visibilitychange"],
      [document, "resume"],
    ])
      target.addEventListener(event, (what) => this.#woken(what));
    setInterval(() => this.tick(), 1_000);
    this.#connect();
  }

  /** Milliseconds since the server was last heard. */
  get silentMs() {
    return this.#steady.now() - this.#heardAt;
  }

  /** Notice frozen timers and a silent connection. */
  tick() {
    const [now, frozen] = [this.#steady.now(), this.#steady.now() - this.#tickedAt > FROZEN_MS];
    this.#tickedAt = now;
    // What waited in a stopped page's connection is old: the stream begins anew from what the page knows.
    if (frozen) this.#connect();
    else if (this.#source && now - Math.max(this.#heardAt, this.#openedAt) > SILENCE_MS) this.#retry();
    if (frozen) this.dispatchEvent(new Event("woken"));
  }

  /** Begin a new connection soon: what waits in this one is old. */
  again() {
    this.#retry();
  }

  /** Give up for good. */
  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = undefined;
    this.#closed = true;
  }

  #woken({ type, persisted }) {
    if (type === "visibilitychange" && document.hidden) return;
    const waiting = !this.#source;
    this.tick();
    if (persisted || type === "online" || waiting) this.#connect();
  }

  #connect() {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = undefined;
    if (this.#stale) return this.#fetch();
    const source = new EventSource(this.#address);
    [this.#source, this.#first, this.#openedAt] = [source, true, this.#steady.now()];
    for (const kind of ["change", "heartbeat", "side", "reset"])
      source.addEventListener(kind, (event) => {
        if (source === this.#source) this.#take(kind, event);
      });
    // The browser's own repetition ends at the first HTTP error and knows no jitter: ours does it all.
    source.onerror = () => {
      if (source === this.#source) this.#ask();
    };
  }

  #take(kind, { data, lastEventId }) {
    this.#heardAt = this.#steady.now();
    if (kind === "reset") return this.renew();
    const detail = JSON.parse(data);
    if (kind === "heartbeat") [detail.first, this.#first] = [this.#first, false];
    this.dispatchEvent(new CustomEvent(kind, { detail }));
    if (kind === "change") this.#id = lastEventId || this.#id;
  }

  /** Fetch the tallies anew: the stream no longer reaches back to what the page knows, or what it knows is wrong. */
  renew() {
    this.#stale = true;
    this.#connect();
  }

  async #fetch() {
    const answer = await this.#get("/api/tallies");
    const snapshot = answer?.ok ? await answer.json().catch(() => null) : null;
    if (!snapshot) return this.#retry();
    [this.#stale, this.#id, this.#heardAt] = [false, snapshot.id, this.#steady.now()];
    this.dispatchEvent(new CustomEvent("snapshot", { detail: snapshot }));
    this.#connect();
  }

  // An EventSource does not tell why it failed. A refused log-in will not get better by asking again.
  async #ask() {
    this.#retry();
    const answer = await this.#get(this.#address);
    await answer?.body?.cancel();
  }

  async #get(address) {
    const how = { cache: "no-cache", signal: AbortSignal.timeout(SILENCE_MS) };
    const answer = await fetch(address, how).catch(() => null);
    if (answer?.status !== 401) return answer;
    this.close();
    this.dispatchEvent(new Event("ended"));
    return null;
  }

  get #address() {
    return `/api/stream?since=${encodeURIComponent(this.#id)}`;
  }

  #retry() {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = undefined;
    const [least, most] = PAUSE_MS;
    this.#timer = setTimeout(() => this.#connect(), least + Math.random() * (most - least));
  }
}
