// Small things on top of pages that work without: live parts, local times, tables that are searched, keys.
"use strict";

const localTimes = (root) => {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = time.dateTime;
      time.textContent = at.toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
    }
  }
};

const search = () => {
  const field = document.querySelector("input[data-search]");
  if (!field) return;
  const wanted = field.value.trim().toLowerCase();
  for (const row of document.querySelectorAll("table.searched tbody tr")) {
    row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
  }
};

// Parts in which somebody is typing, or about to confirm something, stay as they are.
const busy = (part) => part.contains(document.activeElement) && document.activeElement !== document.body
  || part.querySelector("details.confirm[open]") !== null;

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
    localTimes(fresh);
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other && !busy(part) && other.innerHTML !== part.innerHTML) {
        const log = part.querySelector("pre.log");
        const atEnd = log && log.scrollHeight - log.scrollTop - log.clientHeight < 40;
        const open = [...part.querySelectorAll("details[id][open]")].map((details) => details.id);
        part.replaceChildren(...other.childNodes);
        for (const id of open) document.getElementById(id)?.setAttribute("open", "");
        const now = part.querySelector("pre.log");
        if (now && atEnd) now.scrollTop = now.scrollHeight;
      }
    }
    search();
  } finally {
    refreshing = false;
    if (again) { again = false; setTimeout(refresh, 500); }
  }
};

const listen = () => {
  const light = document.getElementById("live");
  if (!light || !document.querySelector("[data-live]")) return;
  const source = new EventSource(new URL("live", document.baseURI));
  source.onopen = () => light.classList.add("on");
  source.onerror = () => light.classList.remove("on");
  source.onmessage = () => { if (!document.hidden) refresh(); else again = true; };
  document.addEventListener("visibilitychange", () => { if (!document.hidden && again) { again = false; refresh(); } });
};

document.addEventListener("input", (event) => { if (event.target.matches("input[data-search]")) search(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
    const field = document.querySelector("input[data-search]");
    if (field) { event.preventDefault(); field.focus(); }
  }
  if (event.key === "Escape") {
    for (const open of document.querySelectorAll("details.confirm[open]")) open.open = false;
  }
});

localTimes(document);
search();
listen();
