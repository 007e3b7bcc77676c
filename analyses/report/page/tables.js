/* Tables: rows that Python wrote for the checkpoint chosen, drawn as their columns say, and headings that sort. Every
   text goes in as text, never as HTML. */

const MISSING = "–";
const CLASSES = { number: "n", pin: "n", tokens: "tokens" };

const counted = (value) => value.toLocaleString("en");

/* A cell is its text, perhaps [text, value to sort by] and a note to hover over, of tokens a list of their numbers.
   A neuron's number leads to its card where the page has one. */
function drawCell(content, column, pin) {
  const element = cellOf(content, column, pin);
  element.dataset.label = column.label;
  return element;
}

function cellOf(content, column, pin) {
  const tag = column.heads ? "th" : "td";
  const name = CLASSES[column.kind];
  if (column.kind === "tokens") {
    const element = cell(tag, content.length ? null : MISSING, name);
    content.forEach((code) => element.append(cell("bdi", data.texts[code], "token"), " "));
    return element;
  }
  const [text, value, note] = Array.isArray(content) ? content : [content];
  const element = cell(tag, column.kind === "pin" ? null : text, name, value);
  if (column.heads) element.scope = "row";
  if (note) element.title = note;
  if (column.kind === "pin") {
    const address = pin.address(Number(text));
    const link = cell(address ? "a" : "button", text, "pin");
    if (address) link.href = "#" + address;
    else link.type = "button";
    link.dataset.neuron = text;
    link.addEventListener("click", () => pin(Number(text), !address));
    element.append(link);
  }
  return element;
}

function drawRow(cells, columns, pin) {
  const row = document.createElement("tr");
  row.append(...cells.map((content, i) => drawCell(content, columns[i], pin)));
  return row;
}

/* A neuron's point in a figure, as labels and texts. */
function describe(row) {
  const thousandths = (text) => text + " · 10⁻³ nats";
  const numbers = row.group
    ? [[row.group + " tokens", "rank " + counted(row.rank)], ["influence", thousandths(row.influence_text)],
      ["δ", row.deviation_text], ["regime", row.regime]]
    : [["rare tokens", "rank " + counted(row.rare_rank) + ", " + thousandths(row.rare_text)],
      ["common tokens", "rank " + counted(row.common_rank) + ", " + thousandths(row.common_text)]];
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
  const before = heading.getAttribute("aria-sort"); // numbers begin with the largest, texts with the first
  const rising = before ? before === "descending" : kind === "text";
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
