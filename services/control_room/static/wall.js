// The screen: what the stream tells becomes numbers, and beside them always stands how old they are.
// Two loops: `draw` writes the numbers when something has changed and the view is not frozen; `tick`, once a second,
// writes how the link, the store, the projector and the sides are, frozen or not.

import { drawHours } from "./charts.js";
import { DELAYED_S, dayAfter, dayStart, health, knownUntil, localDay, ServerClock, Steady } from "./clock.js";
import { find, make, mark, replace, write } from "./dom.js";
import { Figures } from "./figures.js";
import { Lists } from "./lists.js";
import { Stream } from "./stream.js";
import { ALL, digestOf, hourly, isDay, knows, LATEST, later, planOf, Room, sums, wrongIn } from "./tallies.js";
import { Words } from "./words.js";

const NOTICE_MS = 60_000; // how long it is said that a frozen view went on
const SPOKEN_MS = 30_000; // a screen reader hears the numbers at most so often
const SOON_MS = 2_000; // and another state so soon
const DAY_MS = 10_000; // how often the hours of a day that is over are asked for, while reports come
const CHECKED_MS = 60_000; // how often the page computes the digest itself
const [HOURS, HOUR_MS] = [25, 3_600_000]; // how many the page keeps: a day and the one that has begun
const BEAT_S = 6; // heartbeats come every 5 s
const SILENT_S = 600; // a side that nobody has heard for so long is called silent
const MOVED_MS = 5_000; // how long a moved mouse shows the way out of a wall's view
const FREEZE_MAX_S = 300; // a wall that somebody froze and left goes on by itself
const ICONS = { connecting: "◌", live: "●", delayed: "◐", lost: "✕", past: "◷", ended: "✕" };
const MOST_ON_WALL = { citizenship: 11, section: 6, latest: 6, devices: 3, lastyear: 5 }; // to begin with
const MOST = { citizenship: Infinity, section: Infinity, latest: LATEST, devices: Infinity, lastyear: Infinity };

const steady = new Steady();
const snapshot = JSON.parse(find("#snapshot").textContent);
const past = snapshot.view === "past";
const before = past && snapshot.sides.every(({ position }) => position === "0-0"); // the first entry of the log
const words = new Words(await fetchWords(document.body.dataset.words));
let room = new Room(snapshot);
let view = readAddress();
const clock = new ServerClock(steady, snapshot.now);
const figures = new Figures(words, steady, (measure, side, revised) =>
  lists.reasons(frozen?.room ?? room, measure, side, revised, clock.now()),
);
const lists = new Lists(words, view.kiosk ? MOST_ON_WALL : MOST, address);

let looked = snapshot.now; // when the server last saw the store
let told = ""; // the time of the newest change: the numbers are of then at least, though nobody has looked since
let lookedS = 0; // how long ago that was when it last spoke: its silence is another fact
let trouble = "";
let lateMs = 0;
let state = past ? "past" : "connecting";
let frozen = null; // {room, at, since}: what stays on the screen
let ended = false;
let fault = false; // an error in this page itself; only loading it anew ends that
let connected = false;
let lostSince = null;
let checked = { at: -Infinity, digest: "" };
let spokenAt = steady.now(); // the first state is CONNECTING, and hardly worth a word
let spokenState = "";
let missed = ""; // positions that a heartbeat named and the page has not reached
let due = false; // a drawing is under way
const days = new Map(); // the hours of days that are over, once they were asked for
let [drawnAt, restMs] = [0, 0];

// A screen without its words or with an error in it must not look like one that works.
addEventListener("error", failed);
addEventListener("unhandledrejection", failed);

const stream = past ? null : new Stream(room.id, steady);
stream?.addEventListener("snapshot", ({ detail }) => {
  room = new Room(detail);
  clock.set(detail.now);
  [looked, lookedS, lateMs, told] = [detail.now, 0, 0, ""];
  options();
  changed();
});
stream?.addEventListener("change", ({ detail }) => {
  if (!room.change(detail)) return stream.renew();
  told = later(told, detail.at);
  changed();
});
stream?.addEventListener("side", ({ detail }) => {
  room.plans(detail);
  options();
  changed();
});
stream?.addEventListener("heartbeat", ({ detail }) => heartbeat(detail));
stream?.addEventListener("woken", () => tick());
stream?.addEventListener("ended", () => {
  ended = true;
  tick();
});

