// The little that the page needs to say about elements. It touches only what has changed: no flash, no lost focus.

/** Make an element; attributes that are functions listen, those that are false or undefined are left out. */
export function make(tag, attributes = {}, ...children) {
  const svg = /^(svg|g|rect|line|text|path|defs|pattern|title)$/.test(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const find = (selector, within = document) => within.querySelector(selector);

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set attributes; undefined removes one. */
export function mark(element, attributes) {
  for (const [name, value] of Object.entries(attributes))
    if (value === undefined) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Put something else in an element only if `key` says that it is something else. */
export function replace(element, key, content) {
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...[content()].flat().filter((node) => node !== ""));
}

/**
 * Write a table: `heads` and the cells of `rows` are texts, or `{text, …}` with number, href, title, mark; `clip` for
 * what gives way to the columns beside it, `more` for what is folded away under the text. A row keeps its element as
 * long as its `key` is among the rows, and what somebody unfolded in it stays so.
 */
export function fill(table, heads, rows, empty) {
  replace(table.tHead, JSON.stringify(heads), () =>
    make("tr", {}, ...heads.map((head) => cell("th", head, { scope: "col" }))),
  );
  const [body] = table.tBodies;
  const had = new Map(Array.from(body.rows, (row) => [row.dataset.row, row]));
  if (!rows.length) rows = [{ key: "empty", cells: [{ text: empty, span: heads.length }] }];
  rows.forEach(({ key, cells }, index) => {
    const row = had.get(key) ?? make("tr", { "data-row": key });
    had.delete(key);
    const text = JSON.stringify(cells);
    const unfolded = Boolean(find("details[open]", row));
    replace(row, text, () => cells.map((one, at) => cell(at ? "td" : "th", one, at ? {} : { scope: "row" })));
    if (unfolded) mark(find("details", row) ?? row, { open: "" });
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  for (const row of had.values()) row.remove();
}

function cell(tag, given, more) {
  const told = typeof given === "object" ? given : { text: given };
  const { text, number, href, title, mark: mood, span, clip, more: folded } = told;
  const inner = href
    ? make("a", { href, title }, text)
    : clip
      ? make("span", { class: "clip", title: title ?? text }, text)
      : folded
        ? make("details", {}, make("summary", {}, text), folded)
        : text;
  const classes = [number && "number", text === "0" && "quiet", mood].filter(Boolean).join(" ") || undefined;
  return make(
    tag === "th" && span ? "td" : tag,
    { ...(!span && more), class: classes, title: href || clip ? undefined : title, colspan: span },
    inner,
  );
}
