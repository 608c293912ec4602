// What is seen and announced of the state: its name, a sign, a colour, and what can be done now.
import { limits } from "../service.js";

const $ = (id) => document.getElementById(id);
const NAMES = {
  off: ["Ready", "Press Start talking and just speak."],
  paused: ["Microphone off", "Start talking, or write: it goes on where you were."],
  connecting: ["Connecting", "One moment."],
  reconnecting: ["Reconnecting", "The connection was lost for a moment."],
  allowing: ["May it listen?", "Your browser asks whether this page may use the microphone."],
  listening: ["Listening", "Just speak."],
  muted: ["Muted", "It hears nothing until you unmute."],
  thinking: ["Thinking", "One moment."],
  speaking: ["Speaking", "Speak over it, or press the circle, to stop it."],
  interrupted: ["Interrupted", "Go on."],
};
// Where there is no microphone.
const WITHOUT = {
  off: ["Ready", "Write, and it answers aloud."],
  paused: ["Ready", "Write, and it answers aloud."],
  speaking: ["Speaking", "Press the circle to stop it."],
};
const LOOKS = { paused: "off", reconnecting: "connecting", allowing: "connecting" };

export class Stage {
  constructor() {
    this.writing = false; // there is no microphone
    $("live-text").maxLength = limits.text_chars;
  }

  // problem: what keeps it from going on; note: what is worth saying, though it goes on; talking: the microphone is
  // open; empty: nothing has been said.
  show(state, { problem, note, talking, muted, empty }) {
    const busy = ["connecting", "reconnecting", "allowing"].includes(state);
    tell("live-start", busy ? "Cancel" : talking ? "Stop" : problem?.action || "Start talking");
    $("live-mute").disabled = !talking;
    $("live-mute").setAttribute("aria-pressed", String(muted));
    $("live-new").disabled = $("live-save").disabled = empty;
    $("stage").dataset.state = LOOKS[state] || state;
    $("live-orb").disabled = state !== "speaking";
    const names = this.writing && LOOKS[state] !== "connecting" ? { ...NAMES, ...WITHOUT } : NAMES;
    const [name, detail] = state === "problem" ? [problem.title || "It does not go on", ""] : names[state];
    tell("live-state", name);
    tell("live-detail", detail);
    tell("live-problem", problem ? problem.message : note);
  }

  caption(text) {
    const sentences = text.match(/[^.!?]+[.!?]*\s*/g) || [];
    let shown = sentences.pop() || "";
    while (sentences.length && shown.length + sentences.at(-1).length < 80) shown = sentences.pop() + shown;
    $("live-caption").textContent = shown.length > 110 ? `… ${shown.slice(-100).replace(/^\S*\s/, "")}` : shown;
  }

  level(level) {
    $("stage").style.setProperty("--level", level.toFixed(2));
  }
}

// Only what is new is announced.
function tell(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}