if (before || snapshot.ahead) {
  const text = words.say(before ? "past.before" : "past.ahead", { position: snapshot.at });
  write(find("#banners .past span"), `◷ ${text}`);
}
// Another language, a link or a reload: the page that was frozen is gone, and this one says so.
addEventListener("pagehide", () => frozen && sessionStorage.setItem("frozen", "1"));
if (sessionStorage.getItem("frozen") && !past) notice(words.say("frozen.ended"));
sessionStorage.removeItem("frozen");
listen();
options();
draw();
tick();
setInterval(tick, 1_000);

function heartbeat({ now, first, sides, ...rest }) {
  if (first) clock.set(now); // a new connection: its first message has not waited anywhere
  connected = true;
  lateMs = clock.heard(now);
  if (lateMs > DELAYED_S * 1_000) stream.again(); // or it is this machine's clock that went ahead: the same helps
  ({ looked, trouble } = rest);
  lookedS = (Date.parse(now) - Date.parse(looked)) / 1000;
  // Swapped in while this page was away: at the same position nothing is missing, and everything is another one.
  if (sides.some(({ side, generation }) => room.sides.get(side)?.generation !== generation)) return stream.renew();
  for (const side of sides) room.about(side);
  room.forgetBefore(Math.floor(Date.parse(now) / HOUR_MS - HOURS) * (HOUR_MS / 1000));
  const away = sides.filter(({ side, position }) => room.sides.get(side)?.position !== position);
  const ahead = away.map(({ side, position }) => `${side} ${position}`).join();
  // A heartbeat comes after the changes that it includes: one named twice that no change has brought is lost.
  if (ahead && ahead === missed) stream.renew();
  missed = ahead;
  if (!ahead) {
    [room.digest, room.whole] = [rest.digest, true];
    if (steady.now() - checked.at > CHECKED_MS) check(rest.digest);
  }
  changed();
  tick();
}

/** The page adds up for itself: what it holds has to have the digest that the server names for the same positions. */
async function check(digest) {
  checked.at = steady.now();
  const own = await digestOf(room);
  if (own && own !== digest) stream.renew();
  else checked.digest = own ?? "";
}

// --- the numbers ---

/** Draw at the next frame, or soon: a hidden page has no frames, and its title still tells. */
function changed() {
  if (due || frozen) return;
  due = true;
  const work = () => {
    due = false;
    draw();
  };
  const waitMs = restMs - (performance.now() - drawnAt);
  if (document.hidden || waitMs > 0) setTimeout(work, Math.max(waitMs, 20));
  else requestAnimationFrame(work);
}

function draw() {
  const began = performance.now();
  const shown = frozen?.room ?? room;
  const serverMs = frozen?.at ?? asOf();
  const wrong = wrongIn(shown, new URLSearchParams(location.search));
  amiss(shown, wrong);
  positions(shown, serverMs, wrong); // these first: what room they take the lists do not have
  foot(shown);
  if (wrong.length) figures.draw(shown, ALL, null);
  else {
    const found = sums(shown, view);
    figures.draw(shown, view, found.figures);
    lists.draw(shown, view, found, serverMs);
    hours(shown, serverMs);
  }
  if (!frozen) figures.fade();
  drawnAt = performance.now();
  restMs = 3 * (drawnAt - began); // a slow PC with a large log spends a quarter of its time here, not all of it
}

