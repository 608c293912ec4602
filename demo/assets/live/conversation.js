// The live conversation: a client of /v1/realtime like any other, with the browser's microphone and loudspeaker.
import { RATE, Speaker, noMicrophone, openMicrophone, pcmOf } from "../sound.js";
import { Problem, base64Of, samplesOfBase64 } from "../service.js";
import { Captions } from "./captions.js";
import { Connection } from "./connection.js";
import { Devices, remember, remembered } from "./devices.js";
import { Figures } from "./figures.js";
import { hold } from "./one_tab.js";
import { Stage } from "./stage.js";
import { Transcript } from "./transcript.js";

const $ = (id) => document.getElementById(id);
const TICK_MS = 40;
const PAUSE_S = 0.4; // of quiet, after which who spoke seems to have finished
const CUT_MS = 1200; // for so long at least it is seen that an answer was interrupted
const LATE_MS = 500; // to wait for a loudspeaker that a browser may never allow
const HISTORY = 100; // items that a new session is told of
const TRIES_MS = [300, 1000, 2000, 4000]; // to connect again, before a lost connection is given up

export class Conversation {
  constructor() {
    this.stage = new Stage();
    this.transcript = new Transcript($("live-transcript"), $("model").textContent);
    this.captions = new Captions((item, text) => this.said(item, text));
    this.measured = new Figures();
    this.connection = new Connection({
      begun: () => this.opened(),
      happened: (event) => this.happened(event),
      lost: (problem) => this.lost(problem),
    });
    this.devices = new Devices($("live-input"), $("live-output"), (kind) => this.another(kind));
    this.silenced = new Set(); // answers of which no more is to be heard
    this.forgotten = new Set(); // items of a conversation that is over
    this.microphone = this.problem = this.response = this.asked = null;
    this.step = this.note = ""; // on the way to a conversation; what is worth saying, though it goes on
    this.cutUntil = this.level = 0;
    for (const [name, usual] of [["policy", "auto"], ["voice", $("live-voice").value]]) {
      const list = $(`live-${name}`);
      list.value = remembered()[name] || usual;
      if (!list.value) list.value = usual;
      list.addEventListener("change", () => {
        remember({ [name]: list.value });
        this.configure();
      });
    }
    $("live-start").addEventListener("click", () => (this.step || this.microphone ? this.end() : this.start()));
    $("live-mute").addEventListener("click", () => this.mute());
    $("live-new").addEventListener("click", () => this.forget());
    $("live-save").addEventListener("click", () => this.transcript.save());
    $("live-orb").addEventListener("click", () => this.interrupt());
    document.addEventListener("keydown", ({ key }) => key === "Escape" && this.state === "speaking" && this.interrupt());
    $("live-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    addEventListener("pagehide", () => this.end());
    const why = noMicrophone();
    $("live-no-microphone").textContent = why;
    $("live-no-microphone").hidden = !why;
    this.stage.writing = Boolean(why);
    setInterval(() => this.tick(), TICK_MS);
    this.tick();
  }

  // Once the page can be used.
  begun() {
    $("live-start").disabled = this.stage.writing;
  }

  // To the other tab.
  leave() {
    if (this.step || this.microphone || this.response) this.end();
  }

  get played() {
    return this.speaker ? this.speaker.played : new Map(); // by item id: samples
  }

  get figures() {
    return this.measured.turns;
  }

  get state() {
    if (this.step) return this.step;
    if (this.problem) return "problem";
    if (performance.now() < this.cutUntil) return "interrupted";
    const loud = this.microphone && this.context.currentTime - this.measured.loudUntil < PAUSE_S;
    if (this.speaker?.audible || (this.response?.audible && !loud)) return "speaking";
    if (this.asked || (this.response && !this.response.audible) || (this.turnOpen && !loud)) return "thinking";
    if (this.microphone) return this.muted ? "muted" : "listening";
    return this.talked && !this.transcript.empty ? "paused" : "off";
  }

  tick() {
    const { state, speaker } = this;
    this.captions.follow(this.played, this.context?.state !== "running");
    const said = speaker ? speaker.level : 0;
    const heard = this.microphone && !this.muted ? this.measured.level : 0;
    this.measured.show(3 * heard, said);
    const level = state === "speaking" ? 1.6 * said : state === "listening" ? 6 * heard : 0;
    this.level += (Math.min(1, level) - this.level) * (level > this.level ? 0.6 : 0.25);
    this.stage.level(this.level);
    const { problem, note, muted } = this;
    this.stage.show(state, { problem, note, muted, talking: Boolean(this.microphone), empty: this.transcript.empty });
  }

  // Beginning and ending.

  async start() {
    const steal = Boolean(this.problem?.steal);
    const attempt = (this.attempt = {});
    const over = () => this.attempt !== attempt;
    this.begin("connecting");
    try {
      const sounding = this.sound(); // what it waits for may be this very click
      const release = await hold(steal, () => this.yielded());
      if (!release) throw elsewhere("Listening in another tab", "This page has the microphone in another tab.");
      if (over()) return release();
      this.release = release;
      await this.connection.ready(steal ? 5000 : 0);
      await sounding;
      if (over()) return;
      const slow = setTimeout(() => over() || (this.step = "allowing"), 400);
      const microphone = await this.listen().finally(() => clearTimeout(slow));
      if (over()) return microphone.close();
      this.microphone = microphone;
      this.muted = false;
      this.talked = true;
      this.devices.refresh();
      this.wake = navigator.wakeLock?.request("screen").catch(() => null); // a phone would fall asleep
      this.step = "";
    } catch (problem) {
      if (over()) return;
      this.end();
      this.problem = problem;
    }
    this.tick();
  }

  begin(step) {
    this.problem = null;
    this.note = "";
    this.step = step;
    this.tick();
  }

  listen() {
    return openMicrophone(this.context, (data) => this.listened(data), {
      device: this.devices.input,
      ended: () => {
        this.end();
        this.problem = new Problem("The microphone is gone", "It was unplugged, or another program took it. Choose another under Settings, or plug it in, and start talking.");
      },
    });
  }

  // The microphone is given back, and so is the place on the server; what was said stays.
  end() {
    this.attempt = null;
    this.step = "";
    this.hush();
    this.giveBack();
    this.microphone?.close();
    this.release?.();
    this.wake?.then((lock) => lock?.release());
    this.microphone = this.release = this.wake = this.turnOpen = null;
    this.connection.close();
    this.context?.suspend();
    this.tick();
  }

  yielded() {
    this.end();
    this.problem = elsewhere("Talking in another tab", "The microphone is off here, for it is on there.");
    this.tick();
  }

  mute() {
    this.muted = !this.muted;
    this.microphone.mute(this.muted);
    this.tick();
  }

  // Another microphone or loudspeaker.
  async another(kind) {
    if (kind === "audiooutput") {
      if (this.context) this.devices.send(this.context);
    } else if (this.microphone) {
      this.microphone.close();
      try {
        this.microphone = await this.listen();
        this.microphone.mute(this.muted);
      } catch (problem) {
        this.end();
        this.problem = problem;
      }
    }
  }

  // The connection.

  opened() {
    this.configure();
    for (const item of this.transcript.items.slice(-HISTORY)) this.send({ type: "conversation.item.create", item });
  }

  send(event) {
    this.connection.send(event);
  }

  configure() {
    const turn_detection = { type: "semantic_vad", eagerness: $("live-policy").value };
    const input = { turn_detection, transcription: { model: "local" } };
    const output = { voice: $("live-voice").value };
    this.send({ type: "session.update", session: { type: "realtime", audio: { input, output } } });
  }

  async lost(problem) {
    this.hush();
    this.giveBack();
    this.turnOpen = false;
    if (this.step) this.end(); // it was about to listen
    if (!this.microphone) {
      if (problem.code !== "session_idle_timeout") this.problem = problem; // otherwise it is opened again when needed
    } else if (["session_idle_timeout", "rate_limit_exceeded"].includes(problem.code)) {
      this.end();
      this.problem = problem;
    } else await this.reconnect(problem);
    this.tick();
  }

  async reconnect(problem) {
    const attempt = (this.attempt = {});
    this.begin("reconnecting");
    for (const wait of TRIES_MS) {
      await new Promise((again) => setTimeout(again, wait));
      if (this.attempt !== attempt) return;
      try {
        await this.connection.ready();
        this.step = "";
        return;
      } catch (error) {
        problem = error;
      }
    }
    if (this.attempt !== attempt) return;
    this.end();
    this.problem = problem;
  }

  // Sound.

  sound() {
    if (!this.context) {
      this.context = new AudioContext({ sampleRate: RATE });
      this.speaker = new Speaker(this.context, (item, at) => this.audible(item, at));
      this.devices.send(this.context);
    }
    return this.context.resume();
  }

  listened({ samples, began, level }) {
    this.measured.heard(began, began + samples.length / RATE, level);
    this.send({ type: "input_audio_buffer.append", audio: base64Of(pcmOf(samples)) });
  }

  play(item, base64) {
    if (this.silenced.has(item)) return;
    const samples = samplesOfBase64(base64);
    this.speaker.put(item, samples);
    this.captions.sound(item, samples.length);
  }

  write(item, delta) {
    if (!this.silenced.has(item)) this.captions.write(item, delta);
  }

  audible(item, at) {
    if (this.response) this.response.audible = true;
    this.asked = null;
    this.measured.audible(at);
  }

  silence() {
    this.speaker?.clear();
  }

  // What the server tells.

  happened(event) {
    const kind = event.type;
    if (kind === "input_audio_buffer.speech_started") this.speechStarted();
    else if (kind === "input_audio_buffer.cleared") this.turnOpen = false;
    else if (kind === "conversation.item.added") this.added(event.item);
    else if (kind === "conversation.item.input_audio_transcription.delta") this.transcript.extend(event.item_id, event.delta);
    else if (kind === "conversation.item.input_audio_transcription.completed") this.transcript.write(event.item_id, event.transcript, "(nothing)");
    else if (kind === "response.created") this.answering(event.response);
    else if (kind === "response.output_audio_transcript.delta") this.write(event.item_id, event.delta);
    else if (kind === "response.output_audio.delta") this.play(event.item_id, event.delta);
    else if (kind === "response.output_audio.done") this.speaker.end();
    else if (kind === "response.done") this.done(event.response);
    else if (kind === "conversation.item.truncated") this.send({ type: "conversation.item.retrieve", item_id: event.item_id });
    else if (kind === "conversation.item.retrieved") this.transcript.cut(event.item.id, textOf(event.item));
    else if (kind === "error") this.refused(event.error);
    this.tick();
  }

  speechStarted() {
    this.turnOpen = true;
    if (!this.response?.item) return;
    this.silence();
    this.measured.interrupted(this.speaker.until);
    this.cut();
  }

  // Not by the voice: by the circle, or the Escape key.
  interrupt() {
    this.silence();
    if (this.response) this.send({ type: "response.cancel" });
    this.cut();
    if (document.activeElement === $("live-orb")) $("live-start").focus(); // the circle can do nothing more
    this.tick();
  }

  cut() {
    const item = this.response?.item;
    this.cutUntil = performance.now() + CUT_MS;
    this.response = null;
    if (!item) return;
    this.silenced.add(item);
    this.captions.drop(item);
  }

  added({ id, type, role, content }) {
    if (type !== "message" || this.forgotten.has(id)) return;
    if (this.transcript.has(id)) return; // it was told from here
    if (role === "assistant") {
      if (!this.response) {
        this.silenced.add(id); // it was stopped before it began
        return;
      }
      this.response.item = id;
    }
    this.transcript.add(id, role);
    if (role === "user") this.transcript.write(id, textOf({ content }), "…");
    this.stage.caption("");
  }

  answering(response) {
    this.response = { id: response.id, item: null, audible: false };
    this.turnOpen = false;
    this.measured.answering(response.timings || {});
  }

  done({ status, output }) {
    this.measured.turns.at(-1).status = status;
    this.response = this.asked = null;
    const item = output.find(({ type }) => type === "message");
    if (!item || this.forgotten.has(item.id)) return;
    if (status === "cancelled") {
      // The server knows what it sent; only the page knows what was played of it.
      const played = Math.floor((1000 * (this.played.get(item.id) || 0)) / RATE);
      this.captions.drop(item.id);
      this.send({ type: "conversation.item.truncate", item_id: item.id, content_index: 0, audio_end_ms: played });
    } else {
      this.captions.complete(item.id, textOf(item), this.played.get(item.id) || 0);
    }
  }

  refused({ code, message, event_id }) {
    if (code === "response_cancel_not_active" || event_id === "forget") return; // it was over already
    if (this.asked && event_id === this.asked.id) this.giveBack();
    this.note = message;
  }

  said(item, text) {
    this.transcript.write(item, text);
    this.stage.caption(text);
  }

  // What an answer that is left unfinished has said; the server is not asked any more.
  hush() {
    this.silence();
    const item = this.response?.item;
    this.response = null;
    if (item) {
      this.captions.drop(item);
      this.transcript.cut(item, this.transcript.text(item));
    }
    this.transcript.tidy();
  }

  // In writing.

  async ask() {
    const field = $("live-text");
    const text = field.value.trim();
    if (!text || this.writing) return;
    this.writing = true;
    try {
      if (!this.microphone) this.begin("connecting");
      const sounding = this.sound();
      await this.connection.ready();
      await Promise.race([sounding, new Promise((late) => setTimeout(late, LATE_MS))]);
      if (this.response) this.interrupt();
      this.silence();
      this.cutUntil = 0;
      const id = `item_${Date.now().toString(36)}${Math.random().toString(36).slice(2)}`;
      this.asked = { id, text };
      this.note = "";
      this.transcript.add(id, "user");
      this.transcript.write(id, text);
      this.stage.caption("");
      const item = { id, type: "message", role: "user", content: [{ type: "input_text", text }] };
      this.send({ type: "conversation.item.create", event_id: id, item });
      this.send({ type: "response.create", event_id: id });
      field.value = ""; // should it not be answered, it comes back
      if (!this.microphone) this.step = "";
    } catch (problem) {
      this.step = "";
      this.problem = problem;
    }
    this.writing = false;
    this.tick();
  }

  // What was written and has no answer is written again.
  giveBack() {
    if (!this.asked) return;
    const { id, text } = this.asked;
    this.asked = null;
    if ($("live-text").value) this.transcript.fail(id);
    else {
      $("live-text").value = text;
      this.transcript.remove(id);
    }
  }

  // A new conversation, in the same session: everything in this one is forgotten, here and there.
  forget() {
    this.silence();
    if (this.response) this.send({ type: "response.cancel", event_id: "forget" });
    this.send({ type: "input_audio_buffer.clear" });
    const ids = this.response?.item ? [...this.transcript.ids, this.response.item] : this.transcript.ids;
    for (const id of new Set(ids)) {
      this.forgotten.add(id);
      this.silenced.add(id);
      this.send({ type: "conversation.item.delete", event_id: "forget", item_id: id });
    }
    this.transcript.clear();
    this.captions.clear();
    this.stage.caption("");
    this.response = this.asked = this.problem = null;
    this.note = "";
    this.cutUntil = 0;
    this.turnOpen = false;
    $("live-start").focus();
    this.tick();
  }
}

function elsewhere(title, message) {
  const problem = new Problem(title, `${message} Press Talk here instead to go on in this tab. What you wrote stays.`);
  return Object.assign(problem, { steal: true, action: "Talk here instead" });
}

function textOf(item) {
  return item.content.map((part) => part.transcript || part.text || "").join(" ");
}
