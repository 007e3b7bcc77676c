/* Cards: opened by their address, found by number or token, with passages whose tokens are coloured. */

const MISSING_VALUE = -32768, FULL = 32767;
const SAMPLES = {
  largest: "Where it is most active", high: "Quantiles 0.9 to 0.99", middle: "Quantiles 0.25 to 0.75",
  low: "Quantiles 0.01 to 0.1", smallest: "Where it is least active",
};

const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;

/* Numbers of texts: the first character says how many bytes each takes. */
function decodedCodes(text) {
  const [size, bytes] = [text[0], bytesOf(text.slice(1))];
  return Array.from(size === "2" ? new Uint16Array(bytes) : new Uint32Array(bytes));
}

const digits3 = (value) => {
  const [size, small] = [Math.abs(value), Math.abs(value) < 1e-4 && value !== 0];
  return (small ? value.toExponential(1) : value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 4)).replace("-", "−");
};

/* A token with its background by one of its two values, and both to point at. */
function drawToken(code, values, scales, by, isPlace) {
  const element = cell("span", data.texts[code], isPlace ? "tok place" : "tok");
  const [activation, change] = values.map((value, i) => (value === MISSING_VALUE ? null : (value / FULL) * scales[i]));
  element.title = "activation " + (activation === null ? "not measured" : digits3(activation)) +
    "; Δ " + (change === null ? "not measured" : digits3(change) + " nats");
  const shade = values[by === "activation" ? 0 : 1];
  if (shade !== MISSING_VALUE && shade) {
    element.classList.add(shade > 0 ? "plus" : "minus");
    element.style.setProperty("--share", Math.round((40 * Math.abs(shade)) / FULL) + "%");
  }
  return element;
}

function drawPassage(place, packed, by) {
  const item = document.createElement("li");
  item.append(cell("span", place.said, "said"));
  const text = cell("p", null, "passage");
  const [activations, changes] = [new Int16Array(bytesOf(place.activation)), new Int16Array(bytesOf(place.delta_loss))];
  const scales = [packed.activation, packed.delta_loss];
  decodedCodes(place.tokens).forEach((code, i) => {
    text.append(drawToken(code, [activations[i], changes[i]], scales, by, i === place.at));
  });
  item.append(text);
  return item;
}

/* Draw what a card's passages show; done when it is opened, since a page has thousands of tokens. */
function drawPassages(card) {
  const packed = data.passages[card.id];
  const box = card.querySelector(".passages");
  const section = card.closest("section, main");
  const chosen = section.querySelector(".colours input:checked");
  const by = chosen ? chosen.value : "activation";
  if (!packed || box.dataset.by === by) return;
  box.dataset.by = by;
  const samples = Object.entries(SAMPLES).map(([sample, title]) => {
    const places = rowsFrom(packed.places).filter((place) => place.sample === sample);
    if (!places.length) return null;
    const part = document.createElement("div");
    const list = cell("ol", null, "places");
    list.append(...places.map((place) => drawPassage(place, packed, by)));
    part.append(cell("p", title, "panel"), list);
    return part;
  });
  const note = "Before each passage: the activation at the token underlined, the share of positions with a smaller one, " +
    "and the change of the next token’s loss in 10⁻³ nats when the neuron is ablated there. Colours go up to " +
    digits3(packed.activation) + " (activation) and " + digits3(packed.delta_loss) + " nats (Δ).";
  box.replaceChildren(cell("p", note, "caption"), ...samples.filter(Boolean));
}

function showCard(card) {
  card.hidden = false;
  card.open = true;
  drawPassages(card);
  card.scrollIntoView({ block: "start" });
}

/* Open the card that the address names; say so where this page has none. */
function openAddressed() {
  const { place } = readAddress();
  state.place = place;
  const target = place && document.getElementById(place);
  if (target && target.classList.contains("card")) return showCard(target);
  if (target) {
    const folded = target.closest("details") || target.querySelector("details");
    if (target.tagName === "DETAILS") target.open = true;
    else if (folded && folded.contains(target)) folded.open = true;
    return target.scrollIntoView({ block: "start" });
  }
  const named = /^(?:s(\d+)-)?n(\d+)$/.exec(place);
  if (!named) return undefined;
  const section = document.querySelector("section[data-series='" + (named[1] || 0) + "']");
  const found = section && section.querySelector("output.found");
  if (found) {
    found.textContent = noCard(section, Number(named[2]));
    found.scrollIntoView({ block: "center" });
  }
  return undefined;
}

const noCard = (section, neuron) => "Neuron " + neuron + " has no card on this page: " +
  data.program + " neuron " + neuron + " " + section.querySelector(".cards").dataset.runId + " --html card.html";

/* Show only the cards that a number or a token names. */
function findCards(section) {
  const field = section.querySelector("input.find"), found = section.querySelector("output.found");
  const cards = all("details.card", section);
  const wanted = field.value;
  const number = /^\s*#?n?\d+\s*$/.test(wanted) ? Number(wanted.replace(/\D/g, "")) : null;
  const words = wanted.trim().toLowerCase().replace(/ /g, "␣");
  const matches = (card) => !words || (number !== null && Number(card.dataset.neuron) === number) ||
    card.dataset.words.toLowerCase().split(" ").some((word) => word.replace(/^␣/, "") === words || word === words ||
      (words.length > 2 && word.includes(words)));
  cards.forEach((card) => { card.hidden = !matches(card); });
  const shown = cards.filter((card) => !card.hidden);
  found.textContent = !words ? "" : !shown.length && number !== null ? noCard(section, number)
    : shown.length + (shown.length === 1 ? " card" : " cards");
  if (number !== null && shown.length) showCard(shown[0]);
}

function connectCards() {
  document.addEventListener("toggle", (event) => {
    const card = event.target;
    if (card.open && card.classList.contains("card")) drawPassages(card);
  }, true);
  all("input.find").forEach((field) => field.addEventListener("input", () => findCards(field.closest("section"))));
  all(".colours input").forEach((input) => input.addEventListener("change", () => {
    all("details.card[open]", input.closest("section, main")).forEach(drawPassages);
  }));
  all("details.card[open]").forEach(drawPassages);
  window.addEventListener("hashchange", openAddressed);
}
