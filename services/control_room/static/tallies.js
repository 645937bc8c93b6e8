// What is known of the sides, and the sums that the screen shows. Pure: no page, no time, no network.

import { dayAfter } from "./clock.js";

export const LATEST = 30; // as many as the server keeps; see also AMENDMENTS
export const AMENDMENTS = 50;
export const ALL = { operation: "", side: "", from: "", to: "" };

/** The sides of a snapshot, each with its cells taken apart once: a sum over thousands of them is then cheap. */
export class Room {
  sides = new Map();
  whole = true; // the digest is that of these positions

  constructor(snapshot) {
    this.id = snapshot.id;
    this.digest = snapshot.digest;
    for (const side of snapshot.sides) {
      const [cells, amended] = [apart(side.cells), apart(side.amended)];
      const hours = { ...side.hours, counts: { ...side.hours.counts } };
      this.sides.set(side.side, { ...side, cells, amended, hours });
    }
  }

  /** Take in a `change`: absolute counts, so that one that comes twice changes nothing. False: not of these tallies. */
  change({ side: name, position, generation, at, cells, hours, latest = [], amendments = [], amended }) {
    const side = this.sides.get(name);
    if (!side || side.generation !== generation) return false;
    for (const [text, count] of Object.entries(cells ?? {}))
      count ? side.cells.set(text, taken(text, count)) : side.cells.delete(text);
    Object.assign(side.hours.counts, hours);
    side.latest = newest(latest, side.latest, LATEST);
    side.amendments = newest(amendments, side.amendments, AMENDMENTS);
    for (const [text, cell] of apart(amended)) side.amended.set(text, cell);
    side.position = position;
    side.heard = later(side.heard, at); // whatever is counted has been heard
    this.whole = false;
    return true;
  }

  /** Take in a `side`: the operations, and the devices that changed. */
  plans({ side: name, operations, devices }) {
    const side = this.sides.get(name);
    if (!side) return;
    const told = new Set(devices.map(({ unit, device }) => `${unit}/${device}`));
    side.operations = operations;
    side.devices = [...side.devices.filter(({ unit, device }) => !told.has(`${unit}/${device}`)), ...devices];
  }

  /** Let go of the hours that begin before a moment (epoch seconds): a wall is not loaded anew for months. */
  forgetBefore(since) {
    for (const { hours } of this.sides.values()) {
      if (since <= hours.since) continue;
      hours.since = since;
      for (const text of Object.keys(hours.counts)) if (Number.parseInt(text) < since) delete hours.counts[text];
    }
  }

  /** Take in what a `heartbeat` says of a side beside its tallies. The position is the tallies' own. */
  about({ side: name, position, ...facts }) {
    const side = this.sides.get(name);
    // A heartbeat may know an older entry as the last one than a change that came before it.
    if (side) Object.assign(side, facts, "heard" in facts && { heard: later(side.heard, facts.heard) });
  }
}

/** The later of two times, either of which may be none. */
export function later(a, b) {
  return a && (!b || Date.parse(a) > Date.parse(b)) ? a : b;
}

function apart(cells) {
  return new Map(Object.entries(cells ?? {}).map(([text, count]) => [text, taken(text, count)]));
}

function taken(text, count) {
  const [side, operation, section, day, measure, citizenship] = text.split("|");
  const place = section ? `${side}|${operation}|${section}` : `${side}||`;
  return { side, operation, section, place, day, measure, citizenship, count };
}

// A message that comes again after a reconnection brings the same entries again.
function newest(added, had, most) {
  const known = new Set(added.map(({ position }) => position));
  return [...added, ...had.filter(({ position }) => !known.has(position))].slice(0, most);
}

/** Whether a cell belongs to the view; the period includes both days. */
export function inView(cell, { operation, side, from, to } = ALL) {
  return (
    (!operation || cell.operation === operation) &&
    (!side || cell.side === side) &&
    (!from || cell.day >= from) &&
    (!to || cell.day <= to)
  );
}

const [FIRST_DAY, LAST_DAY] = ["1970-01-01", "9998-12-31"];
const NAMES = ["operation", "side", "from", "to", "at"];

/** Whether a text is a day that this screen can show, as in 2024-03-14: the years that the server takes. */
export function isDay(text) {
  const ms = /^\d{4}-\d\d-\d\d$/.test(text) ? Date.parse(`${text}T00:00Z`) : Number.NaN;
  return text > FIRST_DAY && text < LAST_DAY && !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(text);
}

/** Whether an operation has been opened by a side (its plan is known), or at least named by a report that counts. */
export function knows(room, operation) {
  const sides = [...room.sides.values()];
  const reports = sides.flatMap(({ latest }) => latest).filter((one) => one.operation === operation);
  const planned = sides.some(({ operations }) => operations.some((plan) => plan.operation === operation));
  // The report comes first, and the plan with the next look at the server.
  if (planned || reports.some(({ type }) => type === "operation-opened")) return "opened";
  const named = ({ cells }) => [...cells.values()].some((cell) => cell.operation === operation);
  return reports.length || sides.some(named) ? "named" : "";
}

