// The screen's language: texts with their plural forms, numbers, times that always name their zone.

const DATES = { en: "en-GB" }; // days before months, and 24 hours
const formats = new Map();

function format(locale, options) {
  const key = locale + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(locale, options));
  return formats.get(key);
}

export class Words {
  #texts;
  #names;
  #plurals;
  #numbers;
  #signed;
  #dates;

  constructor({ language, texts, citizenships }) {
    [this.language, this.#texts, this.#names] = [language, texts, citizenships];
    this.#plurals = new Intl.PluralRules(language);
    this.#numbers = new Intl.NumberFormat(language, { useGrouping: "always" }); // else Slovenian has 1234 but 12.345
    this.#signed = new Intl.NumberFormat(language, { useGrouping: "always", signDisplay: "exceptZero" });
    this.#dates = DATES[language] ?? language;
    this.collator = new Intl.Collator(language);
  }

  say(key, values = {}) {
    const text = this.#texts[key];
    if (typeof text !== "string") throw new Error(`No text ${key}`);
    return text.replace(/\{(\w+)\}/g, (_, name) => values[name]).replace(/\.\.$/, "."); // some dates end in one, too
  }

  /** Whether there is a text of this name: codes may come from a newer server. */
  has(key) {
    return key in this.#texts;
  }

  /** A text in the plural form for `n`. */
  count(key, n) {
    return this.#texts[key][this.#plurals.select(n)].replace("{n}", this.number(n));
  }

  number(n) {
    return this.#numbers.format(n);
  }

  /** With its sign; a minus that is as wide as the plus. */
  signed(n) {
    return n ? this.#signed.format(n).replace("-", "−") : "±0";
  }

  citizenship(code) {
    return code ? (this.#names[code] ?? code) : this.say("citizenship.none");
  }

  /** `14:05:09 CET`, with the day before it if that is another one than today's. */
  time(ms, zone, { today, seconds = true, year = true } = {}) {
    const clock = {
      hour: "2-digit",
      minute: "2-digit",
      hourCycle: "h23",
      timeZone: zone,
      ...(seconds && { second: "2-digit" }),
    };
    const text = `${format(this.#dates, clock).format(ms)} ${zoneLabel(ms, zone)}`;
    const day = (at) => format("en-CA", { dateStyle: "short", timeZone: zone }).format(at);
    if (today === undefined || day(today) === day(ms)) return text;
    const date = { day: "numeric", month: "short", year: year ? "numeric" : undefined, timeZone: zone };
    return `${format(this.#dates, date).format(ms)} ${text}`;
  }

  /** A calendar day, ISO 8601. */
  day(iso) {
    return format(this.#dates, { dateStyle: "medium", timeZone: "UTC" }).format(Date.parse(iso));
  }

  /** A period, both days included. */
  days(from, to) {
    return format(this.#dates, { dateStyle: "medium", timeZone: "UTC" }).formatRange(Date.parse(from), Date.parse(to));
  }

  /** A length of time in its two largest units. The symbols are the same in all languages. */
  age(seconds) {
    const s = Math.max(0, Math.floor(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3_600) return `${Math.floor(s / 60)} min`;
    if (s < 86_400) return `${Math.floor(s / 3_600)} h ${Math.floor((s % 3_600) / 60)} min`;
    return `${this.number(Math.floor(s / 86_400))} d`;
  }
}

// The label in English in all languages (CET, CEST): some have only an offset. 02:30 occurs twice on a day in October.
function zoneLabel(ms, zone) {
  const parts = format("en-GB", { hour: "2-digit", timeZone: zone, timeZoneName: "short" }).formatToParts(ms);
  return parts.find(({ type }) => type === "timeZoneName").value;
}
