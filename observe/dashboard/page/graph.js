// The map: containers on the left, networks in the middle, what is outside on the right.
import {bytes, keyed, number, set, shape, text} from "./dom.js";

const width = 900, row = 52, height = 38, top = 12;
const columns = {container: {x: 12, w: 270}, network: {x: 400, w: 250}, outside: {x: 770, w: 118}};

let current = null; // key of the node that the Tab key leads to
let order = [];     // keys of nodes as the arrow keys go through them: one list for each column

function rates(e) {
  return `${bytes(e.in)}/s in, ${bytes(e.out)}/s out`;
}

// nodes are placed so that containers stand beside others of their first network.
function nodes(view) {
  const rank = new Map(view.networks.map((n, i) => [n.name, i]));
  const first = c => Math.min(...c.endpoints.map(e => rank.get(e.network) ?? 1e6), 1e6);
  const containers = [...view.containers].sort((a, b) => first(a) - first(b) || a.name.localeCompare(b.name));
  const rows = Math.max(containers.length, view.networks.length, 1);
  const place = (list, kind, describe) => list.map((item, i) => ({
    kind, item, name: item.name, key: `${kind} ${item.name}`, ...describe(item),
    x: columns[kind].x, w: columns[kind].w, y: top + row * ((rows - list.length) / 2 + i),
  }));
  const all = [
    ...place(containers, "container", c => ({
      detail: c.status === "running" ? rates(c) : c.status, stopped: c.status !== "running",
      label: `container ${c.status}, on ${c.endpoints.map(e => e.network).join(" and ") || "no network"}` +
        (c.status === "running" ? `, ${number(c.flows, "flow")}` : ""),
    })),
    ...place(view.networks, "network", n => {
      const on = view.containers.filter(c => c.endpoints.some(e => e.network === n.name));
      return {
        detail: n.subnets.join(", ") || n.driver,
        label: `network of driver ${n.driver}${n.internal ? ", internal" : ""}, containers: ` +
          (on.map(c => c.name).join(", ") || "none"),
      };
    }),
    ...place([{name: "outside"}], "outside", () => ({detail: "host and beyond", label: "Outside"})),
  ];
  return {all, rows};
}

function edges(view, at) {
  const list = [];
  for (const c of view.containers) {
    for (const e of c.endpoints) {
      const from = at.get(`container ${c.name}`), to = at.get(`network ${e.network}`);
      if (to) {
        list.push({key: `${from.key} ${to.key}`, from, to, busy: e.in + e.out >= 1});
      }
    }
  }
  for (const n of view.networks.filter(n => !n.internal)) {
    const busy = view.flows.some(f => f.network === n.name && f.in + f.out >= 1);
    list.push({key: `network ${n.name} outside`, from: at.get(`network ${n.name}`), to: at.get("outside outside"), busy});
  }
  return list;
}

// drawGraph draws a view. chosen is what is selected, or null; choose is called with another selection.
export function drawGraph(svg, view, chosen, choose) {
  const {all, rows} = nodes(view);
  const at = new Map(all.map(n => [n.key, n]));
  set(svg, "viewBox", `0 0 ${width} ${top * 2 + rows * row}`);
  if (!svg.firstChild) {
    svg.append(shape("g", {"aria-hidden": "true"}), shape("g"));
    svg.addEventListener("keydown", e => move(svg, e));
  }
  const [lines, boxes] = svg.children;
  keyed(lines, edges(view, at), e => e.key, () => shape("path"), (p, e) => {
    const x1 = e.from.x + e.from.w, y1 = e.from.y + height / 2, x2 = e.to.x, y2 = e.to.y + height / 2, half = (x1 + x2) / 2;
    set(p, "d", `M${x1} ${y1} C${half} ${y1} ${half} ${y2} ${x2} ${y2}`);
    set(p, "class", e.busy ? "busy" : "quiet");
  });
  order = ["container", "network"].map(kind => all.filter(n => n.kind === kind).map(n => n.key)).filter(l => l.length);
  if (!order.flat().includes(current)) {
    current = order.flat()[0] ?? null;
  }
  keyed(boxes, all, n => n.key, n => box(svg, n, choose), (g, n) => {
    set(g, "class", n.kind + (n.stopped ? " stopped" : ""));
    set(g, "transform", `translate(${n.x} ${n.y})`);
    text(g.children[2], n.detail);
    if (n.kind !== "outside") {
      set(g, "aria-label", `${g.children[1].textContent}${n.detail}: ${n.label}`); // begins with what is seen (WCAG 2.5.3)
      set(g, "aria-pressed", String(chosen?.kind === n.kind && chosen.name === n.name));
      set(g, "tabindex", n.key === current ? "0" : "-1");
    }
  });
}

function box(svg, n, choose) {
  const short = n.name.length > 34 ? n.name.slice(0, 33) + "…" : n.name;
  const g = shape("g", {},
    shape("rect", {width: n.w, height, rx: 6}),
    shape("text", {x: 10, y: 16}, `${short} `), // the blank parts it from the next text where they are read together
    shape("text", {x: 10, y: 31, class: "detail"}));
  if (n.kind === "outside") {
    set(g, "aria-hidden", "true");
    return g;
  }
  set(g, "role", "button");
  g.addEventListener("click", () => {
    focus(svg, n.key);
    choose(n.kind, n.name);
  });
  return g;
}

function focus(svg, key) {
  current = key;
  for (const g of svg.children[1].children) {
    if (g.getAttribute("role") === "button") {
      set(g, "tabindex", g.dataset.key === key ? "0" : "-1");
      if (g.dataset.key === key) {
        g.focus();
      }
    }
  }
}

// move goes from node to node: up and down in a column, left and right between them.
function move(svg, e) {
  const column = order.findIndex(l => l.includes(current));
  const node = document.activeElement;
  if (column < 0 || !svg.contains(node)) {
    return;
  }
  const list = order[column], i = list.indexOf(current);
  const to = {
    ArrowDown: () => list[Math.min(i + 1, list.length - 1)],
    ArrowUp: () => list[Math.max(i - 1, 0)],
    Home: () => list[0],
    End: () => list[list.length - 1],
    ArrowRight: () => order[column + 1]?.[0],
    ArrowLeft: () => order[column - 1]?.[0],
  }[e.key];
  if (to) {
    e.preventDefault();
    focus(svg, to() ?? current);
  } else if (e.key === "Enter" || e.key === " ") {
    e.preventDefault();
    node.dispatchEvent(new MouseEvent("click"));
  }
}
