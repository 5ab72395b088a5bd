// The status page of a peer. All text goes in as text nodes, never as markup.
"use strict";

const SHOWN = 200;
const BAD = new Set(["learning failed", "refused", "equivocated", "fenced", "lost", "unlinked", "unreachable",
  "intake failed", "not measured", "corrupt", "disk", "silent"]);
const GOOD = new Set(["stop", "arrived", "measured", "merged"]);
const losses = new Map();  // walker -> losses after its stops, by seq
let last = 0;

const at = (id) => document.getElementById(id);
const brief = (id) => String(id).slice(0, 8);
const pause = (ms) => new Promise((wake) => setTimeout(wake, ms));

function make(tag, text = "", kind = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; count >= 1024 && unit < units.length - 1; unit += 1) count /= 1024;
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
}

function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 86400 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
}

class Unauthorised extends Error {}

async function get(path) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store" });
  if (answer.status === 401) throw new Unauthorised();
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error);
  return value;
}

// columns: [title, value of a row, class]; a value is text or an element
function table(id, rows, columns, none) {
  if (!rows.length) return at(id).replaceChildren(make("p", none, "none"));
  const element = make("table");
  const head = element.createTHead().insertRow();
  for (const [title, , kind] of columns) head.append(make("th", title, kind));
  const body = element.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const [, value, kind] of columns) {
      const cell = make("td", "", kind);
      cell.append(value(row));
      line.append(cell);
    }
  }
  return at(id).replaceChildren(element);
}

function curve(walker) {
  const points = [...(losses.get(walker) ?? new Map())].sort((a, b) => a[0] - b[0]);
  if (points.length < 2) return "";
  const top = Math.max(...points.map(([, loss]) => loss)) || 1;
  const place = ([, loss], i) => `${(100 * i) / (points.length - 1)},${21 - (19 * loss) / top}`;
  const [svg, line] = ["svg", "polyline"].map((tag) =>
    document.createElementNS("http://www.w3.org/2000/svg", tag));
  svg.setAttribute("viewBox", "0 0 100 22");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `loss, now ${points.at(-1)[1].toPrecision(3)}`);
  line.setAttribute("points", points.map(place).join(" "));
  svg.append(line);
  return svg;
}

function resident(told) {
  const ago = told.taught ? `, the last ${span(Date.now() / 1000 - told.taught)} ago` : "";
  const taught = told.lessons ? `${told.lessons} lessons${ago}` : "not taught yet";
  return `${told.recipe.zoo ?? "own model"}, ${bytes(told.bytes)}, ${taught}`;
}

function showFacts(status) {
  const carried = Object.values(status.bytes).reduce((sum, count) => sum + count, 0);
  const holdings = Object.entries(status.holdings).map(([name, n]) => `${name} (${n})`);
  const facts = [
    ["network", status.network], ["address", status.address], ["version", status.version],
    ["up", span(status.uptime_s)], ["carried", bytes(carried)],
    ["objects kept", String(status.objects)], ["store", status.store],
    ["holds", holdings.join(", ") || "nothing: a relay"],
    ...(status.resident ? [["resident", resident(status.resident)]] : []),
    ["peer id", status.peer, "wide"], ["join line", status.join, "wide"],
  ];
  at("facts").replaceChildren(...facts.map(([name, value, kind = ""]) => {
    const box = make("div", "", kind);
    box.append(make("dt", name), make("dd", value));
    return box;
  }));
}

function show(status) {
  document.title = `MFD ${brief(status.peer)}`;
  at("short").textContent = brief(status.peer);
  showFacts(status);
  table("walkers", status.walkers, [
    ["walker", (w) => brief(w.walker)], ["mode", (w) => w.mode], ["role here", (w) => w.role],
    ["activity", (w) => w.activity, "phrase"],
    ["lap", (w) => `${Math.min(w.lap + 1, w.laps)} of ${w.laps}`, "number"],
    ["hop", (w) => String(w.hop), "number"], ["version", (w) => String(w.seq), "number"],
    ["loss by stop", (w) => curve(w.walker)],
  ], "none here: send one with mfd send");
  table("links", status.links, [
    ["peer", (l) => brief(l.peer)], ["address", (l) => l.address],
    ["dialled by", (l) => (l.outbound ? "this peer" : "the other")],
    ["cost", (l) => `${(l.cost / 100).toFixed(2)} ms`, "number"],
    ["silent", (l) => `${(l.silent_us / 1e6).toFixed(1)} s`, "number"],
  ], "none: this peer is alone");
  table("dropped", status.members.dropped.slice().reverse(), [
    ["peer", (d) => brief(d.peer)], ["address", (d) => d.address],
    ["ago", (d) => span(d.ago_us / 1e6), "number"], ["why", (d) => d.reason, "phrase"],
  ], "none so far");
  table("routes", status.routes, [
    ["data", (r) => (r.name.startsWith("@") ? r.name.slice(0, 9) : r.name)],
    ["holder", (r) => brief(r.holder)],
    ["via", (r) => (r.via ? brief(r.via) : "this peer")],
    ["metric", (r) => `${(r.metric / 100).toFixed(2)} ms`, "number"],
    ["hops", (r) => String(r.hops), "number"], ["samples", (r) => String(r.samples), "number"],
  ], "none: no holder of data is known");
}

