// The big numbers: each with its unit in words, what changed in the last minute, and whether it has been amended.

import { find, make, mark, replace, write } from "./dom.js";
import { amended } from "./tallies.js";

const LONG = 6; // digits that leave no room beside them for their change, if they are the largest
const CHIP_MS = 60_000; // how long a change is shown

export class Figures {
  #words;
  #steady;
  #reasons;
  #table = find("#figures");
  #counts = new Map(); // by measure and side, as they stand on the screen
  #changes = new Map(); // the same, [{at, change}] of the last minute
  #view = "";

  /** `reasons` is called with measure, side and amendments when somebody asks why a figure was amended. */
  constructor(words, steady, reasons) {
    [this.#words, this.#steady, this.#reasons] = [words, steady, reasons];
  }

  /**
   * Write all numbers; `found` has them by measure and side, or is null where the view is of nothing that there is:
   * then they are dashes, not zeros. Another view is no change of a number.
   */
  draw(room, view, found) {
    const [revised, key] = [found ? amended(room, view) : {}, JSON.stringify([view, !found])];
    if (key !== this.#view) for (const kept of [this.#counts, this.#changes]) kept.clear();
    this.#view = key;
    this.#heads([...room.sides.values()].filter(({ side }) => !view.side || side === view.side));
    for (const { cell, measure, side } of this.#cells()) {
      const count = found && (found[measure]?.[side] ?? 0);
      this.#write(cell, measure, count, revised[measure]?.[side]);
      this.#note(cell, `${measure} ${side}`, count);
    }
  }

  /** Write the changes, and take away those that are older than a minute. */
  fade() {
    for (const { cell, measure, side } of this.#cells()) {
      const key = `${measure} ${side}`;
      const recent = (this.#changes.get(key) ?? []).filter(({ at }) => this.#steady.now() - at < CHIP_MS);
      this.#changes.set(key, recent);
      const sum = recent.reduce((total, { change }) => total + change, 0);
      write(find(".chip", cell), sum ? `${sum > 0 ? "▲" : "▼"}${this.#words.signed(sum)}` : "");
    }
  }

  *#cells() {
    for (const cell of this.#table.querySelectorAll("td[data-side]"))
      yield { cell, measure: cell.parentElement.dataset.measure, side: cell.dataset.side };
  }

  #heads(sides) {
    const key = sides.map(({ side }) => side).join();
    if (this.#table.dataset.sides === key) return;
    this.#table.dataset.sides = key;
    for (const old of this.#table.querySelectorAll("[data-side]:not([data-side=''])")) old.remove();
    for (const { side, citizenship } of sides) {
      const country = make("small", {}, this.#words.citizenship(citizenship));
      const name = make("span", { class: "name" }, `${side} `, country);
      const heard = make("span", { class: "heard" });
      this.#table.tHead.rows[0].append(make("th", { scope: "col", "data-side": side }, name, " ", heard));
      for (const row of this.#table.tBodies[0].rows) row.append(make("td", { "data-side": side }));
    }
  }

  #write(cell, measure, count, revised) {
    const words = this.#words;
    replace(cell, "made", () => {
      const chip = make("span", { class: "chip", title: words.say("change.title") });
      const marks = make("span", {}, chip, " ", make("button", { class: "amended", type: "button" }));
      const beside = make("span", { class: "beside" }, marks, make("span", { class: "unit" }));
      return make("span", { class: "figure" }, make("b"), " ", beside);
    });
    const digits = find("b", cell);
    write(digits, count === null ? "–" : words.number(count));
    mark(digits, { "data-long": digits.textContent.length > LONG ? "" : undefined });
    write(find(".unit", cell), count === null ? "" : words.count(`unit.${measure}`, count));
    const button = find(".amended", cell);
    const change = revised && words.signed(revised.change);
    const label = revised && words.say("amended.open", { change });
    mark(button, { hidden: revised ? undefined : "", "aria-label": label, title: label });
    write(button, revised ? `${words.say("amended.mark")} ${change}` : "");
    button.onclick = () => this.#reasons(measure, cell.dataset.side, revised);
  }

  /** Keep by how much a number changed; the newest change begins the fading anew. */
  #note(cell, key, count) {
    if (count === null) return;
    const change = count - (this.#counts.get(key) ?? count);
    this.#counts.set(key, count);
    if (!change) return;
    if (!this.#changes.has(key)) this.#changes.set(key, []);
    this.#changes.get(key).push({ at: this.#steady.now(), change });
    for (const animation of find(".chip", cell).getAnimations()) animation.currentTime = 0;
  }
}
