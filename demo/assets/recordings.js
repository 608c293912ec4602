// Recordings: asked aloud, or asked about in writing. Each question is a connection of its own, in which what was said
// before is given in words; what is asked while an answer is spoken is answered next.
import { RATE, Speaker, noMicrophone, openMicrophone, pcmOf, wavOf } from "./sound.js";
import { base64Of, connect, reason, samplesOf, samplesOfBase64 } from "./service.js";

const $ = (id) => document.getElementById(id);
const PIECE = 32 * RATE; // samples in one message, in whole frames: a message has a limit
const SESSION = { type: "realtime", audio: { input: { turn_detection: null, transcription: { model: "local" } } } };

export class Recordings {
  constructor() {
    this.past = []; // [question, answer] of earlier turns
    this.chosen = null; // samples that are asked about in writing
    this.last = Promise.resolve(); // the question before the next
    this.epoch = 0; // of the conversation: it is another after it was cleared
    $("record").addEventListener("click", () => (this.microphone ? this.stop() : this.record()));
    $("upload").addEventListener("click", () => $("file").click());
    $("file").addEventListener("change", () => this.upload());
    $("remove").addEventListener("click", () => this.choose(null));
    $("clear").addEventListener("click", () => this.clear());
    $("written-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = $("written").value.trim();
      $("written").value = "";
      if (text) this.ask(this.chosen, text);
    });
    for (const button of document.querySelectorAll(".example")) button.addEventListener("click", () => this.example(button.dataset.file));
    $("no-microphone").textContent = noMicrophone();
    $("no-microphone").hidden = !noMicrophone();
    $("record").disabled = Boolean(noMicrophone());
  }

  sound() {
    this.context ||= new AudioContext({ sampleRate: RATE });
    return this.context.resume(); // what it waits for may be a click
  }

  // What is asked, or asked about.

  async record() {
    this.say("");
    this.speaker?.clear();
    const pieces = [];
    try {
      this.sound();
      this.microphone = await openMicrophone(this.context, ({ samples }) => pieces.push(pcmOf(samples)));
      this.pieces = pieces;
      $("record").textContent = "Stop";
    } catch (error) {
      this.say(error.message);
    }
  }

  stop() {
    this.microphone.close();
    this.microphone = null;
    $("record").textContent = "Record";
    const samples = new Int16Array(this.pieces.reduce((sum, piece) => sum + piece.length, 0));
    this.pieces.reduce((at, piece) => (samples.set(piece, at), at + piece.length), 0);
    if (samples.length) this.ask(samples, "");
  }

  async upload() {
    const [file] = $("file").files;
    $("file").value = "";
    if (!file) return;
    this.say("");
    try {
      this.choose(await samplesOf(file), file.name);
    } catch (error) {
      this.say(error.message);
    }
  }

  choose(samples, name = "") {
    this.chosen = samples;
    $("chosen").hidden = !samples;
    $("chosen-name").textContent = name;
    replay($("chosen"), samples && wavOf([samples]));
  }

  async example(file) {
    this.sound();
    try {
      const answer = await fetch(file);
      this.ask(await samplesOf(await answer.blob()), "");
    } catch (error) {
      this.say(error.message);
    }
  }

  // The question and its answer.

  ask(samples, text) {
    this.sound();
    const epoch = this.epoch;
    this.last = this.last.then(() => epoch === this.epoch && this.turn(samples, text)).catch((error) => this.say(error.message));
  }

  async turn(samples, text) {
    this.say("");
    const epoch = this.epoch;
    const turn = [text, ""];
    const pieces = [];
    const began = performance.now();
    let spoken = 0;
    const show = (ended) => epoch === this.epoch && this.show(turn, ended);
    this.speaker?.clear();
    this.speaker = new Speaker(this.context);
    $("asked").hidden = !samples;
    replay($("asked"), samples && wavOf([samples]));
    this.player(null);
    for (const name of ["first-audio", "heard-seconds", "spoken-seconds"]) $(name).textContent = "–";
    if (samples) $("heard-seconds").textContent = `${(samples.length / RATE).toFixed(1)} s`;
    turn.shown = [this.paragraph("user"), this.paragraph("assistant")];
    show(false);
    try {
      await this.converse(samples, text, (kind, event) => {
        if (epoch !== this.epoch) return;
        if (kind === "conversation.item.input_audio_transcription.delta") turn[0] = (turn.heard = (turn.heard || "") + event.delta);
        else if (kind === "response.output_audio_transcript.delta") turn[1] += event.delta;
        else if (kind === "response.output_audio.delta") {
          const pcm = samplesOfBase64(event.delta);
          if (!pieces.length) $("first-audio").textContent = `${Math.round(performance.now() - (this.asked || began))} ms`;
          pieces.push(pcm);
          spoken += pcm.length;
          $("spoken-seconds").textContent = `${(spoken / RATE).toFixed(1)} s`;
          $("reply-speech").dataset.state = "speaking";
          this.speaker.put(event.item_id, pcm);
        } else if (kind === "response.output_audio.done") this.speaker.end();
        show(false);
      });
    } catch (error) {
      show(true);
      throw error;
    }
    show(true);
    if (epoch !== this.epoch) return;
    this.past.push([turn[0], turn[1]]);
    if (pieces.length) this.player(wavOf(pieces));
  }

  // One connection: resolves when the answer is whole.
  converse(samples, text, happened) {
    const asked = [];
    for (let at = 0; samples && at < samples.length; at += PIECE) asked.push([{ type: "input_audio", audio: base64Of(samples.subarray(at, at + PIECE)) }]);
    if (!asked.length) asked.push([]);
    if (text) asked.at(-1).push({ type: "input_text", text });
    const history = this.past.flatMap(([asked, said]) => [
      { type: "message", role: "user", content: [{ type: "input_text", text: asked }] },
      { type: "message", role: "assistant", content: [{ type: "output_text", text: said }] },
    ]);
    return new Promise((done, failed) => {
      const socket = connect();
      this.socket = socket;
      const send = (event) => socket.send(JSON.stringify(event));
      let opened = false;
      socket.onopen = () => {
        opened = true;
        send({ type: "session.update", session: SESSION });
        const items = asked.map((content) => ({ type: "message", role: "user", content }));
        for (const item of [...history, ...items]) send({ type: "conversation.item.create", item });
        send({ type: "response.create" });
        this.asked = performance.now();
      };
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === "error") {
          failed(new Error(event.error.message));
          socket.close();
        } else {
          happened(event.type, event);
          if (event.type === "response.done") {
            done();
            socket.close();
          }
        }
      };
      socket.onclose = async () => failed(new Error(opened ? "The service hung up before the answer was whole." : await reason()));
    });
  }

  // What is seen.

  paragraph(role) {
    const turn = document.createElement("div");
    turn.className = `turn ${role}`;
    const who = document.createElement("span");
    who.className = "who";
    who.textContent = role === "user" ? "You" : "Duologue";
    const text = document.createElement("p");
    turn.append(who, text);
    $("conversation").append(turn);
    return text;
  }

  show(turn, ended) {
    turn.shown[0].textContent = turn[0] || (ended ? "(nothing)" : "…");
    turn.shown[1].textContent = turn[1] || (ended ? "(no words)" : "…");
    $("conversation").scrollTop = $("conversation").scrollHeight;
  }

  player(blob) {
    const url = replay($("reply-speech"), blob);
    const link = $("reply-speech").querySelector("a");
    if (url) link.href = url;
    else link.removeAttribute("href");
    $("reply-speech").dataset.state = url ? "ready" : "empty";
  }

  clear() {
    this.epoch++;
    this.past = [];
    this.speaker?.clear();
    this.socket?.close();
    $("conversation").replaceChildren();
    $("asked").hidden = true;
    replay($("asked"), null);
    this.player(null);
    for (const name of ["first-audio", "heard-seconds", "spoken-seconds"]) $(name).textContent = "–";
    this.say("");
  }

  say(text) {
    $("recordings-status").textContent = text;
  }
}

// Puts a recording into a player, or takes it out.
function replay(place, blob) {
  const audio = place.querySelector("audio");
  if (audio.src) URL.revokeObjectURL(audio.src);
  if (blob) audio.src = URL.createObjectURL(blob);
  else {
    audio.removeAttribute("src");
    audio.load();
  }
  return audio.src && blob ? audio.src : "";
}
