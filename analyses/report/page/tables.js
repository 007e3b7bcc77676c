/* Tables: rows for the checkpoint chosen, written as the page writes them, and headings that sort. Every text goes in
   as text, never as HTML. */

const MISSING = "–";

function numeric(value, digits) {
  if (value === null || !Number.isFinite(value)) return MISSING;
  if (value === 0) return "0";
  const [mantissa, power] = value.toExponential(digits - 1).split("e");
  const exponent = Number(power);
  const superscript = String(exponent).replace(/-/, "⁻").replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
  const decimals = Math.max(digits - 1 - exponent, 0);
  const text = exponent >= -4 && exponent < 6
    ? Number(value).toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals })
    : mantissa + "\u00a0×\u00a010" + superscript;
  return text.replace("-", "−");
}

const milli = (value) => numeric(value === null ? null : 1000 * value, 3);
const counted = (value) => (value === null ? MISSING : value.toLocaleString("en"));
const signed = (value) => (value === null ? MISSING
  : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2));

function cell(tag, text, name, value) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (value !== undefined && value !== null) element.dataset.value = value;
  if (text !== null) element.textContent = text;
  return element;
}

function tokenCell(texts) {
  const element = cell("td", texts.length ? null : MISSING, "tokens");
  texts.forEach((text) => element.append(cell("bdi", text, "token"), " "));
  return element;
}

/* One row a neuron, what each group says of it; by rank on rare tokens, or on common ones where none is rare. */
function neuronsOf(run, preset) {
  const found = new Map();
  for (const row of pointsOf(run, preset)) {
    if (!found.has(row.neuron)) found.set(row.neuron, { neuron: row.neuron });
    found.get(row.neuron)[row.group] = row;
  }
  return Array.from(found.values()).sort((a, b) => (a.rare || a.common).rank - (b.rare || b.common).rank);
}

const NOTHING = { rank: null, influence: null, deviation: null };

function topRow(found, pin) {
  const [rare, common] = [found.rare || NOTHING, found.common || NOTHING];
  const described = found.rare || found.common;
  const ratio = rare.influence && common.influence ? rare.influence / common.influence : null;
  const head = cell("th", null, "n", found.neuron);
  head.scope = "row";
  const button = cell("button", found.neuron, "pin");
  button.type = "button";
  button.value = found.neuron;
  button.addEventListener("click", () => pin(found.neuron, true));
  head.append(button);
  const row = document.createElement("tr");
  row.append(head, cell("td", described.role), cell("td", counted(rare.rank), "n"),
    cell("td", milli(rare.influence), "n", rare.influence), cell("td", signed(rare.deviation), "n"),
    cell("td", counted(common.rank), "n"), cell("td", milli(common.influence), "n", common.influence),
    cell("td", numeric(ratio, 2), "n", ratio), cell("td", described.regime),
    tokenCell(described.raises), tokenCell(described.lowers));
  return row;
}

function sampleRow(rank, sides) {
  const head = cell("th", counted(rank), "n");
  head.scope = "row";
  const row = document.createElement("tr");
  row.append(head);
  for (const side of sides) {
    row.append(cell("td", side ? side.neuron : MISSING, "n"), cell("td", side ? milli(side.influence) : MISSING, "n"),
      cell("td", side ? signed(side.deviation) : MISSING, "n"));
  }
  return row;
}

/* A neuron's point in a figure, as labels and texts. */
function describe(row) {
  const thousandths = (value) => milli(value) + " · 10⁻³ nats";
  const numbers = row.group
    ? [[row.group + " tokens", "rank " + counted(row.rank)], ["influence", thousandths(row.influence)],
      ["δ", signed(row.deviation)], ["regime", row.regime]]
    : [["rare tokens", "rank " + counted(row.rare_rank) + ", " + thousandths(row.rare)],
      ["common tokens", "rank " + counted(row.common_rank) + ", " + thousandths(row.common)]];
  const tokens = row.up || row.down ? [["raises", row.up], ["lowers", row.down]] : [];
  return [["neuron", String(row.neuron)], ...numbers, ["role", row.role], ...tokens];
}

/* ---- headings that sort ---- */

function cellValue(row, column, kind) {
  const cell = row.cells[column];
  if (!cell) return null;
  const text = cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent.trim();
  if (kind === "text") return text;
  const value = parseFloat(text.replace(/,/g, "").replace("−", "-")); // "1,024", "−0.12", "41 %"
  return Number.isNaN(value) ? null : value;
}

function sortBy(table, heading, column) {
  const kind = heading.dataset.kind;
  const rising = heading.getAttribute("aria-sort") !== "ascending";
  all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
  for (const body of table.tBodies) {
    const rows = Array.from(body.rows).filter((row) => row.cells.length > column);
    const short = Array.from(body.rows).filter((row) => row.cells.length <= column);
    rows.sort((one, other) => {
      const a = cellValue(one, column, kind), b = cellValue(other, column, kind);
      if (a === null || b === null) return (a === null) - (b === null);
      return (a < b ? -1 : a > b ? 1 : 0) * (rising ? 1 : -1);
    });
    body.append(...rows, ...short);
  }
}

function makeSortable(table) {
  const headings = table.tHead.rows[table.tHead.rows.length - 1].cells; // the row over it spans groups of columns
  Array.from(headings).forEach((heading, column) => {
    if (heading.dataset.kind === "none") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(table, heading, column));
    heading.append(button);
  });
}
