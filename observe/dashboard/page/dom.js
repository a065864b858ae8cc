// Elements and texts. What containers said is only ever set as text or as the value of an attribute, never as markup.

const svgSpace = "http://www.w3.org/2000/svg";

// element makes one with attributes and children, which are elements or texts. "on" has handlers of events.
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS(svgSpace, name), attributes, children);
}

function fill(e, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) {
        e.addEventListener(event, handler);
      }
    } else {
      set(e, name, value);
    }
  }
  e.append(...children);
  return e;
}

// set changes an attribute only where it is another, and removes it for null.
export function set(e, name, value) {
  if (value === null) {
    e.removeAttribute(name);
  } else if (e.getAttribute(name) !== String(value)) {
    e.setAttribute(name, value);
  }
}

export function text(e, value) {
  if (e.textContent !== value) {
    e.textContent = value;
  }
}

// keyed makes the children of parent be those of the items, in their order. A child stays the same element as long as
// its key is there, so that focus, selections and what a screen reader is at stay where they are.
export function keyed(parent, items, keyOf, make, update) {
  const old = new Map([...parent.children].map(e => [e.dataset.key, e]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let e = old.get(key);
    if (e) {
      old.delete(key);
    } else {
      e = make(item);
      e.dataset.key = key;
    }
    update(e, item);
    if (e === at) {
      at = at.nextElementSibling;
    } else {
      parent.insertBefore(e, at);
    }
  }
  for (const e of old.values()) {
    e.remove();
  }
}

export function bytes(n) {
  if (n < 0.5) {
    return "0";
  }
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (n < 999.5) {
      return `${n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)} ${unit}`;
    }
    n /= 1000;
  }
  return `${Math.round(n)} TB`;
}

// number counts what has a regular plural: 1 flow, 2 flows.
export function number(n, what) {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}

export function age(time, now) {
  const s = Math.max(0, (Date.parse(now) - Date.parse(time)) / 1000);
  if (s < 60) {
    return `${Math.round(s)} s`;
  }
  return s < 3600 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
}
