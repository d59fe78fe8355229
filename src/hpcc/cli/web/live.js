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

function say(text) {
  // A status that is written again is read aloud again.
  if (state.textContent !== text) state.textContent = text;
}

function nameOf(element) {
  return element.getAttribute("href") ?? element.getAttribute("aria-label");
}

function show(text) {
  const scrolled = new Map();
  for (const part of main.querySelectorAll(".scroll")) scrolled.set(nameOf(part), part.scrollLeft);
  const focused = main.contains(document.activeElement) && document.activeElement !== main;
  const name = focused ? nameOf(document.activeElement) : null;
  main.innerHTML = policy.createHTML(text);
  for (const part of main.querySelectorAll(".scroll")) part.scrollLeft = scrolled.get(nameOf(part)) ?? 0;
  if (!focused) return;
  const candidates = [...main.querySelectorAll("a[href], [tabindex]")];
  (candidates.find((element) => nameOf(element) === name) ?? main).focus({ preventScroll: true });
}

async function ask() {
  // New content would take the field away in which somebody writes.
  if (main.contains(document.activeElement) && document.activeElement.matches("input")) return;
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
    tag = answer.headers.get("ETag") ?? "";
    show(text);
  } else if (answer.status !== 304) {
    throw new Error(`status ${answer.status}`);
  }
}

async function follow() {
  if (document.visibilityState === "visible") {
    try {
      await ask();
      pause = PAUSE;
      say("live");
    } catch {
      pause = Math.min(pause * 2, LONGEST);
      say("not live: hpcc web does not answer");
    }
  }
  setTimeout(follow, pause);
}

say("live");
setTimeout(follow, pause);
