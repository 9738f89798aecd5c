// Traces that are compared may not be equally long: which slot of one is which slot of another.

let slots = null; // axis -> [slots of A, slots of B], each by the slot of A − B; null where slots are the same

export const loadShared = (given) => (slots = given || null);

// The slot of an axis in another view; null where the other does not have its token.
export function inView(axis, from, to, slot) {
  if (slot === null || !slots || from === to) return slot;
  const [...sides] = slots[axis] || [];
  const shared = from === 2 ? slot : sides[from].indexOf(slot);
  return shared < 0 ? null : to === 2 ? shared : sides[to][shared] ?? null;
}

// The same of the nearest token on the way `by` that the other view has.
export function nearInView(axis, from, to, slot, by) {
  if (!slots || from === to) return slot;
  for (let at = slot, step = 0; at >= 0 && step < 1e6; at += by, step++) {
    const there = inView(axis, from, to, at);
    if (there !== null) return there;
    if (from === 2 || at > Math.max(...(slots[axis] || [[0]])[from])) return null;
  }
  return null;
}
