// The one selection that all parts of the page share; the address holds it, so that it can be sent to someone.

const DEFAULTS = { view: 0, layer: 0, head: 0, statistic: null, of: "", which: "max", scale: "log", hide: 0, special: false, grid: "numbers", shape: "matrix", lines: "", row: null, key: null, at: "", order: "down", by: "looks", trail: "" };

export const state = { ...DEFAULTS, hoverRow: null, hoverKey: null };

const listeners = [];

export const onChange = (listener) => listeners.push(listener);

// What the row inspector, the strip and the map show: the row under the pointer, else the locked one.
export const shownRow = () => (state.row !== null ? state.row : state.hoverRow);
export const shownKey = () => (state.hoverKey !== null ? state.hoverKey : state.key);

export function set(changes) {
  const changed = new Set(Object.keys(changes).filter((name) => state[name] !== changes[name]));
  if (!changed.size) return;
  Object.assign(state, changes);
  for (const listener of listeners) listener(changed);
  if ([...changed].some((name) => name in DEFAULTS)) keepInAddress();
}

export function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const changes = {};
  for (const name of ["view", "layer", "head", "hide", "row", "key"]) {
    const value = given.get(name);
    if (value !== null && /^\d{1,7}$/.test(value)) changes[name] = Number(value);
  }
  for (const name of ["statistic", "of", "which", "scale", "grid", "shape", "lines", "at", "order", "by", "trail"]) if (given.has(name)) changes[name] = given.get(name);
  if (given.has("special")) changes.special = given.get("special") === "1";
  return changes;
}

let later = null;

// What part of the map is shown is kept in the address once it rests.
export function keepPlace(at) {
  if (state.at === at) return;
  state.at = at;
  clearTimeout(later);
  later = setTimeout(keepInAddress, 250);
}

function keepInAddress() {
  const kept = new URLSearchParams();
  for (const [name, fallback] of Object.entries(DEFAULTS)) {
    const value = state[name];
    const always = name === "layer" || name === "head";
    if (value !== null && (always || value !== fallback)) kept.set(name, value === true ? "1" : String(value));
  }
  try {
    history.replaceState(null, "", `#${kept}`);
  } catch {
    // a notebook's frame has no address of its own
  }
}
