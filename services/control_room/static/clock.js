// Time on a screen that must never be silently old: ages that also grow while the machine sleeps, the server's time
// from its messages, and what all that says about the numbers.

export const DELAYED_S = 10;
export const LOST_S = 15;
const SLEPT_MS = 1_500; // a tick that comes so much later than asked is told apart from a busy moment

/** Milliseconds that only grow. `performance.now()` may stand still while the machine sleeps; `Date.now()` jumps. */
export class Steady {
  #jumpsMs = 0;
  #gapMs = Date.now() - performance.now();

  now() {
    const gapMs = Date.now() - performance.now();
    if (gapMs - this.#gapMs > SLEPT_MS) this.#jumpsMs += gapMs - this.#gapMs; // a clock set back is no time
    this.#gapMs = gapMs;
    return performance.now() + this.#jumpsMs;
  }
}

/** The server's time, whatever the clock on the wall PC says. */
export class ServerClock {
  #serverMs;
  #atMs;

  constructor(steady, iso) {
    this.steady = steady;
    this.set(iso);
  }

  set(iso) {
    [this.#serverMs, this.#atMs] = [Date.parse(iso), this.steady.now()];
  }

  now() {
    return this.#serverMs + this.steady.now() - this.#atMs;
  }

  /** Take a message's time; return by how many milliseconds it came late. A late one does not set the clock back. */
  heard(iso) {
    const lateMs = this.now() - Date.parse(iso);
    if (lateMs < 0) this.set(iso);
    return Math.max(lateMs, 0);
  }

  /** Seconds since a time of the server's, never negative. */
  age(iso) {
    return Math.max(0, (this.now() - Date.parse(iso)) / 1000);
  }
}

/**
 * The state of the screen, and why: `silentS` since the last message, `lateS` by which messages come late, `lookedS`
 * since the server reached the store, each side's projector lag. Four facts that are never derived from one another.
 * Numbers that nobody can renew are lost, whichever link of the two is broken.
 */
export function health({ silentS, lateS, lookedS, trouble, sides }) {
  if (silentS > LOST_S) return { state: "lost", causes: [] };
  const causes = [];
  if (silentS > DELAYED_S) causes.push({ cause: "link", age: silentS });
  if (lateS > DELAYED_S) causes.push({ cause: "late", age: lateS });
  // That a projector is behind is said below, with its side: the store has been reached.
  if (trouble === "projector-behind") trouble = "";
  if (trouble === "damaged") {
    causes.push({ cause: "damaged" });
    trouble = "";
  }
  if (lookedS > DELAYED_S || trouble) causes.push({ cause: "server", age: lookedS, trouble });
  for (const { side, lag_s } of sides) if (lag_s > DELAYED_S) causes.push({ cause: "projector", side, age: lag_s });
  if (lookedS > LOST_S) return { state: "lost", causes };
  return { state: causes.length ? "delayed" : "live", causes };
}

/** Until when (epoch milliseconds) it is known what the sides reported, null for now: what came since, nobody knows. */
export function knownUntil({ state, causes, heardMs, lookedMs }) {
  const broken = state === "lost" || state === "ended" || causes.some(({ cause }) => cause !== "projector" && cause !== "damaged");
  return broken ? Math.min(heardMs, lookedMs) : null;
}

/** The moment, in epoch milliseconds, at which a day begins in a zone; days of 23 and 25 hours included. */
export function dayStart(day, zone) {
  const utc = Date.parse(`${day}T00:00Z`);
  const at = utc - offset(utc, zone);
  return utc - offset(at, zone);
}

/** The local calendar day of a moment, ISO 8601. */
export const localDay = (ms, zone) => new Date(ms + offset(ms, zone)).toISOString().slice(0, 10);

export const dayAfter = (day, days = 1) =>
  new Date(Date.parse(`${day}T00:00Z`) + days * 86_400_000).toISOString().slice(0, 10);

const formats = new Map();

function offset(ms, zone) {
  if (!formats.has(zone)) {
    const fields = {
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    };
    formats.set(zone, new Intl.DateTimeFormat("en", { timeZone: zone, hourCycle: "h23", era: "short", ...fields }));
  }
  const parts = Object.fromEntries(
    formats
      .get(zone)
      .formatToParts(ms)
      .map(({ type, value }) => [type, value]),
  );
  return (
    Date.UTC(parts.year, parts.month - 1, parts.day, parts.hour, parts.minute, parts.second) -
    Math.floor(ms / 1000) * 1000
  );
}
