// The form on top of the outbox: it only shows what the outbox holds, so a reload or another tab shows the same.

import { Outbox } from "./fieldtally-outbox.js";

const SENT_SHOWN = 10;

const $ = (id) => document.getElementById(id);
const copy = (template) => $(template).content.firstElementChild.cloneNode(true);
const [join, form] = [$("join"), $("report")];
let correcting; // the report whose place the form's content takes

navigator.serviceWorker?.register("service-worker.js"); // the page itself has to open without coverage too
const outbox = await Outbox.open();
outbox.addEventListener("change", show);
addEventListener("offline", show);
clear();
show();

join.addEventListener("submit", (event) => attempt(event, async () => {
  await outbox.join(join.elements.link.value);
  join.reset();
  if (!form.contains(document.activeElement)) form.elements.section.focus(); // somebody may be writing there already
}));

form.addEventListener("submit", (event) => attempt(event, async () => {
  const persons = [...$("persons").children].map((row) => {
    const [citizenship, count] = row.querySelectorAll("input");
    return { citizenship: citizenship.value.toUpperCase(), count: count.valueAsNumber };
  });
  const { section, subject, time } = form.elements;
  const data = { section: section.value, persons };
  const about = { subject: subject.value, ...(time.value && { time: new Date(time.value) }) };
  await (correcting ? outbox.amend(correcting.id, data, about) : outbox.report("apprehension", data, about));
  clear();
  section.focus();
}));

$("more").addEventListener("click", () => addPerson().querySelector("input").focus());
$("cancel").addEventListener("click", clear);
$("flush").addEventListener("click", () => outbox.flush());
$("dismiss").addEventListener("click", () => outbox.dismiss());

async function attempt(event, action) {
  event.preventDefault();
  const form = event.currentTarget;
  if (form.dataset.busy) return; // a second tap is not a second report
  form.dataset.busy = "yes";
  $("error").textContent = "";
  try {
    await action();
  } catch (error) {
    $("error").textContent = error.message;
  } finally {
    delete form.dataset.busy;
  }
}

function addPerson({ citizenship = "", count = 1 } = {}) {
  const row = copy("person");
  const inputs = row.querySelectorAll("input");
  [inputs[0].value, inputs[1].value] = [citizenship, count];
  row.querySelector(".remove").addEventListener("click", () => {
    if ($("persons").children.length > 1) row.remove();
    $("more").focus();
  });
  $("persons").append(row);
  return row;
}

function fill({ section, subject, time, persons }) {
  const shown = time ? new Date(time - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 19) : "";
  [form.elements.section.value, form.elements.subject.value, form.elements.time.value] = [section, subject, shown];
  $("persons").replaceChildren();
  persons.forEach(addPerson);
  $("what").textContent = correcting ? `Correct No. ${correcting.event.reportno}` : "Apprehension";
  $("send").textContent = correcting ? "Report the correction" : "Report";
  $("cancel").hidden = !correcting;
}

// Section and operation stay: the next report is most likely from the same place.
function clear() {
  correcting = undefined;
  const { section, subject } = form.elements;
  fill({ section: section.value, subject: subject.value, persons: [{}] });
}

function correct(report) {
  const { event } = (correcting = report);
  fill({ subject: event.subject ?? "", time: new Date(event.time), ...event.data });
  form.elements.section.focus();
  form.scrollIntoView({ behavior: "smooth" });
}

async function show() {
  const [status, waiting, rejected, sent] = await Promise.all([
    outbox.status(), outbox.pending(), outbox.rejected(), outbox.sent(),
  ]);
  // Without a good token nothing goes out: then a new link is what is needed, and what waits stays.
  join.hidden = Boolean(status.source) && !/token|nothing at this address/i.test(status.pause?.why ?? "");
  form.hidden = !status.source;
  $("who").textContent = status.source ? status.source.slice(1).replaceAll("/", " · ") : "Not joined yet";
  $("flush").hidden = !status.pause;
  $("notice").hidden = !status.used;
  $("used").textContent = status.used ? restored(status.used) : "";
  $("strange").hidden = !status.strange;
  $("standing").dataset.state = waiting.length + rejected.length ? "waiting" : status.known ? "done" : "idle";
  const text = sentence(status, waiting.length, rejected.length);
  if ($("standing").textContent !== text) $("standing").textContent = text; // else it would be read out again
  list("waiting", waiting, waiting.length);
  list("rejected", rejected, rejected.length);
  list("sent", sent.reverse().slice(0, SENT_SHOWN), sent.length);
}

function sentence({ source, pause, known }, waiting, rejected) {
  if (!source) return "Reports can be made once this device has joined";
  const later = pause ? `: ${pause.why}, next attempt at ${new Date(pause.until).toLocaleTimeString()}` : "";
  const next = navigator.onLine ? later : ": no connection";
  const settled = known ? "Everything is sent" : "Nothing is waiting; the gateway has not answered yet";
  const refused = rejected ? `${rejected} rejected and not counted: correct or discard below` : "";
  const sending = waiting ? `${waiting} waiting on this device${next}` : "";
  return [sending, refused].filter(Boolean).join(". ") || settled;
}

function restored({ from, to }) {
  return "This app was restored from an old copy, or installed again: the gateway has reports of this device with " +
    `the numbers ${from} to ${to}, which are not listed here. They count. Enter nothing again, unless you know of a ` +
    "report that had not been sent before.";
}

function list(name, reports, count) {
  $(`${name}-count`).textContent = count;
  const shown = reports.map(({ id, mayBeLogged }) => [id, mayBeLogged]).join();
  if ($(name).dataset.shown === shown) return; // so that a button in it keeps the focus
  $(name).dataset.shown = shown;
  $(name).replaceChildren(...reports.map(item));
}

function item(report) {
  const { id, event, problem, revision, mayBeLogged } = report;
  const row = copy("item");
  const withdrawn = event.type.includes("withdrawal");
  const persons = event.data.persons?.map(({ citizenship, count }) => `${count} ${citizenship}`).join(", ");
  const number = `No. ${event.reportno}${revision && !withdrawn ? ", corrected" : ""}`;
  const when = new Date(event.time).toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
  row.querySelector(".content").textContent = withdrawn ? "Taken back" : (persons ?? event.type);
  row.querySelector(".about").textContent =
    [number, event.data.section, event.subject, when].filter(Boolean).join(" · ");
  row.querySelector(".problem").textContent = problem ? `${problem.title}: ${problem.detail}` : "";
  row.querySelector(".problem").hidden = !problem;
  row.querySelector(".correct").hidden = !persons;
  row.querySelector(".correct").addEventListener("click", () => correct(report));
  row.querySelector(".withdraw").hidden = withdrawn && !problem;
  row.querySelector(".withdraw").textContent = mayBeLogged ? "Take back" : "Discard";
  row.querySelector(".withdraw").addEventListener("click", (click) => attempt(click, async () => {
    const asked = mayBeLogged ? `Take No. ${event.reportno} back, as an error on entry?`
      : `Discard No. ${event.reportno}? It is not corrected then, and does not count.`;
    if (!confirm(asked)) return;
    await outbox.withdraw(id, "data-entry-error");
  }));
  return row;
}
