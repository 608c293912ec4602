// Begins both tabs, and changes between them, by the mouse and by the arrow keys.
import { Conversation } from "./live/conversation.js";
import { Recordings } from "./recordings.js";

const tabs = [...document.querySelectorAll('[role="tab"]')];
const live = (window.duologue = new Conversation());
const recordings = (window.recordings = new Recordings());

// What listens in a tab that is left listens no more.
function select(chosen) {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
  if (chosen.id === "tab-live") recordings.leave();
  else live.leave();
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return;
    const next = tabs[(i + (key === "ArrowRight" ? 1 : -1) + tabs.length) % tabs.length];
    select(next);
    next.focus();
  });
});
for (const each of document.querySelectorAll("[data-later]")) each.disabled = false; // until now nothing would have come of them
live.begun();
recordings.begun();
