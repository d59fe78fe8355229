// Puts new content of a live page in place. Without this script the page is complete, but stands.
const PAUSE = 2000;
const LONGEST = 60000;
const main = document.querySelector("main[data-live]");
const state = document.getElementById("live");
// The only policy that the header allows, and its only use: the server escapes all text.
const types = window.trustedTypes ?? { createPolicy: (_, rules) => rules };
const policy = types.createPolicy("hpcc", { createHTML: (text) => text });
let tag = main.dataset.live;
let pause = PAUSE;
const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";

function say(text) {
  // A status that is written again is read aloud again.
  if (state.textContent !== text) state.textContent = text;
}

function nameOf(element) {
  const names = ["href", "aria-label", "name"].map((name) => element.getAttribute(name));
  return names.find((name) => name !== null) ?? element.textContent;
}

// A page may have several links to one place: the one that had the focus is told by its number.
function alike(name) {
  return [...main.querySelectorAll(FOCUSABLE)].filter((element) => nameOf(element) === name);
}

function show(text) {
  const scrolled = new Map();
  for (const part of main.querySelectorAll(".scroll")) scrolled.set(nameOf(part), part.scrollLeft);
  const focused = main.contains(document.activeElement) && document.activeElement !== main;
  const name = focused ? nameOf(document.activeElement) : null;
  const number = focused ? alike(name).indexOf(document.activeElement) : 0;
  main.innerHTML = policy.createHTML(text);
  for (const part of main.querySelectorAll(".scroll")) part.scrollLeft = scrolled.get(nameOf(part)) ?? 0;
  if (!focused) return;
  const found = alike(name);
  (found[number] ?? found[0] ?? main).focus({ preventScroll: true });
}

// New content would undo what somebody wrote or chose and has not sent.
function isFilledIn() {
  const form = document.activeElement?.closest("form");
  return Boolean(form) && main.contains(form);
}

async function ask() {
  const address = new URL(location.href);
  address.searchParams.set("live", "1");
  const answer = await fetch(address, {
    headers: { "If-None-Match": tag },
    cache: "no-store",
    redirect: "error",
    signal: AbortSignal.timeout(LONGEST),
  });
  if (answer.status === 200) {
    const text = await answer.text();
    // The answer may have come while somebody went to a form.
    if (isFilledIn()) return;
    tag = answer.headers.get("ETag") ?? "";
    show(text);
  } else if (answer.status !== 304) {
    throw new Error(`status ${answer.status}`);
  }
}

async function follow() {
  if (document.visibilityState === "visible") {
    try {
      if (!isFilledIn()) await ask();
      pause = PAUSE;
      say(isFilledIn() ? "paused: a form has the focus" : "live");
    } catch {
      pause = Math.min(pause * 2, LONGEST);
      say("not live: hpcc web does not answer");
    }
  }
  setTimeout(follow, pause);
}

say("live");
setTimeout(follow, pause);
