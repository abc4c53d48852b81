// Keeps the page current: on each event of the customer, fetches the page anew and replaces the parts that changed.

const SETTLE_MS = 150;
const state = document.querySelector("[data-live-state]");
let timer = 0;
let refreshing = false;
let again = false;

function show(text, kind) {
  state.textContent = text;
  state.className = `live live-${kind}`;
}

function inUse(part) {
  return part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
}

async function refresh() {
  if (refreshing) {
    again = true;
    return;
  }
  refreshing = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected) {
      location.assign(answer.url);
      return;
    }
    if (!answer.ok) {
      show("Platform does not answer", "off");
      return;
    }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const newer = fresh.getElementById(part.id);
      if (newer && newer.innerHTML !== part.innerHTML && !inUse(part)) {
        part.replaceChildren(...newer.childNodes);
      }
    }
    show("Live", "on");
  } catch {
    show("Reconnecting…", "off");
  } finally {
    refreshing = false;
    if (again) {
      again = false;
      schedule();
    }
  }
}

function schedule() {
  clearTimeout(timer);
  timer = setTimeout(refresh, SETTLE_MS);
}

const since = encodeURIComponent(document.body.dataset.since);
const events = new EventSource(`/events?since=${since}`);
let wasOff = false;
events.addEventListener("open", () => {
  show("Live", "on");
  if (wasOff) schedule();
  wasOff = false;
});
events.addEventListener("error", () => {
  wasOff = true;
  show("Reconnecting…", "off");
});
events.addEventListener("change", schedule);
