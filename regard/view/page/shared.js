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
