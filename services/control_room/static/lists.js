// The lists of the screen: citizenships, sections, latest reports, devices, last year, amendments.

import { localDay } from "./clock.js";
import { fill, find, make, write } from "./dom.js";
import { AMENDMENTS, inView, LATEST, planOf, sums, yearBefore } from "./tallies.js";

const MEASURES = ["persons", "smugglers", "smuggling_cases", "smuggled_persons", "remanded"];
const number = (text, title) => ({ text, number: true, title });
const code = (text) => ({ text, mark: "code" });
const RESTS = new Set(["citizenship", "section", "devices"]); // the lists whose last row is the sum of the others
const RANGES = 3; // so many gaps of a device are named, fewer on a wall; of more one less, and how many others

/** Rows beyond `most` become one, made by `rest`; a single one too many is shown as it is. */
function limited(rows, most, rest) {
  return rows.length <= most + 1 ? rows : [...rows.slice(0, most), rest(rows.slice(most))];
}

export class Lists {
  /** `most` has how many rows fit, by list; `address` makes the address of a position's past view. */
  constructor(words, most, address) {
    [this.words, this.most, this.address] = [words, most, address];
  }

  draw(room, view, found, serverMs) {
    this.write(room, view, found, serverMs);
    // On a wall what fits is seen by writing it; a few times at most, since a heading may need another line then.
    for (let times = 0; this.walled() && times < 3 && this.fit(); times++) this.write(room, view, found, serverMs);
  }

  /** Whether there is nothing to scroll, and what does not fit has to be said. */
  walled() {
    return this.most.citizenship !== Infinity && getComputedStyle(document.body).overflowY === "hidden";
  }

  /** Find out how many rows of each list there is room for; return whether it is another number than was thought. */
  fit() {
    const before = JSON.stringify(this.most);
    for (const name of Object.keys(this.most)) {
      const scroll = find(`#${name} .scroll`);
      const rows = [...find("tbody", scroll).rows];
      const edge = scroll.getBoundingClientRect().bottom + 1;
      const boxes = rows.map((row) => row.getBoundingClientRect());
      const whole = boxes.filter(({ bottom }) => bottom <= edge).length;
      const last = boxes.at(-1);
      const more = whole < rows.length ? 0 : Math.floor((edge - last.bottom) / Math.max(last.height, 1));
      this.most[name] = Math.max(0, whole + more - (RESTS.has(name) ? 1 : 0)); // one row says how many others there are
    }
    return JSON.stringify(this.most) !== before;
  }

  /** Say beside a heading how many rows there is no room for, in a list whose last row does not say so; and a note. */
  left(name, count, note = "") {
    const heading = find(`#${name}-title`);
    if (!find("small", heading)) heading.append(" ", make("small", { class: "quiet" }));
    const more = count > 0 ? this.words.say("more", { n: this.words.number(count) }) : "";
    write(find("small", heading), [note, more].filter(Boolean).join(" "));
  }

  write(room, view, found, serverMs) {
    const names = [...room.sides.keys()].filter((side) => !view.side || side === view.side);
    this.citizenships(found.citizenships, names);
    this.sections(room, view, found.sections);
    this.latest(room, view, serverMs);
    this.devices(room, view, serverMs);
    this.lastYear(room, view, serverMs);
  }

  /** On a wall only who was apprehended: the names need the room that the smugglers would take. */
  citizenships(found, names) {
    const { words } = this;
    const whole = this.most.citizenship === Infinity;
    const count = (counts, measure, side) => counts[measure]?.[side] ?? 0;
    const cells = (name, counts) => [
      name,
      ...names.map((side) => number(words.number(count(counts, "persons", side)))),
      ...(names.length > 1 ? [number(words.number(count(counts, "persons", "")))] : []),
      ...(whole ? [number(words.number(count(counts, "smugglers", "")))] : []),
    ];
    const order = ([a, left], [b, right]) =>
      count(right, "persons", "") - count(left, "persons", "") ||
      count(right, "smugglers", "") - count(left, "smugglers", "") ||
      words.collator.compare(words.citizenship(a), words.citizenship(b));
    const told = [...found].filter(([, counts]) => whole || count(counts, "persons", ""));
    const rows = limited(told.sort(order), this.most.citizenship, (rest) => [
      rest.length,
      merged(rest.map(([, counts]) => counts)),
    ]);
    const heads = [
      words.say("citizenship"),
      ...names.map((side) => number(side, words.say("measure.persons"))),
      ...(names.length > 1
        ? [number(words.say("total.short"), `${words.say("total")}: ${words.say("measure.persons")}`)]
        : []),
      ...(whole ? [number(words.say("smugglers"))] : []),
    ];
    fill(
      find("#citizenship table"),
      heads,
      rows.map(([code, counts]) =>
        typeof code === "number"
          ? { key: "rest", cells: cells(words.say("other", { n: code }), counts) }
          : { key: `c-${code}`, cells: cells(words.citizenship(code), counts) },
      ),
      words.say("empty"),
    );
  }