const short = (number) => (typeof number === "number" ? number.toPrecision(4) : "-");
const PHRASES = {
  stop: (r) => `${r.clients ? `${r.clients} clients` : brief(r.peer)}  lap ${r.lap}/${r.laps}  ` +
    `layers ${r.layers}  loss ${short(r.loss_before)} to ${short(r.loss)}  ` +
    `came ${bytes(r.came_bytes)}  in ${short(r.seconds)} s`,
  measured: (r) => `after lap ${r.lap} by ${brief(r.by)}: loss ${short(r.loss)}` +
    ("accuracy" in r ? `, accuracy ${short(r.accuracy)}` : ""),
  chosen: (r) => `${brief(r.peer)} to ${brief(r.target)}: ${r.reason}`,
  part: (r) => `${brief(r.peer)} to ${brief(r.target)}: ${r.reason}`,
  handed: (r) => `${brief(r.source)} to ${brief(r.target)}: ${bytes(r.sent_bytes)} ` +
    `in ${short(r.seconds)} s, hop ${r.hop}`,
  merged: (r) => `${brief(r.peer)}  ` +
    (r.with ? `itself (weight ${short(r.own)}) with ${r.with}` : "with nobody") +
    (r.left_out ? `; left out: ${r.left_out}` : ""),
  skipped: (r) => r.reason,
  parked: (r) => `at ${brief(r.peer)}: ${r.reason}`,
  arrived: (r) => `home after ${r.stops} stops, version ${r.seq}` +
    (r.siblings ? `, with what ${r.siblings} siblings have learned` : ""),
};

function phrase(report) {
  const known = PHRASES[report.kind];
  if (known) return `${brief(report.walker)}  ${known(report)}`;
  const skip = new Set(["n", "at", "kind"]);
  const told = (key, value) => {
    if (typeof value === "string" && /^[0-9a-f]{64}$/.test(value)) return brief(value);
    if (key.endsWith("_bytes")) return bytes(value);
    if (key === "address") return String(value).replace(/^mfd:\/\/([^/]+).*$/, "$1");
    return typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(4) : value;
  };
  return Object.entries(report).filter(([key]) => !skip.has(key))
    .map(([key, value]) => `${key} ${told(key, value)}`).join("  ");
}

function add(report) {
  if (report.kind === "stop" && typeof report.loss === "number") {
    if (!losses.has(report.walker)) losses.set(report.walker, new Map());
    losses.get(report.walker).set(report.seq, report.loss);
  }
  const line = make("li");
  const kind = BAD.has(report.kind) ? "bad" : GOOD.has(report.kind) ? "good" : "";
  line.append(make("time", new Date(1000 * report.at).toLocaleTimeString()),
    make("b", report.kind, kind), make("span", phrase(report)));
  at("reports").prepend(line);
  while (at("reports").childElementCount > SHOWN) at("reports").lastElementChild.remove();
}

function ask() {
  at("token").hidden = false;
  return new Promise((opened) => {
    at("token").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem("token", at("token").querySelector("input").value);
      at("token").hidden = true;
      opened();
    };
  });
}

async function watch() {
  for (let wait = 0; ; wait = 5) {
    try {
      const told = await get(`/api/reports?after=${last}&wait=${wait}`);
      const status = await get("/api/status");
      told.reports.forEach(add);
      last = told.last;
      show(status);
      at("state").textContent = "live";
      at("state").className = "live";
      await pause(300);
    } catch (error) {
      at("state").className = "lost";
      const locked = error instanceof Unauthorised;
      at("state").textContent = locked ? "locked" : "no answer, trying again";
      if (locked) await ask();
      else await pause(2000);
      last = 0;  // a peer that has started anew may number its reports anew
      at("reports").replaceChildren();
    }
  }
}

watch();
