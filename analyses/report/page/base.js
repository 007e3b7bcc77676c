/* What every part of the script uses: the page's data, the state that its address holds, and elements made of text. */

const data = JSON.parse(document.getElementById("data").textContent);
const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

function cell(tag, text, name, value) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (value !== undefined) element.dataset.value = value;
  if (text !== null) element.textContent = text;
  return element;
}

/* Rows from columns: { name: [value, …], … }. */
function rowsFrom(columns) {
  const names = Object.keys(columns);
  if (!names.length) return [];
  return columns[names[0]].map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
}

/* The address after #: where on the page, then the state: #n1042&preset=nc&step0=3. */
function readAddress() {
  const [place, ...rest] = decodeURIComponent(location.hash.slice(1)).split("&");
  return { place, values: Object.fromEntries(rest.map((part) => part.split("="))) };
}

const state = { preset: (data.presets || [])[0], place: readAddress().place, values: readAddress().values };

/* Write the state into the address without a jump, so that a copied address shows the same. */
function writeAddress(changed) {
  Object.assign(state.values, changed);
  const values = Object.entries(state.values).filter(([, value]) => value !== null && value !== undefined);
  const hash = [state.place, ...values.map((pair) => pair.join("="))].join("&");
  history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search);
}
