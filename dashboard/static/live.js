// Keeps a page fresh: the server sends the parts of it that changed, as HTML that it has escaped. Without this script the
// page is as it was when it was loaded, and everything on it works.
"use strict";

const address = document.body.dataset.live;
const pulse = document.getElementById("pulse");
const away = document.getElementById("away");

function say(state, words) {
  pulse.hidden = false;
  pulse.dataset.state = state;
  pulse.textContent = words;
}

function warn(words) {
  away.textContent = words;
  away.hidden = !words;
}

// What somebody is reading or about to press stays as it is: open details stay open, and a part that holds the focus or
// a selection waits.
function isInUse(part) {
  const selection = document.getSelection();
  const selects = selection && !selection.isCollapsed && part.contains(selection.anchorNode);
  return selects || (part !== document.activeElement && part.contains(document.activeElement));
}

function replace(part, html) {
  const open = new Set(Array.from(part.querySelectorAll("details[open][id]"), (one) => one.id));
  const scrolled = Array.from(part.querySelectorAll(".scroll"), (one) => one.scrollLeft);
  part.innerHTML = html;
  for (const one of part.querySelectorAll("details[id]")) {
    one.open = open.has(one.id);
  }
  part.querySelectorAll(".scroll").forEach((one, at) => { one.scrollLeft = scrolled[at] || 0; });
}

const waiting = new Map();

function show() {
  for (const [id, html] of waiting) {
    const part = document.getElementById(id);
    if (part && isInUse(part)) {
      continue;
    }
    waiting.delete(id);
    if (part) {
      replace(part, html);
    }
  }
}

function follow() {
  const source = new EventSource(address + (location.search && !address.includes("?") ? location.search : ""));
  source.addEventListener("open", () => say("on", "live"));
  source.addEventListener("parts", (event) => {
    warn("");
    say("on", "live");
    for (const [id, html] of Object.entries(JSON.parse(event.data))) {
      waiting.set(id, html);
    }
    show();
  });
  source.addEventListener("away", (event) => {
    say("off", "not live");
    warn(`${JSON.parse(event.data)} This page shows what was known last.`);
  });
  source.addEventListener("gone", (event) => {
    source.close();
    say("off", "not live");
    warn(JSON.parse(event.data));
  });
  source.addEventListener("error", () => say("off", "reconnecting"));
  document.addEventListener("focusout", () => setTimeout(show, 0));
  addEventListener("pagehide", () => source.close());
}

// Actions that cannot be taken back are asked for twice.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) {
    event.preventDefault();
  }
});

if (address) {
  say("off", "connecting");
  follow();
}