  /** Nil reports stand beside the counts: zero with somebody who looked is another thing than zero. */
  sections(room, view, found) {
    const { words } = this;
    const planned = new Map();
    for (const side of room.sides.values())
      for (const { operation, sections } of side.operations)
        for (const section of sections)
          if (inView({ side: side.side, operation, day: view.from || view.to }, view))
            planned.set(`${side.side}|${operation}|${section.section}`, section);
    for (const place of planned.keys()) if (view.operation && !found.has(place)) found.set(place, {});
    const told = ({ place, counts }) =>
      !place.endsWith("|") || counts.persons || counts.smugglers || counts.nil_reports;
    const rows = [...found]
      .map(([place, counts]) => ({ place, counts, plan: planned.get(place) }))
      .filter(told)
      .sort((a, b) => (b.counts.persons ?? 0) - (a.counts.persons ?? 0) || (a.place < b.place ? -1 : 1));
    // Two operations may have a section of the same name: beside it stands which, where the view is not of one.
    const hidden = `off-phone ${view.operation ? "" : "off-wall"}`;
    const count = (counts, measure) => number(words.number(counts[measure] ?? 0));
    const cells = (name, operation, coverage, counts) => [
      name,
      ...(view.operation ? [] : [{ text: operation, clip: true }]),
      { text: coverage, mark: hidden },
      count(counts, "persons"),
      { ...count(counts, "smugglers"), mark: "off-wall" },
      count(counts, "nil_reports"),
    ];
    const heads = [
      words.say("section"),
      ...(view.operation ? [] : [words.say("filter.operation")]),
      { text: words.say("coverage"), mark: hidden },
      number(words.say("persons")),
      { ...number(words.say("smugglers")), mark: "off-wall" },
      number(words.say("nil"), words.say("measure.nil_reports")),
    ];
    const shown = limited(rows, this.most.section, (rest) => ({
      rest: rest.length,
      counts: merged(rest.map(({ counts }) => counts)),
    }));
    fill(
      find("#section table"),
      heads,
      shown.map(({ rest, place, counts, plan }) => {
        if (rest) return { key: "rest", cells: cells(words.say("other", { n: rest }), "", "", counts) };
        const [side, operation, section] = place.split("|");
        const text = `${side} ${section || words.say("section.none")}`;
        const name = { text, clip: true, title: plan?.area && `${text}: ${plan.area}` };
        return { key: place, cells: cells(name, operation, words.say(`coverage.${plan?.coverage ?? "none"}`), counts) };
      }),
      words.say("empty"),
    );
  }

  latest(room, view, serverMs) {
    const { words } = this;
    const sides = [...room.sides.values()].filter(({ side }) => !view.side || side === view.side);
    // Of a side with so many the older ones are not known here: from then on the list of all would have holes.
    const since = Math.max(...sides.map(({ latest }) => (latest.length < LATEST ? 0 : Date.parse(latest.at(-1).received))));
    const reports = sides
      .flatMap(({ side, zone, latest }) => latest.map((report) => ({ side, zone, ...report })))
      .filter(({ side, operation, time, zone }) =>
        inView({ side, operation: operation ?? "", day: localDay(Date.parse(time), zone) }, view),
      )
      .filter(({ received }) => Date.parse(received) >= since)
      .sort((a, b) => Date.parse(b.received) - Date.parse(a.received))
      .slice(0, LATEST);
    const { latest: most } = this.most;
    const among = since > 0 && (view.operation || view.from || view.to);
    const note = among && most === LATEST && reports.length ? words.say("latest.among", { n: LATEST }) : "";
    this.left("latest", most < LATEST ? reports.length - most : 0, note);
    const spare = (text) => ({ text, mark: "spare" });
    const clock = (at, zone) => words.time(Date.parse(at), zone, { seconds: false, today: serverMs, year: false });
    const heads = [
      words.say("received"),
      spare(words.say("time")),
      words.say("side"),
      ...(view.operation ? [] : [words.say("filter.operation")]),
      { text: words.say("report"), mark: "told" },
      spare(words.say("section")),
      spare(words.say("unit")),
    ];
    fill(
      find("#latest table"),
      heads,
      reports.slice(0, most).map((report) => {
        const { side, zone, position, received, type, time, unit, operation, section, revision } = report;
        const what = this.what(report, room.sides.get(side).amendments, serverMs);
        return {
          key: `${side} ${position}`,
          cells: [
            {
              text: clock(received, zone),
              href: this.address({ at: position }),
              title: words.say("position.title", { position }),
              mark: "code",
            },
            { text: clock(time, zone), mark: "code spare" },
            side,
            ...(view.operation ? [] : [{ text: operation ?? "", clip: true }]),
            {
              text:
                revision && type !== "withdrawal"
                  ? `${what} · ${words.say("amended.mark")} ${words.say("revised")}`
                  : what,
              mark: type === "nil-report" ? "told quiet" : "told",
            },
            spare(section ?? ""),
            { text: unit ?? "", mark: "code spare" },
          ],
        };
      }),
      among ? words.say("latest.older", { n: LATEST }) : words.say("latest.none"),
    );
  }

