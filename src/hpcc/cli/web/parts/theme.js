// Lets a person choose light or dark instead of the system's colours.
const CHOICES = ["auto", "light", "dark"];
const root = document.documentElement;
const button = document.getElementById("theme");
// A year. The server reads it too, so that a page never comes in the other colours first.
const STAYS = "; Path=/; Max-Age=31536000; SameSite=Strict";

function show(choice) {
  if (choice === "auto") delete root.dataset.theme;
  else root.dataset.theme = choice;
  button.textContent = `Theme: ${choice}`;
}

show(root.dataset.theme ?? "auto");
button.hidden = false;
button.addEventListener("click", () => {
  const before = CHOICES.indexOf(root.dataset.theme ?? "auto");
  const choice = CHOICES[(before + 1) % CHOICES.length];
  document.cookie = `hpcc-theme=${choice}${STAYS}`;
  show(choice);
});
