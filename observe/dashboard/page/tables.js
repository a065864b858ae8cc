// The tables. Each row has a key, so that it stays the same element while it is there.
import {age, bytes, element, keyed, set, text} from "./dom.js";

// table fills a table: columns are functions that put an item into a cell; the first is the row's heading where named.
function table(id, items, keyOf, heading, columns, empty) {
  const body = document.querySelector(`#${id} tbody`);
  const rows = items.length ? items : [null];
  keyed(body, rows, item => item ? keyOf(item) : "none", item => {
    const row = element("tr");
    if (!item) {
      row.append(element("td", {colspan: columns.length, class: "none"}, empty));
      return row;
    }
    columns.forEach(([number], i) => row.append(i === heading ? element("th", {scope: "row"})
      : element("td", number ? {class: "number"} : {})));
    return row;
  }, (row, item) => {
    if (item) {
      columns.forEach(([, put], i) => put(row.children[i], item));
    }
  });
}

const words = f => [false, (cell, item) => text(cell, f(item))];
const number = f => [true, (cell, item) => text(cell, f(item))];

// button is one in a cell, made once; its handler takes the item that the row has when it is pressed.
function button(cell, label, full, press) {
  const b = cell.querySelector("button") ?? cell.appendChild(element("button", {type: "button"}));
  text(b, label);
  set(b, "aria-label", full);
  b.onclick = press;
}

// portLink leads to a published TCP port by another host name than the page's, so that the browser does not send it the
// page's cookie: cookies are for all ports of a host.
function portLink(p) {
  const where = `${p.host} → ${p.port}/${p.proto}`;
  if (p.proto !== "tcp") {
    return element("span", {}, where);
  }
  const [, addr, port] = p.host.match(/^\[?(.*?)\]?:(\d+)$/);
  const mine = ["0.0.0.0", "::", "127.0.0.1", "::1"].includes(addr);
  const other = location.hostname === "localhost" ? "127.0.0.1" : "localhost";
  const host = mine ? other : addr.includes(":") ? `[${addr}]` : addr;
  return element("a", {href: `http://${host}:${port}/`, target: "_blank", rel: "noopener noreferrer"}, where);
}

export function drawContainers(list, act) {
  table("container-table", list, c => c.name, 0, [
    words(c => c.name),
    words(c => c.status),
    [false, (cell, c) => items(cell, c.endpoints, e => e.network, e => element("span"), (li, e) => {
      text(li.firstChild, `${e.network} ${e.addrs.join(" ")}`.trim());
      button(li, "Disconnect", `Disconnect ${c.name} from ${e.network}`, () => act("disconnect",
        {container: c.name, network: e.network}, `Disconnect ${c.name} from ${e.network}?`, "Disconnect",
        `${c.name} is disconnected from ${e.network}`));
    })],
    [false, (cell, c) => items(cell, c.ports, p => `${p.host} ${p.proto}`, portLink, (li, p) => {
      button(li, "Unpublish", `Unpublish ${p.host}, port ${p.port}/${p.proto} of ${c.name}`, () => act("unpublish",
        {container: c.name, host: p.host, port: p.port, proto: p.proto}, `Unpublish ${p.host} of ${c.name}?`, "Unpublish",
        `${p.host} is not published any more`));
    })],
    number(c => bytes(c.in)),
    number(c => bytes(c.out)),
    number(c => String(c.flows)),
    number(c => String(c.drops)),
  ], "There are no containers: start one with usernet run.");
}

// items are a list within a cell.
function items(cell, list, keyOf, make, update) {
  if (!list.length) {
    if (cell.firstChild) {
      cell.replaceChildren();
    }
    return;
  }
  const ul = cell.querySelector("ul") ?? cell.appendChild(element("ul", {class: "items"}));
  keyed(ul, list, keyOf, item => element("li", {}, make(item)), update);
}

export function drawFlows(list, now, act) {
  table("flow-table", list, f => [f.container, f.network, f.proto, f.direction, f.inside, f.outside, f.created].join(" "), -1, [
    words(f => f.container),
    words(f => f.proto),
    words(f => f.direction),
    [false, (cell, f) => {
      text(cell, f.peer);
      set(cell, "title", f.outside || null);
    }],
    words(f => f.state),
    words(f => f.path),
    number(f => bytes(f.in)),
    number(f => bytes(f.out)),
    number(f => bytes(f.bytes)),
    number(f => age(f.created, now)),
    [false, (cell, f) => button(cell, "Close", `Close the flow of ${f.container} to ${f.peer}`, () => act("close",
      {proto: f.proto, inside: f.inside, outside: f.outside}, `Close the flow of ${f.container} to ${f.peer}?`, "Close",
      `The flow of ${f.container} to ${f.peer} is closed`))],
  ], "There are no flows.");
}

export function drawRefusals(list, now) {
  table("refusal-table", list, r => [r.container, r.network, r.proto, r.destination, r.name, r.rule].join(" "), -1, [
    number(r => age(r.time, now)),
    words(r => r.container),
    words(r => r.network),
    words(r => r.proto === "dns" ? "DNS" : r.proto),
    [false, (cell, r) => {
      text(cell, r.peer);
      set(cell, "title", r.destination || null);
    }],
    number(r => String(r.count)),
    words(r => r.rule),
    [false, (cell, r) => {
      const code = cell.querySelector("code") ?? cell.appendChild(element("code"));
      text(code, r.flag);
    }],
  ], "Nothing was refused.");
}

export function drawQuestions(list, now) {
  table("question-table", list, q => [q.time, q.container, q.name, q.type].join(" "), -1, [
    number(q => age(q.time, now)),
    words(q => q.container),
    words(q => q.name),
    words(q => q.type),
    words(q => q.result),
    words(q => q.source),
    words(q => q.addrs.join(" ")),
  ], "No names were asked for.");
}