  /** What a report says: which operation was opened; what was taken back, by how much and when that came. */
  what({ type, operation, zone, position, received, reason, counts }, amendments, serverMs) {
    const { words } = this;
    if (type.startsWith("operation-")) return `${this.counted(type, {})}: ${operation}`;
    if (type !== "withdrawal") return this.counted(type, counts ?? {});
    const { of, changes } = amendments.find((one) => one.position === position) ?? {};
    const taken = {};
    for (const [cell, change] of Object.entries(changes ?? {})) {
      const [, , , , measure, citizenship] = cell.split("|");
      (taken[measure] ??= {})[citizenship] = (taken[measure][citizenship] ?? 0) + change;
    }
    const time = words.time(Date.parse(received), zone, { seconds: false, today: serverMs });
    const what = of ? [this.counted(of, taken, true)] : [];
    return `↩ ${[words.say(`reason.${reason}`), ...what, words.say("received.at", { time })].join(" · ")}`;
  }

  counted(type, counts, change) {
    const { words } = this;
    const number = (count) => (change ? words.signed(count) : words.number(count));
    const parts = Object.entries(counts)
      .filter(([measure]) => measure !== "apprehensions" && measure !== "nil_reports")
      .map(([measure, byCitizenship]) => {
        const entries = typeof byCitizenship === "number" ? [["", byCitizenship]] : Object.entries(byCitizenship);
        const sum = entries.reduce((total, [, count]) => total + count, 0);
        const named = entries
          .filter(([code]) => code)
          .map(([code, count]) => `${number(count)} ${words.citizenship(code)}`)
          .join(", ");
        return `${number(sum)} ${words.count(`unit.${measure}`, Math.abs(sum))}${named ? `: ${named}` : ""}`;
      });
    const name = words.say(`type.${words.has(`type.${type}`) ? type : "other"}`);
    return type === "apprehension" && parts.length && !change ? parts.join("; ") : [name, ...parts].join("; ");
  }

  devices(room, view, serverMs) {
    const { words } = this;
    const all = [...room.sides.values()]
      .filter(({ side }) => !view.side || side === view.side)
      .flatMap(({ side, zone, devices }) => devices.map((device) => ({ side, zone, ...device })))
      .sort((a, b) => asks(b) - asks(a) || b.missing.length - a.missing.length || (a.heard < b.heard ? 1 : -1));
    const devices = limited(all, this.most.devices, (rest) => ({ rest }));
    const heads = [
      words.say("device"),
      words.say("device.heard"),
      { ...number(words.say("device.highest")), mark: "spare" },
      words.say("device.missing"),
    ];
    const thisYear = new Date(serverMs).getUTCFullYear();
    fill(
      find("#devices table"),
      heads,
      devices.map(({ rest, zone, unit, device, highest, missing, reused, heard }) => {
        const spare = { text: "", mark: "spare" };
        if (rest) {
          const asked = rest.filter(asks).length; // what there is to ask about stands there, however many devices
          const text = asked ? `△ ${words.number(asked)}` : "";
          return { key: "rest", cells: [words.say("other", { n: rest.length }), "", spare, { text, mark: "warn" }] };
        }
        const at = heard ? Date.parse(heard) : 0;
        const year = new Date(at).getUTCFullYear() !== thisYear;
        return {
          key: `${unit}/${device}`,
          cells: [
            { text: `${unit} ${device}`, clip: true },
            code(heard ? words.time(at, zone, { seconds: false, today: serverMs, year }) : "–"),
            { ...number(words.number(highest)), mark: "spare" },
            this.troubles(missing, reused),
          ],
        };
      }),
      words.say("heard.never"),
    );
  }