/** A view of nothing that there is has no numbers: zeros would say that nothing happened. What is wrong stands there. */
function amiss(shown, wrong) {
  const place = find("#amiss");
  for (const part of [find("#panels"), find("footer .controls")]) part.hidden = wrong.length > 0;
  if (before) find("#panels").hidden = true; // with nothing reported there is nothing to list, and no hour to begin at
  mark(place, { class: wrong.length ? "wrong" : "note" });
  const unopened = !wrong.length && view.operation && knows(shown, view.operation) === "named";
  const texts = wrong.map(({ what, name, value, from, to }) =>
    words.say(`wrong.${what}`, {
      field: words.say(`filter.${name}`),
      value: value.slice(0, 64),
      sides: [...shown.sides.keys()].join(", "),
      from: from && words.day(from),
      to: to && words.day(to),
    }),
  );
  if (unopened) texts.push(words.say("unopened", { value: view.operation }));
  const without = wrong.flatMap(({ what, name }) => (what === "order" ? ["from", "to"] : [name]));
  const href = address(Object.fromEntries(without.map((name) => [name, ""])));
  replace(place, JSON.stringify([texts, href]), () => {
    if (!texts.length) return "";
    const link = wrong.length ? make("a", { href }, words.say("wrong.without")) : "";
    return [`${wrong.length ? "✕" : "△"} ${texts.join(" ")} `, link];
  });
}

/** The moment, in the server's time, at which the numbers were true. */
function asOf() {
  const latest = Math.max(...Array.from(room.sides.values(), ({ position }) => Number.parseInt(position)));
  return past && !before ? latest : Date.parse(later(looked, told));
}

function hours(shown, serverMs) {
  const sides = [...shown.sides.values()].filter(({ side }) => !view.side || side === view.side);
  const plan = view.operation ? planOf(shown, view.operation) : null;
  drawHours(
    find("#hours > div"),
    sides.map((side) => {
      const last = [plan?.ends, view.to].filter(Boolean).sort()[0];
      const over = last ? dayStart(dayAfter(last), side.zone) : Infinity;
      const end = Math.min(past ? serverMs : (frozen?.at ?? clock.now()), over);
      const day = end === over;
      const begin = day ? dayStart(last, side.zone) : null; // a day may have 23 or 25 hours
      const known = day && side.hours.since * 1000 > begin ? ofDay(last, side) : side;
      const count = day ? Math.round((over - begin) / HOUR_MS) : HOURS - 1;
      const hours = hourly(known, view, end / 1000, count).map((hour) =>
        hour.start * 1000 > serverMs ? { ...hour, count: null } : hour,
      );
      return { ...side, hours };
    }),
    words,
  );
}

/** A side with the hours of a day that is over: the snapshot has those of the last day only, the log has all. */
function ofDay(day, side) {
  const known = days.get(day) ?? { at: -Infinity, positions: "", sides: null, asking: false };
  const positions = Array.from(room.sides.values(), ({ position }) => position).join();
  if (!past && !known.asking && known.positions !== positions && steady.now() - known.at > DAY_MS) {
    days.set(day, Object.assign(known, { positions, at: steady.now(), asking: true }));
    const failed = () => Object.assign(known, { positions: "" }); // asked for again when it is drawn again
    const taken = fetch(`/api/hours?day=${day}`).then((answer) => (answer.ok ? answer.json() : Promise.reject(answer)));
    taken.then((sides) => { known.sides = sides; changed(); }, failed).finally(() => { known.asking = false; });
    setTimeout(changed, DAY_MS + 1_000); // reports of that day may have come meanwhile
  }
  const hours = known.sides?.[side.side];
  return hours ? { ...side, hours } : side;
}

function positions(shown, serverMs, wrong) {
  const zone = zoneOf(shown);
  const place = find("#asof");
  const parts = Array.from(shown.sides.values(), ({ side, position }) => [side, position]);
  replace(place, parts.map(([side]) => side).join(), () => [
    make("span"),
    ...parts.map(([side], index) => make("span", {}, `${view.kiosk && !index ? "" : " · "}${side} `, make("a", { "data-position": side }))),
  ]);
  const asof = () => words.say("asof", { time: words.time(serverMs, zone, { today: clock.now() }) });
  write(place.firstChild, before ? words.say("past.nothing") : asof());
  for (const [side, position] of parts) {
    const link = find(`[data-position="${side}"]`, place);
    write(link, position);
    mark(link, {
      href: address({ at: position }),
      title: words.say("position.title", { position }),
      "aria-label": `${words.say("position")} ${position}`,
    });
  }
  const plan = view.operation ? planOf(shown, view.operation) : null;
  const name = view.operation ? plan?.name || view.operation : words.say("operation.all");
  write(find("#operation"), name);
  mark(find("#operation"), { title: view.operation ? `${view.operation} ${name}` : undefined });
  if (before) write(find("#day"), "");
  else write(find("#day"), [wrong.length ? "" : period(), plan && dayOf(plan, localDay(serverMs, zone))].filter(Boolean).join(" · "));
}

