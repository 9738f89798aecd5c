// Elements without markup strings: all text goes in by textContent, so that a token can never become an element.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function makeSvg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Buttons of which one is on: [[value, text, title]].
export function choice(holder, entries, current, onPick) {
  const held = holder.contains(document.activeElement);
  const known = entries.some(([value]) => value === current);
  holder.replaceChildren(
    ...entries.map(([value, text, title], at) =>
      make("button", {
        type: "button", role: "radio", text, title, "aria-checked": String(value === current),
        tabindex: value === current || (!known && at === 0) ? 0 : -1,
        onclick: () => onPick(value),
      })
    )
  );
  if (held) holder.querySelector("[tabindex='0']").focus();
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  holder.onkeydown = (event) => {
    const at = entries.findIndex(([value]) => value === current), by = steps[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    onPick(entries[(at + by + entries.length) % entries.length][0]);
  };
}