  /** What is to be asked about a device: the first gaps in its numbers, and all of them folded away on a desk. */
  troubles(missing, reused) {
    const { words } = this;
    const named = missing.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`));
    const most = this.most.devices === Infinity ? RANGES : RANGES - 1;
    const shown = named.length > most ? named.slice(0, most - 1) : named;
    const left = named.length - shown.length;
    const ranges = shown.join(", ") + (left ? ` ${words.say("more", { n: words.number(left) })}` : "");
    const troubles = [ranges, reused && words.count("device.reused", reused)].filter(Boolean);
    const text = troubles.map((trouble) => `△ ${trouble}`).join(" ") || words.say("device.none");
    const folded = left && this.most.devices === Infinity ? named.join(", ") : undefined;
    return { text, mark: troubles.length ? "warn" : "quiet", more: folded };
  }

  /** The days of the view and the same a year before, of all operations: last year had others. */
  lastYear(room, view, serverMs) {
    const { words } = this;
    const zone = [...room.sides.values()][0]?.zone;
    const today = zone ? localDay(serverMs, zone) : "";
    const plan = view.operation ? planOf(room, view.operation) : null;
    const from = view.from || plan?.starts || `${(view.to || today).slice(0, 4)}-01-01`;
    const planned = plan && (plan.ends < today || plan.starts > today);
    const until = view.to || (planned ? plan.ends : today);
    const to = until < from && !view.to ? from : until;
    const lastYear = yearBefore(from, to);
    const [now, before] = [[from, to], lastYear].map(
      ([from, to]) => sums(room, { side: view.side, operation: "", from, to }).figures,
    );
    const rows = MEASURES.filter((measure) => before[measure]);
    // The note below has no room on a wall.
    const note = this.walled() && view.operation ? words.say("lastyear.all") : "";
    this.left("lastyear", rows.length - this.most.lastyear, note);
    const heads = [
      words.say("measure"),
      number(words.days(from, to)),
      number(words.days(...lastYear)),
      number(words.say("amended.change")),
    ];
    fill(
      find("#lastyear table"),
      heads,
      rows.slice(0, this.most.lastyear).map((measure) => {
        const [a, b] = [now[measure]?.[""] ?? 0, before[measure][""] ?? 0];
        return {
          key: measure,
          cells: [
            words.say(`measure.${measure}`),
            number(words.number(a)),
            number(words.number(b)),
            number(words.signed(a - b)),
          ],
        };
      }),
      words.say("lastyear.none", { period: words.days(...lastYear) }),
    );
    write(find("#lastyear > p"), rows.length ? words.say("lastyear.note") : "");
  }

  /** Show why a figure was amended: `entry` as `amended` made it. */
  reasons(room, measure, side, { amendments, older }, serverMs) {
    const { words } = this;
    const dialog = find("#reasons");
    write(
      find("h2", dialog),
      words.say("amended.title", { measure: words.say(`measure.${measure}`), side: side || words.say("total") }),
    );
    const heads = [
      words.say("received"),
      words.say("side"),
      number(words.say("amended.change")),
      words.say("amended.reason"),
      words.say("report"),
      words.say("amended.day"),
      words.say("section"),
      words.say("unit"),
      words.say("position"),
    ];
    const rows = amendments
      .filter(({ cells }) => cells.some((cell) => cell.measure === measure))
      .map(({ side, position, received, type, reason, section, day, unit, cells }) => {
        const zone = room.sides.get(side).zone;
        const changes = cells
          .map(
            ({ citizenship, count }) =>
              `${words.signed(count)}${citizenship ? ` ${words.citizenship(citizenship)}` : ""}`,
          )
          .join(", ");
        return {
          key: `${side} ${position}`,
          cells: [
            words.time(Date.parse(received), zone, { today: serverMs }),
            side,
            number(changes),
            words.say(`reason.${reason ?? "correction"}`),
            words.say(`type.${words.has(`type.${type}`) ? type : "other"}`),
            day ? words.day(day) : "",
            section ?? "",
            unit ?? "",
            { text: position, href: this.address({ at: position }), title: words.say("position.title", { position }) },
          ],
        };
      });
    fill(find("table", dialog), heads, rows, "");
    write(find("p", dialog), older ? words.say("amended.limit", { n: AMENDMENTS }) : "");
    dialog.showModal();
  }
}

const asks = ({ missing, reused }) => Boolean(missing.length || reused);

// The counts of several rows as one: numbers added up, also those that are a level deeper.
function merged(rows) {
  const sum = {};
  for (const row of rows)
    for (const [key, value] of Object.entries(row))
      sum[key] = typeof value === "number" ? (sum[key] ?? 0) + value : merged([sum[key] ?? {}, value]);
  return sum;
}
