// Asks for what is shown, every second while the page is seen, and has the server do what is pressed.
import {bytes, element, keyed, number, set, text} from "./dom.js";
import {drawGraph} from "./graph.js";
import {drawContainers, drawFlows, drawQuestions, drawRefusals} from "./tables.js";

const every = 1000; // milliseconds
const key = sessionStorage.getItem("usernet-key") ?? "";
const find = id => document.getElementById(id);

let view = null, chosen = null, paused = false, ended = false;

function say(words) {
  text(find("alarm"), "");
  text(find("said"), words);
}

function alarm(words) {
  text(find("said"), "");
  text(find("alarm"), words);
}

async function ask(path, body) {
  const o = {headers: {"Usernet-Key": key}};
  if (body) {
    o.method = "POST";
    o.headers["Content-Type"] = "application/json";
    o.body = JSON.stringify(body);
  }
  const answer = await fetch(path, o);
  const value = await answer.json();
  if (answer.status === 401) {
    ended = true;
  }
  if (!answer.ok) {
    throw new Error(value.message);
  }
  return value;
}

let asking = false, failed = false;

async function refresh() {
  if (asking || ended) {
    return;
  }
  asking = true;
  try {
    view = await ask("data");
    if (failed) {
      say("The daemon answers again.");
    }
    failed = false;
    draw();
  } catch (e) {
    if (!failed || ended) {
      alarm(e instanceof TypeError ? "usernet dashboard does not answer: was it ended?" : e.message);
    }
    failed = true;
  }
  asking = false;
}

// wanted says whether something with these texts is to be shown.
function wanted(container, networks, ...texts) {
  if (chosen?.kind === "container" && container !== chosen.name ||
      chosen?.kind === "network" && !networks.includes(chosen.name)) {
    return false;
  }
  const filter = find("filter").value.trim().toLowerCase();
  return filter === "" || [container, ...networks, ...texts].some(t => String(t ?? "").toLowerCase().includes(filter));
}

function draw() {
  if (!view) {
    return;
  }
  const sum = what => view.containers.reduce((n, c) => n + c[what], 0);
  const left = Object.entries(view.left).map(([kind, n]) => `, ${n} more ${kind}`).join("");
  text(find("summary"), `${number(view.containers.length, "container")}, ${number(view.flows.length, "flow")}, ` +
    `in ${bytes(sum("in"))}/s, out ${bytes(sum("out"))}/s${left}${paused ? ", paused" : ""}`);
  if (chosen && !view[`${chosen.kind}s`].some(n => n.name === chosen.name)) {
    chosen = null;
  }
  find("chosen").hidden = !chosen;
  text(find("chosen").firstElementChild, chosen ? `Only what belongs to ${chosen.kind} ${chosen.name} is shown.` : "");
  drawGraph(find("graph"), view, chosen, choose);
  const on = new Map(view.containers.map(c => [c.name, c.endpoints.map(e => e.network)]));
  drawContainers(view.containers.filter(c => wanted(c.name, on.get(c.name), c.status, ...c.ports.map(p => p.host))), act);
  drawFlows(view.flows.filter(f => wanted(f.container, [f.network], f.proto, f.peer, f.outside, f.state)), view.time, act);
  drawRefusals(view.refusals.filter(r => wanted(r.container, [r.network], r.peer, r.destination, r.rule)), view.time);
  drawQuestions(view.questions.filter(q => wanted(q.container, on.get(q.container) ?? [], q.name, q.source)), view.time);
  const running = view.containers.filter(c => c.status === "running").map(c => c.name);
  options(find("connect-container"), running);
  options(find("publish-container"), running);
  drawConnectable();
}

// drawConnectable offers the networks that the container to be connected is not on.
function drawConnectable() {
  const container = view?.containers.find(c => c.name === find("connect-container").value);
  const on = container?.endpoints.map(e => e.network) ?? [];
  options(find("connect-network"), (view?.networks ?? []).map(n => n.name).filter(n => !on.includes(n)));
}

function options(select, names) {
  keyed(select, names, n => n, n => element("option", {value: n}, n), () => {});
}

function choose(kind, name) {
  chosen = chosen?.kind === kind && chosen.name === name ? null : {kind, name};
  say(chosen ? `Only what belongs to ${kind} ${name} is shown.` : "Everything is shown.");
  draw();
}

// answer gives the question that is asked its answer.
let answer = () => {};

// confirmed asks the user. The dialog keeps the focus within and gives it back.
function confirmed(question, verb) {
  const dialog = find("confirm");
  answer(dialog.returnValue === "do"); // to a question whose dialog was closed and whose event has not come yet
  text(find("confirm-title"), question);
  text(find("confirm-do"), verb);
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise(done => {
    answer = done;
  });
}

// act does an operation, once the user has confirmed it where there is a question, and says what came of it. The focus
// goes to the section's title where what had it is gone.
async function act(operation, body, question, verb, done) {
  const section = document.activeElement.closest("section");
  if (question && !await confirmed(question, verb)) {
    return false;
  }
  try {
    await ask(`do/${operation}`, body);
  } catch (e) {
    alarm(e.message);
    return false;
  }
  await new Promise(r => setTimeout(r, every)); // the server has nothing newer before
  await refresh();
  say(`${done}.`);
  if (document.activeElement === document.body) {
    section?.querySelector("h2").focus();
  }
  return true;
}

// The event comes some time after the dialog was closed: by then it may be open for another question.
find("confirm").addEventListener("close", e => {
  if (!e.target.open) {
    answer(e.target.returnValue === "do");
  }
});
find("connect-container").addEventListener("change", drawConnectable);
find("connect").addEventListener("submit", e => {
  e.preventDefault();
  const container = find("connect-container").value, network = find("connect-network").value;
  act("connect", {container, network}, null, null, `${container} is connected to ${network}`);
});
find("publish").addEventListener("submit", async e => {
  e.preventDefault();
  const container = find("publish-container").value, port = find("publish-port").value.trim();
  if (await act("publish", {container, port}, null, null, `${port} of ${container} is published`)) {
    find("publish-port").value = "";
  }
});
find("filter").addEventListener("input", draw);
find("all").addEventListener("click", () => {
  chosen = null;
  say("Everything is shown.");
  draw();
  find("map-title").focus();
});
find("pause").addEventListener("click", () => {
  paused = !paused;
  set(find("pause"), "aria-pressed", String(paused));
  draw();
});

setInterval(() => {
  if (!paused && !document.hidden) {
    refresh();
  }
}, every);
refresh();