function dayOf(plan, today) {
  const days = (to) => (Date.parse(to) - Date.parse(plan.starts)) / 86_400_000 + 1;
  if (today < plan.starts) return words.say("operation.ahead", { date: words.day(plan.starts) });
  if (today > plan.ends || plan.closed) return words.say("operation.over", { date: words.day(plan.ends) });
  return words.say("operation.day", { day: days(today), days: days(plan.ends) });
}

/** What the numbers are counted over. An operation without a period has its own days. */
function period() {
  const { from, to } = view;
  if (from && to) return words.days(from, to);
  if (from) return words.say("period.from", { from: words.day(from) });
  if (to) return words.say("period.to", { to: words.day(to) });
  return view.operation ? "" : words.say(view.kiosk ? "period.all.short" : "period.all");
}

function foot(shown) {
  const audits = Array.from(shown.sides.values(), ({ side, zone, audit }) => {
    if (!audit) return { text: `○ ${side} ${words.say("audit.none")}` };
    const at = words.time(Date.parse(audit.at), zone, { today: clock.now() });
    const title = words.say("audit.title", { digest: audit.digest });
    const text = `✓ ${side} ${words.say("audit.agreed")} ${audit.position}, ${at} · ${audit.digest.slice(0, 12)}`;
    return { text, title };
  });
  const spans = () => audits.map(({ text, title }) => make("span", { title }, `${text} `));
  replace(find("#audit"), JSON.stringify(audits), spans);
  const own = checked.digest === shown.digest && checked.digest;
  replace(find("#digest"), `${shown.digest}${own}`, () =>
    make(
      "details",
      {},
      make(
        "summary",
        { title: words.say("digest.title") },
        `${words.say("digest")} `,
        make("code", {}, shown.digest.slice(0, 12) || "–"),
        own ? ` ✓ ${words.say("digest.checked")}` : "",
      ),
      make("code", {}, shown.digest),
    ),
  );
}

// --- how things are ---

function tick() {
  const sides = [...room.sides.values()];
  const silentS = stream ? stream.silentMs / 1000 : 0;
  let causes = [];
  if (fault) state = "lost";
  else if (past) state = "past";
  else if (ended) state = "ended";
  else {
    const lateS = lateMs / 1000;
    // While messages come in time, the last look grows old with the clock; else that says nothing but that none come.
    const storeS = Math.max(silentS, lateS) > BEAT_S ? lookedS : Math.max(lookedS, clock.age(looked));
    ({ state, causes } = health({ silentS, lateS, lookedS: storeS, trouble, sides }));
    if (!connected && state !== "lost") state = "connecting"; // the page came with numbers; the stream has yet to speak
  }
  const away = causes.some(({ cause }) => cause === "server");
  if (state !== "lost") lostSince = null;
  else lostSince ??= away ? asOf() : Math.max(clock.now() - silentS * 1000, asOf());
  mark(document.body, { "data-state": state, "data-frozen": frozen ? "" : undefined });
  const how = `${ICONS[state]} ${words.say(`state.${state}`)}`;
  write(find("#state"), frozen ? words.say("frozen.link", { state: how }) : how); // what stands still is not live
  const known = past ? null : knownUntil({ state, causes, heardMs: clock.now() - silentS * 1000, lookedMs: asOf() });
  const ageS = away ? clock.age(looked) : silentS;
  write(find("#age"), past || state === "connecting" ? "" : words.age(ageS));
  const lag = sides.reduce((sum, side) => sum + side.lag, 0);
  const lagging = known === null ? words.say("lag", { n: words.number(lag) }) : words.say("lag.unknown");
  write(find("#lag"), past ? "" : `· ${lagging}`);
  mark(find("#lag"), {
    title:
      known === null
        ? sides.map(({ side, lag_s }) => words.say("lag.title", { side, age: words.age(lag_s) })).join("\n")
        : undefined,
  });
  for (const side of sides) heardOf(side, known);
  banners(causes);
  freezing();
  if (!frozen) figures.fade();
  title();
  speak();
}

