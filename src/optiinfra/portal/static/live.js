// Keeps the page current: on each event of the customer, fetches the page anew and replaces the parts that changed.

const SETTLE_MS = 150;
const RETRY_MS = 2000;
const state = document.querySelector("[data-live-state]");
let timer = 0;
let refreshing = false;
let again = false;
let owed = false; // a part changed while it was in use
let lastSeen = document.body.dataset.after;
let cutOff = false; // from the stream of events

function show(text, kind) {
  state.textContent = text;
  state.className = `live live-${kind}`;
}

function showStream() {
  if (cutOff) show("Reconnecting…", "off");
  else show("Live", "on");
}

function inUse(part) {
  return part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
}

function update(fresh) {
  owed = false;
  for (const part of document.querySelectorAll("[data-live]")) {
    const newer = fresh.getElementById(part.id);
    if (!newer || newer.innerHTML === part.innerHTML) continue;
    if (inUse(part)) {
      owed = true;
    } else {
      part.replaceChildren(...newer.childNodes);
    }
  }
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
      schedule(RETRY_MS);
      return;
    }
    update(new DOMParser().parseFromString(await answer.text(), "text/html"));
    showStream();
  } catch {
    show("Reconnecting…", "off");
  } finally {
    refreshing = false;
    if (again) {
      again = false;
      schedule(SETTLE_MS);
    }
  }
}

function schedule(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(refresh, milliseconds);
}

function payOff() {
  if (owed) schedule(SETTLE_MS);
}

function connect() {
  const events = new EventSource(`/events?after=${lastSeen}`);
  events.addEventListener("open", () => {
    if (cutOff) schedule(SETTLE_MS);
    cutOff = false;
    showStream();
  });
  events.addEventListener("error", () => {
    cutOff = true;
    showStream();
    // A browser comes back by itself to a stream that broke off, but not after an answer that was none:
    // the page then says what is wrong, or leads to the sign-in.
    if (events.readyState === EventSource.CLOSED) {
      schedule(RETRY_MS);
      setTimeout(connect, RETRY_MS);
    }
  });
  events.addEventListener("change", (event) => {
    lastSeen = event.lastEventId;
    schedule(SETTLE_MS);
  });
}

document.addEventListener("focusout", payOff);
document.addEventListener("toggle", payOff, true); // it does not bubble
connect();
