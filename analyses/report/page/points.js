/* What the figures and tables show of one checkpoint and preset, unpacked from the page’s data. */

const data = JSON.parse(document.getElementById("data").textContent);
const GROUPS = ["rare", "common"];
const ROLES = { b: "boost", s: "suppress", "-": "none" };
const state = { preset: data.presets[0] };
const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

function tokensOf(run) {
  const found = new Map();
  const packed = data.runs[run].tokens;
  if (!packed) return found;
  const texts = (codes) => codes.map((code) => data.texts[code]);
  packed.neuron.forEach((neuron, i) => found.set(neuron, [texts(packed.up[i]), texts(packed.down[i])]));
  return found;
}

const decoded = new Map();

/* One row a neuron and token group of a run and preset, by rank. */
function pointsOf(run, preset) {
  const key = run + " " + preset;
  if (decoded.has(key)) return decoded.get(key);
  const curves = data.runs[run].curves[preset] || {};
  const tokens = tokensOf(run);
  const rare = curves.rare || curves.common || { neuron: [], rank: [] };
  const rareRank = new Map(rare.neuron.map((neuron, i) => [neuron, rare.rank[i]]));
  const rows = [];
  for (const group of GROUPS) {
    const curve = curves[group];
    if (!curve) continue;
    curve.neuron.forEach((neuron, i) => {
      const [raises, lowers] = tokens.get(neuron) || [[], []];
      rows.push({
        group, neuron, raises, lowers, up: raises.join("  "), down: lowers.join("  "), rank: curve.rank[i],
        rare_rank: rareRank.has(neuron) ? rareRank.get(neuron) : null,
        influence: curve.log10[i] === null ? null : Math.pow(10, curve.log10[i] / 1e5),
        deviation: curve.deviation[i] === null ? null : curve.deviation[i] / 1e5, role: ROLES[curve.role[i]],
        regime: (data.regimes[curve.regime[i]] || "–"),
      });
    });
  }
  decoded.set(key, rows);
  return rows;
}

const drawn = (run, preset) => pointsOf(run, preset).filter((row) => row.influence !== null);

/* One row a neuron that both groups have, with the group in which it is among the first `top`. */
function pairsOf(run, preset, top) {
  const rows = drawn(run, preset);
  const common = new Map(rows.filter((row) => row.group === "common").map((row) => [row.neuron, row]));
  return rows.filter((row) => row.group === "rare" && common.has(row.neuron)).map((row) => {
    const other = common.get(row.neuron);
    const [first, second] = [row.rank <= top, other.rank <= top];
    return {
      neuron: row.neuron, rare: row.influence, common: other.influence, rare_rank: row.rank, common_rank: other.rank,
      role: row.role, up: row.up, down: row.down,
      leads: first && second ? "both" : first ? "rare" : second ? "common" : "neither",
    };
  });
}

/* The fitted line of each group in three parts: before, on and after the ranks it was fitted to. */
function linesOf(run, preset, neurons) {
  const rows = [];
  for (const [group, fit] of Object.entries(data.runs[run].fits[preset] || {})) {
    const parts = { before: [1, fit.first], window: [fit.first, fit.last], after: [fit.last, neurons] };
    for (const [part, ends] of Object.entries(parts)) {
      if (ends[0] >= ends[1]) continue;
      for (const rank of ends) {
        rows.push({ group, part, rank, influence: Math.exp(fit.beta - fit.kappa * Math.log(rank)) });
      }
    }
  }
  return rows;
}

const windowsOf = (run, preset) => Object.entries(data.runs[run].fits[preset] || {}).map(
  ([group, fit]) => ({ group, first: fit.first, last: fit.last }));