/** How long a side has been silent; `known` is until when that can be told, null for now. */
function heardOf({ side, zone, heard, parked }, known) {
  const place = find(`#figures th[data-side="${side}"] .heard`);
  if (!place) return;
  const age = heard ? ((known ?? clock.now()) - Date.parse(heard)) / 1000 : Infinity;
  const silent = age > SILENT_S;
  const time = () => words.time(Date.parse(heard), zone, { seconds: past, today: past ? asOf() : clock.now() });
  const text = !heard
    ? `◐ ${words.say("heard.never")}`
    : past
      ? words.say("heard.at", { time: time() })
      : known !== null
        ? `${silent ? "◐ " : ""}${words.say("heard.unknown", { time: time() })}`
        : silent
          ? `◐ ${words.say("silent", { age: words.age(age) })}`
          : words.say("heard", { age: words.age(Math.max(age, 0)) });
  write(place, parked ? `${text} · △ ${words.count("parked", parked)}` : text);
  mark(place, {
    "data-silent": silent && !past ? "" : undefined,
    title: parked ? words.say("parked.title") : undefined,
  });
}

function banners(causes) {
  if (fault) return;
  const zone = zoneOf(room);
  const time = (ms) => words.time(ms, zone, { today: clock.now() });
  const shownAsOf = time(frozen?.at ?? asOf());
  const loss = find("#loss");
  // An alert: its text is written once per loss, and nobody is told of the seconds one by one.
  if (state === "lost") {
    const store = causes.some(({ cause }) => cause === "server");
    replace(loss, `lost ${lostSince} ${store}`, () =>
      make(
        "p",
        {},
        `✕ ${words.say(store ? "lost.store" : "lost.banner", { time: time(lostSince), asof: shownAsOf })} `,
        make("span", { "aria-hidden": true }),
      ),
    );
    write(find("span", loss), words.age((clock.now() - lostSince) / 1000));
  } else if (state === "ended")
    replace(loss, "ended", () =>
      make(
        "p",
        {},
        `✕ ${words.say("ended.banner", { asof: shownAsOf })} `,
        make("a", { href: location.href }, words.say("ended.login")),
      ),
    );
  else replace(loss, "", () => []);
  const said = causes.filter(({ cause }) => state !== "lost" || cause !== "server"); // the loss says that already
  const texts = said.map(({ cause, side, age, trouble }) => {
    const why = trouble ? `${troubleWords(trouble)} ` : "";
    return why + words.say(`delayed.${cause}`, { side, age: words.age(age), time: time(Date.parse(looked)) });
  });
  replace(find("#delay"), texts.join(" "), () => (texts.length ? make("p", {}, `◐ ${texts.join(" ")}`) : ""));
}

/** What stands still needs saying in large letters; a wall that nobody comes back to goes on by itself. */
function freezing() {
  const place = find("#frozen");
  mark(place, { hidden: frozen ? undefined : "" });
  if (!frozen) return;
  const frozenS = (steady.now() - frozen.since) / 1000;
  const oldS = Math.max(frozenS, (clock.now() - frozen.at) / 1000);
  if (view.kiosk && frozenS >= FREEZE_MAX_S) {
    resume();
    notice(words.say("frozen.resumed", { age: words.age(FREEZE_MAX_S) }));
    return;
  }
  write(find("strong", place), `❄ ${words.say("state.frozen")}`);
  const how = view.kiosk
    ? words.say("frozen.auto", { age: words.age(FREEZE_MAX_S - frozenS) })
    : words.say("frozen.resume");
  write(
    find("span", place),
    `${words.say("frozen.view", { time: words.time(frozen.at, zoneOf(room)), age: words.age(oldS) })} · ${how}`,
  );
}

