// The live conversation: a client of /v1/realtime like any other, with the browser's microphone and loudspeaker.
import { RATE, Speaker, noMicrophone, openMicrophone, pcmOf } from "./sound.js";
import { base64Of, connect, reason, samplesOfBase64 } from "./service.js";

const SPAN = 250; // points of the waveform, 40 ms each: ten seconds
const $ = (id) => document.getElementById(id);

export class Conversation {
  constructor() {
    this.heardLevels = new Array(SPAN).fill(0);
    this.saidLevels = new Array(SPAN).fill(0);
    this.turns = new Map(); // by item id: the paragraph in the transcript
    this.detection = "auto";
    this.fresh = true; // there is something to draw
    this.drawn = -Infinity;
    this.figures = []; // of each turn, for whoever drives this page
    $("live-start").addEventListener("click", () => this.start());
    $("live-stop").addEventListener("click", () => this.stop());
    $("live-policy").addEventListener("change", ({ target }) => {
      this.detection = target.value;
      this.configure();
    });
    $("live-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = $("live-text").value.trim();
      $("live-text").value = "";
      if (text) this.ask(text).catch(() => {}); // closed() says why
    });
    const why = noMicrophone();
    $("live-no-microphone").textContent = why;
    $("live-no-microphone").hidden = !why;
    $("live-start").disabled = Boolean(why);
    if (why) this.say("Write below.");
    this.draw();
    setInterval(() => this.speaker && this.push(this.saidLevels, this.speaker.level), 40);
  }

  get played() {
    return this.speaker ? this.speaker.played : new Map(); // by item id: samples
  }

  // The connection.

  connect() {
    if (this.socket && this.socket.readyState <= WebSocket.OPEN) return this.ready;
    this.socket = connect();
    let opened = false;
    this.socket.onmessage = ({ data }) => this.happened(JSON.parse(data));
    this.socket.onclose = ({ code }) => this.closed(code, opened);
    this.ready = new Promise((done, failed) => {
      this.socket.addEventListener("open", () => done((opened = true)), { once: true });
      this.socket.addEventListener("close", () => failed(new Error("no connection")), { once: true });
    });
    this.ready.then(() => this.configure()).catch(() => {});
    return this.ready;
  }

  send(event) {
    if (this.socket && this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  configure() {
    const turn_detection = { type: "semantic_vad", eagerness: this.detection };
    const input = { turn_detection, transcription: { model: "local" } };
    this.send({ type: "session.update", session: { type: "realtime", audio: { input } } });
  }

  async closed(code, opened) {
    this.silence();
    this.stop();
    if (code === 1001) this.say("The server has shut down.");
    else this.say(opened ? "Not connected. Press Start, or write, to begin again." : await reason());
  }

  // Sound.

  sound() {
    if (!this.context) {
      this.context = new AudioContext({ sampleRate: RATE });
      this.speaker = new Speaker(this.context, (item, at) => this.firstSample(item, at));
    }
    return this.context.resume();
  }

  async start() {
    $("live-start").disabled = true;
    try {
      await this.connect();
      await this.sound();
      this.microphone = await openMicrophone(this.context, (data) => this.listened(data));
      this.say("Listening. Just speak; speak over the answer to stop it.");
      $("live-start").hidden = true;
      $("live-stop").hidden = false;
      $("live-stop").focus();
    } catch (error) {
      if (this.socket.readyState === WebSocket.OPEN) this.say(error.message); // otherwise closed() says why
    }
    $("live-start").disabled = false;
  }

  stop() {
    if (this.microphone) this.microphone.close();
    this.microphone = null;
    if ($("live-start").hidden) {
      $("live-start").hidden = false;
      $("live-stop").hidden = true;
      $("live-start").focus();
      this.say("The microphone is off.");
    }
  }

  listened({ samples, began, level }) {
    this.push(this.heardLevels, level * 3);
    if (this.micBegan === undefined) this.micBegan = began;
    if (level > 0.02) {
      if (!this.loud || began - this.loudUntil > 0.3) this.loudSince = began;
      this.loud = true;
      this.loudUntil = began + samples.length / RATE;
    } else if (began - this.loudUntil > 0.3) {
      this.loud = false;
    }
    this.send({ type: "input_audio_buffer.append", audio: base64Of(pcmOf(samples)) });
  }

  play(item, base64) {
    this.speaker.put(item, samplesOfBase64(base64));
    if (item === this.cutItem) {
      this.lastSound = this.speaker.until;
      this.stopped();
    }
  }

  silence() {
    if (!this.speaker) return;
    this.speaker.clear();
    this.lastSound = this.speaker.until;
  }

  // From the user's last loud sample to the answer's first.
  firstSample(item, at) {
    if (this.loudUntil && this.figure) this.show("page", 1000 * (at - this.loudUntil));
  }

  // What the server tells.

  happened(event) {
    const kind = event.type;
    if (kind === "input_audio_buffer.speech_started") this.interrupted();
    else if (kind === "conversation.item.added") this.added(event.item);
    else if (kind === "conversation.item.input_audio_transcription.delta") this.write(event.item_id, event.delta);
    else if (kind === "conversation.item.input_audio_transcription.completed") this.written(event.item_id, event.transcript);
    else if (kind === "response.created") this.begun(event.response);
    else if (kind === "response.output_audio_transcript.delta") this.write(event.item_id, event.delta);
    else if (kind === "response.output_audio.delta") this.play(event.item_id, event.delta);
    else if (kind === "response.output_audio.done") this.speaker.end();
    else if (kind === "response.done") this.done(event.response);
    else if (kind === "conversation.item.truncated") this.send({ type: "conversation.item.retrieve", item_id: event.item_id });
    else if (kind === "conversation.item.retrieved") this.cut(event.item);
    else if (kind === "error") this.say(event.error.message);
  }

  interrupted() {
    if (!this.speaking) return;
    this.silence();
    this.cutItem = this.speaking;
    this.cutFigure = this.figure;
    this.cutSince = this.loudSince;
    this.stopped();
  }

  // From the interrupting voice to the last sample of the answer; told again should another sample be played.
  stopped() {
    if (this.cutSince && this.lastSound) this.show("stop", 1000 * Math.max(0, this.lastSound - this.cutSince), this.cutFigure);
  }

  added(item) {
    const text = item.content.map((part) => part.text || part.transcript || "").join(" ");
    this.paragraph(item.id, item.role).textContent = text;
    if (item.role === "assistant") this.speaking = item.id;
  }

  begun(response) {
    this.figure = {};
    this.figures.push(this.figure);
    const timings = response.timings || {};
    for (const name of ["endpoint", "compute", "first"]) this.show(name, timings[`${name}_ms`]);
    this.show("page", undefined);
  }

  done(response) {
    this.speaking = null;
    this.figure.status = response.status;
    const [item] = response.output;
    if (!item) return;
    if (response.status === "cancelled") {
      // The server knows what it sent; only the page knows what was played of it.
      const played = Math.floor((1000 * (this.played.get(item.id) || 0)) / RATE);
      this.send({ type: "conversation.item.truncate", item_id: item.id, content_index: 0, audio_end_ms: played });
    } else {
      this.written(item.id, item.content.map((part) => part.transcript || part.text || "").join(" "));
    }
  }

  cut(item) {
    const paragraph = this.turns.get(item.id);
    if (!paragraph) return;
    paragraph.textContent = item.content.map((part) => part.transcript || "").join(" ");
    paragraph.parentElement.dataset.cut = "true";
    paragraph.append(" —");
  }

  // What is seen.

  paragraph(id, role) {
    if (!this.turns.has(id)) {
      const turn = document.createElement("div");
      turn.className = `turn ${role}`;
      const who = document.createElement("span");
      who.className = "who";
      who.textContent = role === "user" ? "You" : "Duologue";
      const text = document.createElement("p");
      turn.append(who, text);
      $("live-transcript").append(turn);
      this.turns.set(id, text);
    }
    $("live-transcript").scrollTop = $("live-transcript").scrollHeight;
    return this.turns.get(id);
  }

  write(id, delta) {
    const paragraph = this.turns.get(id);
    if (paragraph) paragraph.textContent += delta;
    $("live-transcript").scrollTop = $("live-transcript").scrollHeight;
  }

  written(id, text) {
    const paragraph = this.turns.get(id);
    if (paragraph && !paragraph.parentElement.dataset.cut) paragraph.textContent = text || "(nothing)";
  }

  show(name, ms, figure = this.figure) {
    if (figure) figure[name] = ms;
    $(name === "stop" ? "live-stop-ms" : `live-${name}`).textContent = ms === undefined || ms === null ? "–" : `${Math.round(ms)} ms`;
  }

  say(text) {
    $("live-status").textContent = text;
  }

  push(levels, level) {
    levels.shift();
    levels.push(Math.min(1, level));
    this.fresh = true;
  }

  // At most fifteen times a second, and only what is new: the sound is to have the processor.
  draw(now = 0) {
    requestAnimationFrame((then) => this.draw(then));
    if (now - this.drawn < 66) return;
    const canvas = $("live-waveform");
    const width = Math.floor(canvas.clientWidth * devicePixelRatio);
    const height = Math.floor(canvas.clientHeight * devicePixelRatio);
    const resized = canvas.width !== width || canvas.height !== height;
    if (!this.fresh && !resized) return;
    this.fresh = false;
    this.drawn = now;
    if (resized) Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    pen.clearRect(0, 0, width, height);
    [[this.heardLevels, 0.25, "--you"], [this.saidLevels, 0.75, "--it"]].forEach(([levels, middle, colour]) => {
      pen.fillStyle = style.getPropertyValue(colour);
      levels.forEach((level, i) => {
        const tall = Math.max(devicePixelRatio, level * height * 0.45);
        pen.fillRect((i * width) / SPAN, middle * height - tall / 2, Math.max(1, (0.7 * width) / SPAN), tall);
      });
    });
  }

  async ask(text) {
    await this.connect();
    await this.sound();
    if (this.speaking) {
      this.silence();
      this.send({ type: "response.cancel" });
    }
    const content = [{ type: "input_text", text }];
    this.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
    this.send({ type: "response.create" });
  }
}
