// Small things on top of pages that work without: live parts, local times, tables that are searched, keys.
"use strict";

const date = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });

const localTimes = (root) => {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = time.dateTime;
      time.textContent = date.format(at);
    }
  }
};

// What does not fit its place is scrolled, by keys too.
const BOXES = ".scroll, pre";
const reachable = (root) => {
  for (const box of root.querySelectorAll(BOXES)) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
  }
};

const search = () => {
  const field = document.querySelector("input[data-search]");
  if (!field) return;
  // What the service looked for itself, it found: also where a row does not say why.
  const typed = field.value === field.defaultValue ? "" : field.value;
  const wanted = typed.trim().toLowerCase();
  for (const row of document.querySelectorAll("table.searched tbody tr")) {
    row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
  }
};

// Parts in which somebody is typing, or about to confirm something, stay as they are.
const busy = (part) => (part.contains(document.activeElement) && !document.activeElement.matches(BOXES))
  || part.querySelector("details.confirm[open]") !== null;

// What the service said last of each part; here times are local since, and boxes reachable.
const told = new Map();

const parts = () => document.querySelectorAll("[data-live]");

// Writes what is new into a node whose twins are what was said of it before and now. Only that is touched, so that boxes
// stay scrolled and large pages stay quick.
const write = (node, before, now) => {
  const [nodes, befores, nows] = [node, before, now].map((twin) => [...twin.childNodes]);
  if (nodes.length !== nows.length || befores.length !== nows.length) {
    node.replaceChildren(...nows.map((one) => one.cloneNode(true)));
    localTimes(node);
    return;
  }
  nows.forEach((one, index) => {
    const last = befores[index];
    if (last.isEqualNode(one)) return;
    if (one.childNodes.length > 0 && last.cloneNode(false).isEqualNode(one.cloneNode(false))) {
      write(nodes[index], last, one);
      if (one.nodeName === "TIME") localTimes(node);
    } else {
      const fresh = one.cloneNode(true);
      nodes[index].replaceWith(fresh);
      if (fresh.querySelectorAll) localTimes(node);
    }
  });
};

const put = (part, now) => {
  const log = part.querySelector("pre.log");
  const atEnd = log && log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  write(part, told.get(part.id), now);
  told.set(part.id, now);
  search();
  reachable(part);
  if (atEnd && log.isConnected) log.scrollTop = log.scrollHeight;
};

// A large page is put together in pieces, so that keys and clicks are heard in between.
const breathe = () => new Promise((resolve) => { setTimeout(resolve); });

let refreshing = false;
let again = false;

const refresh = async () => {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    const answer = await fetch(location.href.replace(/[?&]told=[^&]*/, ""), { headers: { accept: "text/html" } });
    if (answer.redirected) { location.reload(); return; }
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of parts()) {
      const now = fresh.getElementById(part.id);
      if (now && !now.isEqualNode(told.get(part.id)) && !busy(part)) {
        put(part, now);
        await breathe();
      }
    }
  } catch (error) {
    // The service cannot be reached; the light says so.
    if (!(error instanceof TypeError)) throw error;
  } finally {
    refreshing = false;
    if (again) { again = false; setTimeout(refresh, 500); }
  }
};

// Only a page that is looked at listens: browsers hold few connections to one service, and one behind others can wait.
const listen = () => {
  const light = document.getElementById("live");
  if (!light || !document.querySelector("[data-live]")) return;
  let source = null;
  const close = () => { source?.close(); source = null; light.classList.remove("on"); };
  const attend = () => {
    if (document.hidden) { close(); return; }
    if (source) return;
    source = new EventSource(new URL("live", document.baseURI));
    // Of what happened since this page was made, or while nobody listened, nothing more is told.
    source.onopen = () => { light.classList.add("on"); refresh(); };
    source.onmessage = refresh;
    source.onerror = () => {
      light.classList.remove("on");
      if (source?.readyState !== EventSource.CLOSED) return;
      // It does not come back by itself: perhaps whoever looks is no longer signed in.
      close();
      refresh();
      setTimeout(attend, 5000);
    };
  };
  document.addEventListener("visibilitychange", attend);
  attend();
};

// What would be refused for its size need not be sent first.
const weigh = (field) => {
  const bytes = [...field.files].reduce((sum, file) => sum + file.size, 0);
  const most = Number(field.dataset.most);
  field.setCustomValidity(bytes > most ? `These are ${Math.ceil(bytes / 2 ** 20)} MiB, and ${most / 2 ** 20} MiB fit here.` : "");
  field.reportValidity();
};

document.addEventListener("input", (event) => { if (event.target.matches("input[data-search]")) search(); });
document.addEventListener("change", (event) => { if (event.target.matches("input[data-most]")) weigh(event.target); });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
    const field = document.querySelector("input[data-search]");
    if (field) { event.preventDefault(); field.focus(); }
  }
  if (event.key === "Escape") {
    for (const open of document.querySelectorAll("details.confirm[open]")) open.open = false;
  }
});

document.addEventListener("toggle", () => reachable(document), true);
window.addEventListener("resize", () => reachable(document));

for (const part of parts()) told.set(part.id, part.cloneNode(true));
localTimes(document);
search();
reachable(document);
listen();