function notice(text) {
  const place = find("#notice");
  write(place, text);
  setTimeout(() => write(place, ""), NOTICE_MS);
}

function troubleWords(code) {
  return words.has(`trouble.${code}`) ? words.say(`trouble.${code}`) : words.say("trouble.other", { code });
}

function freeze() {
  if (past) return; // which does not move
  frozen = { room: structuredClone(room), at: asOf(), since: steady.now() };
  toggled();
  if (!room.whole) digested(frozen.room);
}

/** The server names a digest every few seconds, for where it is then: that of a view frozen in between is computed. */
async function digested(still) {
  still.digest = "";
  foot(still);
  still.digest = (await digestOf(still)) ?? "";
  if (frozen?.room === still) foot(still);
}

function resume() {
  frozen = null;
  draw();
  toggled();
}

function toggled() {
  exports();
  mark(find("#freeze"), { "aria-pressed": Boolean(frozen) });
  write(find("#freeze"), words.say(frozen ? "resume" : "freeze"));
  options();
  tick();
}

function title() {
  const persons = find('#figures [data-measure="persons"] b').textContent;
  const link = `${ICONS[state]} ${words.say(`state.${state}`)}`;
  const now = frozen ? `❄ ${words.say("state.frozen")}${state === "live" ? "" : ` · ${link}`}` : link;
  const text = `${now} · ${persons} · ${find("#operation").textContent} · Fieldtally`;
  if (document.title !== text) document.title = text;
}

/** For those who hear the screen: one sentence, and only when it is another one. */
function speak() {
  const place = find("#spoken");
  if (frozen || steady.now() - spokenAt < (state === spokenState ? SPOKEN_MS : SOON_MS)) return;
  const spoken = Array.from(
    document.querySelectorAll("#figures tbody tr"),
    (row) => `${row.cells[0].textContent}: ${find("b", row).textContent}`,
  ).join("; ");
  if (place.dataset.figures === spoken + state) return;
  place.dataset.figures = spoken + state;
  write(
    place,
    words.say("status", {
      state: words.say(`state.${state}`),
      figures: spoken,
      time: words.time(asOf(), zoneOf(room), { seconds: false }),
    }),
  );
  [spokenAt, spokenState] = [steady.now(), state];
}

function failed() {
  fault = true;
  document.body.dataset.state = "lost";
  replace(find("#loss"), "failed", () =>
    make("p", {}, `✕ ${words.say("fault.banner")} `, make("a", { href: location.href }, words.say("fault.reload"))),
  );
}

// --- the address is the view ---

function readAddress() {
  const of = new URLSearchParams(location.search);
  const [operation, side, from, to] = ["operation", "side", "from", "to"].map((name) => of.get(name) ?? "");
  return { operation, side, from, to, kiosk: of.get("kiosk") === "1" };
}

/** The address of this view with some of it changed; an empty value leaves a thing out. */
function address(changes, base = location.pathname) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes))
    if (value) query.set(name, value);
    else query.delete(name);
  return query.size ? `${base}?${query}` : base;
}

/** Fill in what may be chosen, and what links lead to from this view; a field in which somebody is, only if `all`. */
function options(all = false) {
  const form = find("#filters");
  const codes = [...room.sides.values()].flatMap(({ operations }) => operations.map(({ operation }) => operation));
  const label = (name, value) =>
    name === "operation" ? [...new Set([value, planOf(room, value)?.name])].filter(Boolean).join(" · ") : value;
  for (const [name, values] of [
    ["operation", [...new Set(codes)].sort()],
    ["side", [...room.sides.keys()]],
  ]) {
    const select = form.elements[name];
    for (const value of values) {
      const option = [...select.options].find((one) => one.value === value) ?? make("option", { value });
      write(option, label(name, value));
      if (!option.parentElement) select.add(option);
    }
    const unseen = [...select.options].slice(1).filter(({ value }) => name === "side" && !values.includes(value));
    for (const option of unseen) option.remove();
    if (all || select !== document.activeElement) select.value = view[name];
  }
  for (const name of ["from", "to"])
    if (all || form.elements[name] !== document.activeElement)
      form.elements[name].value = isDay(view[name]) ? view[name] : "";
  for (const link of document.querySelectorAll("a[data-set]")) {
    const [name, value] = link.dataset.set.split("=");
    mark(link, { href: address({ [name]: value }) });
  }
  exports();
}

