// The hours of a side as bars: the same scale for all sides, hours that are not known hatched, a table beside it.

import { fill, make, replace } from "./dom.js";

const [WIDTH, HEIGHT, FOOT, HEAD] = [480, 170, 36, 36];

/** Draw the charts of `sides`: each `{side, name, zone, hours}` with the hours of `hourly`. */
export function drawHours(place, sides, words) {
  const most = Math.max(1, ...sides.flatMap(({ hours }) => hours.map(({ count }) => count ?? 0)));
  replace(place, sides.map(({ side }) => side).join(), () => sides.map(({ side }) => frame(side, words)));
  sides.forEach((one, index) => {
    const figure = place.children[index];
    replace(figure.firstChild, JSON.stringify([one.hours, most]), () => [heading(one, words), chart(one, most, words)]);
    const rows = one.hours.map(({ start, count }) => ({
      key: String(start),
      cells: [hour(start, one.zone, words, true), shown(count, words)],
    }));
    fill(
      figure.querySelector("table"),
      [words.say("hour"), { text: words.say("measure.persons"), number: true }],
      rows.reverse(),
      "",
    );
  });
}

const shown = (count, words) => ({ text: count === null ? words.say("hours.gap") : words.number(count), number: true });

const hour = (start, zone, words, day) =>
  words.time(start * 1000, zone, { seconds: false, today: day ? 0 : undefined });

function frame(side, words) {
  const table = make("table", {}, make("thead"), make("tbody"));
  const summary = make("summary", {}, words.say("hours.table", { side }));
  return make("figure", { "data-side": side }, make("div"), make("details", {}, summary, table));
}

function heading({ side, hours }, words) {
  const known = hours.filter(({ count }) => count !== null);
  const sum = known.reduce((total, { count }) => total + count, 0);
  const gap = known.length < hours.length ? ` · ${words.say("hours.legend")}` : "";
  return make(
    "figcaption",
    {},
    make("b", {}, side),
    ` ${known.length ? `${words.number(sum)} ${words.count("unit.persons", sum)}` : "–"}${gap}`,
  );
}

function chart({ side, zone, hours }, most, words) {
  const label = words.say("hours.chart", {
    side,
    most: words.number(Math.max(0, ...hours.map(({ count }) => count ?? 0))),
    from: hour(hours[0].start, zone, words, true),
    to: hour(hours.at(-1).start + 3600, zone, words, true),
    gaps: hours.filter(({ count }) => count === null).length,
  });
  const svg = make("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "xMinYMin",
    role: "img",
    "aria-label": label,
    class: "chart",
  });
  const [base, step] = [HEIGHT - FOOT, WIDTH / hours.length];
  const hatch = make(
    "pattern",
    { id: `hatch-${side}`, width: 8, height: 8, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    make("line", { x1: 0, y1: 0, x2: 0, y2: 8, class: "hatch" }),
  );
  svg.append(make("defs", {}, hatch), make("line", { x1: 0, y1: HEAD, x2: WIDTH, y2: HEAD, class: "grid" }));
  hours.forEach(({ start, count }, index) => {
    const [x, height] = [index * step, ((base - HEAD) * Math.max(0, count ?? most)) / most];
    if (count === null)
      svg.append(make("rect", { x, y: HEAD, width: step, height: base - HEAD, fill: `url(#hatch-${side})` }));
    else if (count) svg.append(make("rect", { x: x + 2, y: base - height, width: step - 4, height, class: "bar" }));
    if (index % 6 === 0) {
      svg.append(make("line", { x1: x, y1: base, x2: x, y2: base + 5, class: "axis" }));
      svg.append(
        make("text", { x: x + 4, y: HEIGHT - 8 }, words.time(start * 1000, zone, { seconds: false }).slice(0, 5)),
      );
    }
  });
  svg.append(make("line", { x1: 0, y1: base, x2: WIDTH, y2: base, class: "axis" }));
  if (hours.some(({ count }) => count !== null)) svg.append(make("text", { x: 2, y: HEAD - 8 }, words.number(most)));
  return svg;
}
