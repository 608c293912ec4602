// How fast a conversation is, as the server and this page measure it; seen under Details.
import { Waveform } from "./waveform.js";

const LOUD = 0.02; // of the microphone: somebody speaks
const PAUSE_S = 0.3; // after which another voice begins

export class Figures {
  constructor() {
    this.turns = []; // of each answer
    this.level = 0; // of the microphone
    this.loudUntil = -Infinity; // in the context's time
    this.loudSince = null;
    this.waveform = new Waveform(document.getElementById("live-waveform"));
  }

  heard(began, ended, level) {
    this.level = level;
    if (level <= LOUD) return;
    if (began - this.loudUntil > PAUSE_S) this.loudSince = began;
    this.loudUntil = ended;
  }

  answering(timings) {
    this.turns.push({});
    for (const name of ["endpoint", "compute", "first"]) this.note(name, timings[`${name}_ms`]);
    this.note("page", undefined);
  }

  // From the user's last loud sample to the answer's first.
  audible(at) {
    if (this.turns.length && this.loudUntil > 0) this.note("page", 1000 * (at - this.loudUntil));
  }

  // From the interrupting voice to the last sample of the answer.
  interrupted(until) {
    if (this.loudSince !== null) this.note("stop", 1000 * Math.max(0, until - this.loudSince));
  }

  note(name, ms, figure = this.turns.at(-1)) {
    if (figure) figure[name] = ms;
    document.getElementById(name === "stop" ? "live-stop-ms" : `live-${name}`).textContent = ms === undefined || ms === null ? "–" : `${Math.round(ms)} ms`;
  }

  show(heard, said) {
    this.waveform.push(heard, said);
    this.waveform.draw(performance.now());
  }
}