/** What a view asks for that there is not, `query` being its address: `{what, name, value}` of each. */
export function wrongIn(room, query) {
  const wrong = NAMES.filter((name) => query.getAll(name).length > 1).map((name) => ({ what: "twice", name, value: "" }));
  const [operation, side, from, to] = NAMES.map((name) => query.get(name) ?? "");
  if (operation && !knows(room, operation)) wrong.push({ what: "operation", name: "operation", value: operation });
  if (side && !room.sides.has(side)) wrong.push({ what: "side", name: "side", value: side });
  const days = { from, to };
  for (const name of ["from", "to"])
    if (days[name] && !isDay(days[name])) wrong.push({ what: "day", name, value: days[name] });
  if (isDay(from) && isDay(to) && from > to) wrong.push({ what: "order", name: "to", value: "", from, to });
  return wrong;
}

/** One pass over everything: sums by measure and side, by citizenship, by section. The side "" is the total. */
export function sums(room, view) {
  const found = { figures: {}, citizenships: new Map(), sections: new Map() };
  for (const side of room.sides.values())
    for (const cell of side.cells.values()) {
      if (!inView(cell, view)) continue;
      const { measure, count } = cell;
      add((found.figures[measure] ??= {}), cell.side, count);
      const section = row(found.sections, cell.place);
      section[measure] = (section[measure] ?? 0) + count;
      if (measure === "persons" || measure === "smugglers")
        add((row(found.citizenships, cell.citizenship)[measure] ??= {}), cell.side, count);
    }
  return found;
}

function row(map, key) {
  let found = map.get(key);
  if (!found) map.set(key, (found = {}));
  return found;
}

function add(counts, side, count) {
  counts[side] = (counts[side] ?? 0) + count;
  counts[""] = (counts[""] ?? 0) + count;
}

/**
 * By how much all amendments changed a measure of the view: by side, "" for all. `amendments` are those of the newest
 * that have to do with it, each with its `cells`; `older` says that there are others.
 */
export function amended(room, view) {
  const found = {};
  for (const side of room.sides.values()) {
    for (const { measure, side: of, count, ...cell } of side.amended.values()) {
      if (!inView({ side: of, ...cell }, view)) continue;
      for (const name of ["", of]) {
        const entry = ((found[measure] ??= {})[name] ??= { change: 0, amendments: [], older: false });
        entry.change += count;
        entry.older ||= side.amendments.length === AMENDMENTS;
      }
    }
    for (const amendment of side.amendments) {
      const cells = [...apart(amendment.changes).values()].filter((cell) => inView(cell, view));
      for (const measure of new Set(cells.map((cell) => cell.measure)))
        for (const name of ["", side.side])
          found[measure]?.[name]?.amendments.push({
            ...amendment,
            side: side.side,
            cells: cells.filter((cell) => cell.measure === measure),
          });
    }
  }
  return found;
}

/** So many hours that end at `end` (epoch seconds): `{start, count}`, the count null where it is not known. */
export function hourly(side, { operation }, end, length = 24, measure = "persons") {
  const last = Math.ceil(end / 3600) * 3600 - 3600;
  const hours = Array.from({ length }, (_, index) => {
    const start = last - (length - 1 - index) * 3600;
    return { start, count: start < side.hours.since ? null : 0 };
  });
  for (const [text, count] of Object.entries(side.hours.counts)) {
    const [start, of, , what] = text.split("|");
    const hour = what === measure && (!operation || of === operation) && hours[length - 1 - (last - start) / 3600];
    if (hour) hour.count = (hour.count ?? 0) + count; // of an hour that is not known as a whole, what is known
  }
  return hours;
}

/** The plan of an operation as the sides have it together: from the first day to the last, closed when all have. */
export function planOf(room, operation) {
  const plans = [...room.sides.values()].flatMap((side) =>
    side.operations.filter((plan) => plan.operation === operation),
  );
  if (!plans.length) return null;
  const ends = plans.map(({ ends, closed }) => (closed && closed < ends ? closed : ends));
  const [starts, name] = [plans.map((plan) => plan.starts).sort()[0], plans[0].name];
  return { operation, name, starts, ends: ends.sort().at(-1), closed: plans.every(({ closed }) => closed) };
}

/** The same days a year earlier. What ends with February does so in both years if it began with a month. */
export function yearBefore(from, to) {
  const year = (day) => day.slice(0, 4) - 1;
  const leap = new Date(Date.UTC(year(to), 1, 29)).getUTCDate() === 29;
  const whole = from.endsWith("-01") && /-02-2[89]$/.test(to) && dayAfter(to).endsWith("-03-01");
  const [first, last] = [from, to].map((day) => `${year(day)}${day.slice(4)}`.replace("-02-29", "-02-28"));
  return [first, whole && leap ? `${year(to)}-02-29` : last];
}

/** The digest of what the page itself holds, to compare with the server's; undefined where the browser offers none. */
export async function digestOf(room) {
  const lines = [...room.sides.values()].flatMap(({ cells }) =>
    Array.from(cells, ([text, { count }]) => `${text}=${count}\n`),
  );
  const bytes = new TextEncoder().encode(lines.sort().join(""));
  const hash = await globalThis.crypto?.subtle?.digest("SHA-256", bytes); // absent on a page without TLS
  return hash && Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
