// Keeps the page current: on each event of the customer, fetches the page again and replaces the parts that changed.

const DEBOUNCE_MS = 150;
const RETRY_MS = 2000;
const state = document.querySelector("[data-live-state]");
let timer = 0;
let refreshing = false;
let refreshAgain = false;
let updateSkipped = false; // because a part was in use
let lastSeen = document.body.dataset.after;
let disconnected = false; // from the event stream

function show(text, kind) {
  state.textContent = text;
  state.className = `live live-${kind}`;
}

function showStream() {
  if (disconnected) show("Reconnecting…", "off");
  else show("Live", "on");
}

function inUse(part) {
  return part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
}

function update(fresh) {
  updateSkipped = false;
  for (const part of document.querySelectorAll("[data-live]")) {
    const newer = fresh.getElementById(part.id);
    if (!newer || newer.innerHTML === part.innerHTML) continue;
    if (inUse(part)) {
      updateSkipped = true;
    } else {
      part.replaceChildren(...newer.childNodes);
    }
  }
}

async function refresh() {
  if (refreshing) {
    refreshAgain = true;
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
    if (refreshAgain) {
      refreshAgain = false;
      schedule(DEBOUNCE_MS);
    }
  }
}

function schedule(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(refresh, milliseconds);
}

function refreshIfSkipped() {
  if (updateSkipped) schedule(DEBOUNCE_MS);
}

function connect() {
  const events = new EventSource(`/events?after=${lastSeen}`);
  events.addEventListener("open", () => {
    if (disconnected) schedule(DEBOUNCE_MS);
    disconnected = false;
    showStream();
  });
  events.addEventListener("error", () => {
    disconnected = true;
    showStream();
    // A browser reconnects by itself after a broken connection, but not after an error response:
    // refreshing the page then shows the error, or redirects to the sign-in.
    if (events.readyState === EventSource.CLOSED) {
      schedule(RETRY_MS);
      setTimeout(connect, RETRY_MS);
    }
  });
  events.addEventListener("change", (event) => {
    lastSeen = event.lastEventId;
    schedule(DEBOUNCE_MS);
  });
}

document.addEventListener("focusout", refreshIfSkipped);
document.addEventListener("toggle", refreshIfSkipped, true); // toggle events do not bubble
connect();
