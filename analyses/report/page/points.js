/* What the figures show of one checkpoint and preset, unpacked from the page’s data. Every text comes with it. */

const GROUPS = ["rare", "common"];
const ROLES = {
  b: "boost", s: "suppress", B: "mixed (boost by its sign alone)", S: "mixed (suppress by its sign alone)", "-": "none",
};

/* Values from their differences; null where there is none. */
function summed(differences) {
  let sum = 0;
  return differences.map((step) => (step === null ? null : (sum += step)));
}

function tokensOf(run) {
  const found = new Map();
  const packed = data.runs[run].tokens;
  if (!packed) return found;
  const texts = (codes) => codes.map((code) => data.texts[code]).join("  ");
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
  const rows = [];
  let rareRank = null;
  for (const group of GROUPS) {
    const curve = curves[group];
    if (!curve) continue;
    const [ranks, logs, deviations] = [curve.rank, curve.log10, curve.deviation].map(summed);
    const [influences, distances] = [curve.influence_text, curve.deviation_text].map(summed);
    if (!rareRank) rareRank = new Map(curve.neuron.map((neuron, i) => [neuron, ranks[i]])); // of common ones without
    curve.neuron.forEach((neuron, i) => {
      const [up, down] = tokens.get(neuron) || ["", ""];
      rows.push({
        group, neuron, up, down, rank: ranks[i],
        rare_rank: rareRank.has(neuron) ? rareRank.get(neuron) : null,
        influence: logs[i] === null ? null : Math.pow(10, logs[i] / 1e5),
        deviation: deviations[i] === null ? null : deviations[i] / 1e5, role: ROLES[curve.role[i]],
        influence_text: data.influences[influences[i]], deviation_text: data.deviations[distances[i]],
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
      rare_text: row.influence_text, common_text: other.influence_text, role: row.role, up: row.up, down: row.down,
      leads: first && second ? "both" : first ? "rare" : second ? "common" : "neither",
    };
  });
}