/** What is taken along from a view that does not move is what it shows, however long after. */
function exports() {
  const still = past ? room : frozen?.room;
  const at = still && Array.from(still.sides.values(), ({ side, position }) => `${side}:${position}`).join();
  for (const link of document.querySelectorAll("a[data-export]")) {
    const download = link.dataset.export.endsWith(".json") ? "1" : "";
    mark(link, { href: address({ download, ...(still && { at }) }, link.dataset.export) });
  }
}

function listen() {
  const form = find("#filters");
  const go = (event) => {
    if (form.elements.at.value !== (new URLSearchParams(location.search).get("at") ?? "")) return; // another page
    event.preventDefault();
    const entries = ["operation", "side", "from", "to"].map((name) => [name, form.elements[name].value]);
    history.pushState(null, "", address(Object.fromEntries(entries)));
    moved();
  };
  form.addEventListener("submit", go);
  form.addEventListener("change", (event) => {
    // A date that is typed is another one with each digit of its year: those on the way are no filters.
    if (event.target.name !== "at" && form.checkValidity()) go(event);
  });
  addEventListener("popstate", () => moved(true));
  // Also when a warning needs room. Not at once: an observer that changes what it observes is an error of the page.
  if (view.kiosk) new ResizeObserver(() => requestAnimationFrame(draw)).observe(find("#panels"));
  find("#freeze").hidden = past;
  find("#freeze").addEventListener("click", () => (frozen ? resume() : freeze()));
  find("#resume").addEventListener("click", () => {
    resume();
    find("#freeze").focus();
  });
  find("#print").addEventListener("click", () => print());
  leaving(find('[action="/logout"]'));
  addEventListener("beforeprint", () => (find("#digest details").open = true)); // paper carries the whole digest
  addEventListener("keydown", (event) => {
    if (find("#reasons").open || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const busy = event.target.closest?.("input, select, textarea, button, a, summary");
    if (event.key === " " && !busy) {
      event.preventDefault();
      if (frozen) resume();
      else freeze();
    } else if (event.key === "Escape" && frozen) resume();
    else if (event.key === "Escape" && view.kiosk) find("#leave").click();
  });
  if (!view.kiosk) return;
  let still;
  addEventListener("pointermove", () => {
    document.body.dataset.moved = "";
    clearTimeout(still);
    still = setTimeout(() => delete document.body.dataset.moved, MOVED_MS);
  });
}

/** Who logs out leaves nothing open: the other tabs of this browser go to the log-in page, their streams with them. */
function leaving(form) {
  const tabs = new BroadcastChannel("fieldtally");
  tabs.addEventListener("message", () => location.reload());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await fetch(form.action, { method: "POST", redirect: "manual" }).catch(() => null);
    if (!answer) return form.submit(); // the browser says what is wrong
    tabs.postMessage("out"); // not before: a tab that comes too early would still be let in
    location.assign("/");
  });
}

/** The address is another one; `elsewhere` says that not the form has made it so. */
function moved(elsewhere = false) {
  view = readAddress();
  options(elsewhere);
  draw();
  tick();
}

// --- small things ---

function zoneOf(shown) {
  return (shown.sides.get(view.side) ?? [...shown.sides.values()][0])?.zone ?? "UTC";
}

async function fetchWords(from) {
  for (;;) {
    const answer = await fetch(from).catch(() => null);
    if (answer?.ok) return answer.json();
    await new Promise((resolve) => setTimeout(resolve, 2_000));
  }
}
