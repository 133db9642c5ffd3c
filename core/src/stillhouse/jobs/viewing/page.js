"use strict";
// Whatever a run holds is shown as text: nothing here makes elements or addresses of it, but by `encodeURIComponent`.

const POLL_MS = 1000, AGAIN_MS = 400, BETWEEN_MS = 100, PAGE_ROWS = 50, MAX_NAMES = 400, MAX_SHOWN = 1000000;
const byId = (id) => document.getElementById(id);
const FIELDS = ["text", "scope", "outcome", "finish", "column", "value"];
const run = { columns: [], kinds: [], finish: [], hasInput: false, facts: null };
const view = { filter: {}, after: null, starts: [], rows: [], next: null, searched: 0, ticket: 0, complete: false };
let picked = null, polling = null;

// Control characters are shown as signs, and so is what would turn the order of a line around.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]/g;
function visible(text) {
  return text.replace(CONTROLS, (sign, at) => {
    const code = sign.charCodeAt(0);
    if (code === 13 && text.charCodeAt(at + 1) === 10) return "";
    return `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function count(number) { return number.toLocaleString("en-US"); }
function rows(number) { return `${count(number)} ${number === 1 ? "row" : "rows"}`; }

async function ask(question, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters || {})) if (value !== "" && value != null) query.set(name, value);
  let answer;
  try {
    answer = await fetch(`${question}?${query}`, { cache: "no-store" });
  } catch {
    throw new Error("stillhouse view does not answer; it may have been stopped.");
  }
  const facts = await answer.json();
  if (!answer.ok) throw new Error(facts.error || `The answer has the status ${answer.status}.`);
  return facts;
}

function showError(error) {
  byId("error").hidden = !error;
  byId("error").textContent = error ? visible(error.message) : "";
}

function showNotice(text) {
  byId("notice").hidden = !text;
  byId("notice").textContent = visible(text || "");
}

// Progress

function showProgress(facts) {
  run.facts = facts;
  const line = byId("progress");
  line.replaceChildren(make("b", facts.state.split(" ")[0], facts.state));
  const parts = [];
  const about = facts.counted ? "" : "at least ";
  parts.push(facts.total === null ? `${about}${rows(facts.rows)} finished` : `${about}${count(facts.rows)} of ${rows(facts.total)} finished`);
  parts.push(`${count(facts.failed)} failed`);
  if (facts.rate) parts.push(facts.rate);
  if (facts.left) parts.push(`${facts.left} left`);
  if (facts.started) parts.push(`started ${facts.started}`);
  line.append(document.createTextNode(`: ${parts.join(", ")}`));
  const bar = byId("bar");
  bar.hidden = !facts.working || facts.total === null;
  if (!bar.hidden) bar.value = facts.total ? facts.rows / facts.total : 1;
}

async function poll() {
  clearTimeout(polling);
  polling = null;
  try {
    const before = run.facts;
    const facts = await ask("api/progress");
    showError(null);
    showProgress(facts);
    if (before && before.version !== facts.version) await follow();
    if (before && before.working && !facts.working) await describe();
    // The end of the run ends the polling, once its rows are counted.
    if (facts.working || !facts.counted || (facts.total === null && run.hasInput && polls++ < 20)) polling = setTimeout(poll, POLL_MS);
  } catch (error) {
    showError(error);
    polling = setTimeout(poll, 5 * POLL_MS);
  }
}
let polls = 0;

async function describe() {
  const facts = await ask("api/run");
  Object.assign(run, { columns: facts.columns, kinds: facts.kinds, finish: facts.finish, hasInput: facts.has_input });
  byId("name").textContent = visible(facts.name);
  document.title = `${visible(facts.name)}: stillhouse view`;
  const about = [];
  if (facts.model) about.push(`model ${facts.model}`);
  if (facts.source) about.push(`input ${facts.source}`);
  byId("about").textContent = visible(about.join(", "));
  showNotice(facts.notice);
  showProgress(facts);
  showChoices();
}

function setOptions(select, options) {
  const value = select.value;
  select.replaceChildren(...options.map(([name, text]) => {
    const option = make("option", "", visible(text));
    option.value = name;
    return option;
  }));
  if (options.some(([name]) => name === value)) select.value = value;
}

function withValue(options, value, text) {
  return value && !options.some(([name]) => name === value) ? [...options, [value, text]] : options;
}

function showChoices() {
  const filter = view.filter;
  const outcome = filter.outcome || "";
  setOptions(byId("outcome"), withValue([
    ["", "any"], ["state:done", "done"], ["state:failed", "failed"], ["state:queued", "queued for a retry"],
    ...run.kinds.map((kind) => [`kind:${kind}`, `error ${kind}`]),
  ], outcome, outcome.replace(/^kind:/, "error ")));
  setOptions(byId("finish"), withValue([
    ["", "any"], ...[...new Set([...run.finish, "stop", "length", "tool_calls", "content_filter"])].map((reason) => [reason, reason]),
  ], filter.finish, filter.finish));
  setOptions(byId("column"), withValue([["", "none"], ...run.columns.map((name) => [name, name])], filter.column, filter.column));
  byId("column").disabled = byId("value").disabled = !run.hasInput;
  for (const field of FIELDS) byId(field).value = filter[field] || (field === "scope" ? "both" : "");
  showPicker();
}

// Columns

function chosen() {
  if (picked === null) picked = new Set();
  return picked;
}

function showPicker() {
  const wanted = byId("named").value.toLowerCase();
  const names = run.columns.filter((name) => name.toLowerCase().includes(wanted));
  byId("picked").textContent = `Columns (${chosen().size} of ${count(run.columns.length)})`;
  byId("names").replaceChildren(...names.slice(0, MAX_NAMES).map((name) => {
    const item = make("li"), label = make("label"), box = make("input");
    box.type = "checkbox";
    box.checked = chosen().has(name);
    box.addEventListener("change", () => {
      if (box.checked) chosen().add(name); else chosen().delete(name);
      byId("picked").textContent = `Columns (${chosen().size} of ${count(run.columns.length)})`;
      showRows();
    });
    label.append(box, document.createTextNode(visible(name)));
    item.append(label);
    return item;
  }));
  if (names.length > MAX_NAMES) byId("names").append(make("li", "", `and ${count(names.length - MAX_NAMES)} others`));
}

// Rows

function wholeAddress(row, part, name) {
  return `text?row=${row}&part=${part}&name=${encodeURIComponent(name)}`;
}

function textBlock(title, item, address, isOpen) {
  const block = make("div", "block");
  if (title) block.append(make("h3", "", visible(title)));
  const text = make("div", isOpen ? "text" : "text closed", visible(item.text));
  text.dir = "auto";
  block.append(text);
  const more = make("div", "more");
  if (!isOpen && (item.text.length > 300 || item.text.split("\n").length > 6)) {
    const button = make("button", "", "Show more");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.addEventListener("click", () => {
      const isClosed = text.classList.toggle("closed");
      button.textContent = isClosed ? "Show more" : "Show less";
      button.setAttribute("aria-expanded", String(!isClosed));
    });
    more.append(button);
  }
  // The length is counted in characters, of which JavaScript has two for some.
  if (item.length > [...item.text].length) {
    more.append(make("span", "", `Shortened: ${count([...item.text].length)} of ${count(item.length)} characters.`));
    const link = make("a", "", item.length > MAX_SHOWN ? "Save the whole text" : "Open the whole text");
    link.href = address;
    if (item.length <= MAX_SHOWN) link.target = "_blank";
    link.rel = "noopener noreferrer";
    more.append(link);
  }
  if (more.childElementCount) block.append(more);
  return block;
}

function promptBlocks(row, isOpen) {
  const input = row.input;
  if (!input) return [];
  const blocks = input.prompt.map((message, number) => textBlock(message.role, message, wholeAddress(row.row, "prompt", number), isOpen));
  if (input.problem) blocks.push(textBlock("no prompt", { text: input.problem, length: 0 }, "", isOpen));
  return blocks;
}

function answerBlocks(row, isOpen) {
  const blocks = row.answers.map((answer, number) => {
    const title = [row.count > 1 ? `answer ${number + 1}` : "answer", answer.reason && answer.reason !== "stop" ? answer.reason : ""];
    if (!answer.none) return textBlock(title.filter(Boolean).join(", "), answer, wholeAddress(row.row, "answer", number), isOpen);
    const block = make("div", "block");
    block.append(make("h3", "", visible(title.filter(Boolean).join(", "))), make("div", "null", "no text"));
    return block;
  });
  if (row.count > row.answers.length) blocks.push(make("p", "null", `and ${count(row.count - row.answers.length)} other answers`));
  return blocks;
}

function errorBlock(row, isOpen) {
  if (!row.message) return [];
  const block = textBlock(`error ${row.kind || ""}`, row.message, wholeAddress(row.row, "error", ""), isOpen);
  block.querySelector(".text").classList.add("message");
  return [block];
}

function head(row, isOpen) {
  const line = make("div", "head"), link = make("a", "", `Row ${count(row.row)}`);
  link.href = `#row=${row.row}`;
  if (!isOpen) line.append(link);
  line.append(make("span", `mark ${row.state}`, visible(row.kind && row.state !== "queued" ? `${row.state}: ${row.kind}` : row.state === "queued" ? `queued for a retry: ${row.kind}` : row.state)));
  if (row.tokens && (row.tokens[0] || row.tokens[1])) line.append(make("span", "", `${row.tokens[0] || "?"} tokens in, ${row.tokens[1] || "?"} out`));
  if (row.seconds && row.seconds !== "0.0 s") line.append(make("span", "", row.seconds));
  if (isOpen && row.finished) line.append(make("span", "", `finished ${row.finished}`));
  if (row.input && row.input.changed) line.append(make("span", "mark queued", "the input has changed since this row was sent"));
  return line;
}

function columnList(row, columns, isOpen) {
  const list = make("dl", "columns");
  for (const column of columns) {
    list.append(make("dt", "", visible(column.name)));
    const cell = make("dd");
    if (column.kind === "null") cell.append(make("span", "null", "null"));
    else cell.append(textBlock("", column, wholeAddress(row.row, "column", column.name), isOpen));
    if (isOpen && [...column.text].length === column.length && column.length <= 500) {
      const link = make("a", "", "rows with this value");
      link.href = `#${new URLSearchParams({ column: column.name, value: column.text })}`;
      const more = make("div", "more");
      more.append(link);
      cell.append(more);
    }
    list.append(cell);
  }
  return list;
}

function rowItem(row) {
  const item = make("li");
  item.tabIndex = -1;
  item.dataset.row = row.row;
  item.append(head(row));
  if (row.state === "damaged") item.append(make("p", "message", "The state of this row is damaged."));
  const body = make("div", row.answers.length > 2 ? "body many" : "body"), prompt = make("div", "prompts"), answers = make("div", "answers");
  prompt.append(...promptBlocks(row, false));
  if (!row.input && view.reading) prompt.append(make("p", "null", "Reading the input"));
  answers.append(...errorBlock(row, false), ...answerBlocks(row, false));
  body.append(prompt, answers);
  item.append(body);
  const columns = row.input ? row.input.columns.filter((column) => chosen().has(column.name)) : [];
  if (columns.length) item.append(columnList(row, columns, false));
  return item;
}

function showRows() {
  const list = byId("rows"), focused = document.activeElement && document.activeElement.closest("#rows > li");
  const kept = new Map([...list.children].map((item) => [item.dataset.row, item]));
  const open = new Set([...kept].filter(([, item]) => item.querySelector("[aria-expanded=true]")).map(([row]) => row));
  list.replaceChildren(...view.rows.map((row) => {
    const old = kept.get(String(row.row));
    // A row that is looked at, and has not changed, stays as it is.
    if (old && open.has(String(row.row)) && old.shown === JSON.stringify(row)) return old;
    const item = rowItem(row);
    item.shown = JSON.stringify(row);
    return item;
  }));
  if (focused) { const again = list.querySelector(`[data-row="${Number(focused.dataset.row)}"]`); if (again) again.focus({ preventScroll: true }); }
  const isFiltered = Object.keys(view.filter).length > 0, isSearching = view.busy;
  byId("none-found").hidden = view.rows.length > 0 || isSearching;
  byId("none-found").textContent = isFiltered ? "No row matches." : "No row is finished yet.";
  byId("previous").disabled = view.starts.length === 0 && !(view.rows.length && !isFiltered && view.rows[0].row > 1 && view.jumped);
  byId("next").disabled = view.next === null;
  byId("stop").hidden = !(isFiltered && (isSearching || (view.next !== null && view.rows.length < PAGE_ROWS)));
  byId("stop").textContent = isSearching ? "Stop the search" : "Continue the search";
  const place = [];
  if (view.rows.length) place.push(view.rows.length === 1 ? `Row ${count(view.rows[0].row)}` : `Rows ${count(view.rows[0].row)} to ${count(view.rows[view.rows.length - 1].row)}`);
  if (isFiltered) {
    place.push(`${rows(view.rows.length)} found`);
    const all = run.facts && run.facts.counted ? ` of ${count(run.facts.rows)}` : "";
    place.push(view.next === null && !isSearching ? "the search is complete" : `searched ${count(view.searched)}${all} rows`);
  } else if (run.facts) place.push(`${count(run.facts.rows)} finished`);
  byId("place").textContent = place.join(", ");
}

function parameters() {
  const { outcome = "", ...rest } = view.filter;
  const [kind, ...value] = outcome.split(":");
  return { ...rest, ...(kind ? { [kind]: value.join(":") } : {}) };
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Fills the page from a position on. A search is answered in slices, each with where to go on.
async function load(after, rowsBefore = [], before = null) {
  const ticket = ++view.ticket;
  view.rows = rowsBefore; view.next = null; view.busy = true;
  if (!rowsBefore.length) view.searched = view.base || 0;
  const isFiltered = Object.keys(view.filter).length > 0;
  let position = after;
  showRows();
  try {
    for (;;) {
      const asked = { ...parameters(), after: position, limit: PAGE_ROWS - view.rows.length };
      if (before !== null) Object.assign(asked, { before, after: "" });
      const answer = await ask("api/rows", asked);
      if (ticket !== view.ticket) return;
      showError(null);
      showNotice(answer.notice);
      view.reading = answer.reading;
      view.rows = [...view.rows, ...answer.rows];
      view.searched += answer.searched;
      view.next = answer.next;
      if (answer.reading) { later(after, ticket); }
      if (answer.next === null || view.rows.length >= PAGE_ROWS || (!isFiltered && before !== null)) break;
      position = answer.next;
      showRows();
      await pause(BETWEEN_MS);
      if (ticket !== view.ticket) return;
    }
  } catch (error) {
    if (ticket === view.ticket) showError(error);
  }
  if (ticket !== view.ticket) return;
  view.busy = false;
  showRows();
}

// The input is read by a thread: what was not there in time is asked for again.
async function later(after, ticket) {
  await pause(AGAIN_MS);
  if (ticket !== view.ticket || !view.rows.length) return;
  const first = view.rows[0].row - 2, last = view.rows[view.rows.length - 1].row;
  const filter = view.filter;
  try {
    if (Object.keys(filter).length) return;
    const answer = await ask("api/rows", { after: first, limit: view.rows.length });
    if (ticket !== view.ticket) return;
    const known = new Map(answer.rows.map((row) => [row.row, row]));
    view.rows = view.rows.map((row) => known.get(row.row) || row);
    view.reading = answer.reading;
    showNotice(answer.notice);
    showRows();
    if (answer.reading && last) later(after, ticket);
  } catch (error) { showError(error); }
}

// The run went on: rows are added to a page that is not full, and those of the page may have changed.
async function follow() {
  if (!byId("one").hidden) { await showOne(view.one, false); return; }
  if (view.busy) return;
  const isFiltered = Object.keys(view.filter).length > 0;
  if (view.rows.length >= PAGE_ROWS) {
    if (view.next === null && !isFiltered) view.next = view.rows[view.rows.length - 1].row - 1;
    showRows();
    return;
  }
  if (isFiltered) {
    if (view.next === null) { const last = view.last ?? view.after; await load(view.rows.length ? view.rows[view.rows.length - 1].row - 1 : last, view.rows); }
    return;
  }
  const ticket = ++view.ticket;
  const answer = await ask("api/rows", { after: view.after, limit: PAGE_ROWS });
  if (ticket !== view.ticket) return;
  Object.assign(view, { rows: answer.rows, next: answer.next, reading: answer.reading });
  showRows();
  if (answer.reading) later(view.after, ticket);
}

function open(after) {
  view.after = after; view.jumped = after >= 0;
  return load(after);
}

function nextPage() {
  if (view.next === null) return;
  view.starts.push([view.after, view.base || 0]);
  view.base = view.searched;
  open(view.next).then(() => window.scrollTo(0, 0));
}

function previousPage() {
  const start = view.starts.pop();
  if (start !== undefined) { view.base = start[1]; open(start[0]).then(() => window.scrollTo(0, 0)); return; }
  if (byId("previous").disabled) return;
  const before = view.rows[0].row - 1;
  load(view.after, [], before).then(() => {
    view.after = view.rows.length ? view.rows[0].row - 2 : -1;
    view.jumped = view.after >= 0;
    showRows();
    window.scrollTo(0, 0);
  });
}

// One row

async function showOne(number, moves = true) {
  view.one = number;
  byId("list").hidden = true;
  byId("filter").hidden = true;
  byId("one").hidden = false;
  const title = byId("one-title"), body = byId("one-body");
  if (moves) { title.textContent = `Row ${count(number)}`; body.replaceChildren(make("p", "null", "Loading")); title.focus({ preventScroll: true }); window.scrollTo(0, 0); }
  let row;
  try {
    row = await ask("api/row", { row: number });
  } catch (error) { showError(error); return; }
  if (view.one !== number || byId("one").hidden) return;
  const shown = JSON.stringify(row);
  if (!moves && body.shown === shown) return;
  body.shown = shown;
  showError(null);
  showNotice(row.notice);
  for (const [id, other] of [["earlier", row.earlier], ["later", row.later]]) {
    const link = byId(id);
    if (other === null) { link.removeAttribute("href"); link.setAttribute("aria-disabled", "true"); }
    else { link.href = `#row=${other}`; link.removeAttribute("aria-disabled"); }
  }
  body.replaceChildren();
  const section = (name, ...blocks) => {
    if (!blocks.length) return;
    const part = make("section");
    part.append(make("h3", "title", name), ...blocks);
    body.append(part);
  };
  if (row.state === "missing") section("This row has no result yet");
  else if (row.state === "damaged") section("The state of this row is damaged");
  else body.append(head(row, true));
  if (row.state === "missing") body.append(make("p", "null", "The run has not finished this row, or does not have it."));
  section("Prompt", ...promptBlocks(row, true));
  if (row.reading) section("Prompt", make("p", "null", "Reading the input"));
  if (row.state !== "missing") {
    const answers = make("div", "answers");
    answers.append(...answerBlocks(row, true));
    section("Answer", ...errorBlock(row, true), ...(answers.childElementCount ? [answers] : []));
    section("Details", ...(row.parts || []).map((part) => textBlock(part.name, part, wholeAddress(row.row, "part", part.name), true)));
  }
  if (row.input && row.input.columns.length) {
    const list = columnList(row, row.input.columns, true);
    section(`Columns (${row.input.place})`, list, ...(row.input.more ? [make("p", "null", `and ${count(row.input.more)} other columns`)] : []));
  }
  if (row.reading) { await pause(AGAIN_MS); if (view.one === number && !byId("one").hidden) showOne(number, false); }
}

// The address says what is shown

function address(filter) {
  const query = new URLSearchParams();
  for (const field of FIELDS) if (filter[field] && !(field === "scope" && filter.scope === "both")) query.set(field, filter[field]);
  if (query.size === 1 && query.has("scope")) query.delete("scope");
  if (!query.has("column")) query.delete("value");
  return query.toString();
}

function route() {
  const query = new URLSearchParams(location.hash.slice(1));
  const row = query.get("row");
  if (row && /^[0-9]{1,15}$/.test(row) && Number(row) >= 1) { showOne(Number(row)); return; }
  const filter = {};
  for (const field of FIELDS) if (query.get(field)) filter[field] = query.get(field);
  if (filter.column && !("value" in filter)) filter.value = "";
  const isSame = JSON.stringify(filter) === JSON.stringify(view.filter) && view.after !== null;
  const from = view.one;
  view.one = null;
  byId("one").hidden = true;
  byId("list").hidden = byId("filter").hidden = false;
  if (isSame) {
    showRows();
    const item = from && byId("rows").querySelector(`[data-row="${from}"]`);
    if (item) item.focus();
    return;
  }
  Object.assign(view, { filter, starts: [], base: 0, searched: 0, rows: [] });
  byId("back").href = `#${address(filter)}`;
  showChoices();
  open(-1);
}

function move(step) {
  const items = [...byId("rows").children];
  if (!items.length) return;
  const at = items.indexOf(document.activeElement && document.activeElement.closest("#rows > li"));
  const next = items[Math.max(0, Math.min(items.length - 1, at < 0 ? (step > 0 ? 0 : items.length - 1) : at + step))];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function onKey(event) {
  const isTyping = event.target.closest("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { if (isTyping) event.target.blur(); else if (!byId("one").hidden) byId("back").click(); return; }
  if (isTyping) return;
  const isOne = !byId("one").hidden;
  const keys = {
    "/": () => { if (isOne) byId("back").click(); setTimeout(() => { byId("text").focus(); byId("text").select(); }); },
    j: () => (isOne ? byId("later").click() : move(1)), k: () => (isOne ? byId("earlier").click() : move(-1)),
    ArrowDown: isOne ? null : () => move(1), ArrowUp: isOne ? null : () => move(-1),
    n: () => (isOne ? byId("later").click() : nextPage()), p: () => (isOne ? byId("earlier").click() : previousPage()),
    Enter: event.target.matches("#rows > li") ? () => { location.hash = `row=${event.target.dataset.row}`; } : null,
  };
  const act = Object.hasOwn(keys, event.key) ? keys[event.key] : null;
  if (act) { event.preventDefault(); act(); }
}

byId("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  const filter = Object.fromEntries(FIELDS.map((field) => [field, byId(field).value]));
  const wanted = address(filter);
  if (`#${wanted}` === (location.hash || "#")) { view.after = null; route(); } else location.hash = wanted;
});
byId("clear").addEventListener("click", () => {
  for (const field of FIELDS) byId(field).value = field === "scope" ? "both" : "";
  location.hash = "";
});
byId("jump").addEventListener("submit", (event) => {
  event.preventDefault();
  const number = byId("number").value;
  if (!/^[0-9]{1,15}$/.test(number) || Number(number) < 1) return;
  view.filter = {};
  Object.assign(view, { starts: [], base: 0, one: null });
  byId("one").hidden = true;
  byId("list").hidden = byId("filter").hidden = false;
  history.replaceState(null, "", "#");
  showChoices();
  open(Number(number) - 2).then(() => { const first = byId("rows").firstElementChild; if (first) first.focus(); });
});
byId("named").addEventListener("input", showPicker);
byId("none").addEventListener("click", () => { picked = new Set(); showPicker(); showRows(); });
byId("next").addEventListener("click", nextPage);
byId("previous").addEventListener("click", previousPage);
byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("rows").focus(); });
byId("stop").addEventListener("click", () => {
  if (view.busy) { view.ticket += 1; view.busy = false; showRows(); } else load(view.next, view.rows);
});
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", route);
describe().then(() => { route(); polling = setTimeout(poll, POLL_MS); }).catch((error) => { byId("name").textContent = "The run cannot be shown"; showError(error); });
