// Recordings: asked aloud, or asked about in writing, one or several at a time. Each question is a connection of its
// own, in which what was said before is given in words; what is asked while an answer is spoken is answered next.
import { RATE, Speaker, noMicrophone, openMicrophone, pcmOf, wavOf } from "./sound.js";
import { Problem, base64Of, connect, limits, reason, samplesOf, samplesOfBase64 } from "./service.js";
import { Chosen, replay } from "./chosen.js";

const $ = (id) => document.getElementById(id);
const PIECE = Math.max(1, Math.min(32, Math.floor(limits.message_bytes / 80_000))) * RATE; // samples in one message
const SESSION = { type: "realtime", audio: { input: { turn_detection: null, transcription: { model: "local" } } } };

export class Recordings {
  constructor() {
    this.past = []; // [question, answer] of earlier turns
    this.last = Promise.resolve(); // the question before the next
    this.epoch = 0; // of the conversation: it is another after it was cleared
    this.chosen = new Chosen($("chosen"), (text) => this.say(text), (text) => this.does(text));
    $("record").addEventListener("click", () => (this.microphone ? this.stop() : this.record()));
    $("upload").addEventListener("click", () => $("file").click());
    $("file").addEventListener("change", () => {
      this.chosen.add([...$("file").files]);
      $("file").value = "";
    });
    $("clear").addEventListener("click", () => this.clear());
    $("written").maxLength = limits.text_chars;
    $("written-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = $("written").value.trim();
      if (!text && !this.chosen.samples.length) return;
      $("written").value = "";
      this.ask(this.chosen.samples, text);
    });
    for (const button of document.querySelectorAll(".example")) button.addEventListener("click", () => this.example(button.dataset.file));
    const panel = $("panel-recordings");
    panel.addEventListener("dragover", (event) => {
      event.preventDefault();
      panel.classList.add("dropping");
    });
    panel.addEventListener("dragleave", () => panel.classList.remove("dropping"));
    panel.addEventListener("drop", (event) => {
      event.preventDefault();
      panel.classList.remove("dropping");
      this.chosen.add([...event.dataTransfer.files]);
    });
    $("reads").textContent = `${limits.formats} are read, ${Math.floor(limits.file_bytes / 1048576)} MB a file and ${Math.floor(limits.seconds / 60)} minutes together at most.`;
    $("no-microphone").textContent = noMicrophone();
    $("no-microphone").hidden = !noMicrophone();
  }

  begun() {
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
      this.microphone = await openMicrophone(this.context, ({ samples }) => pieces.push(pcmOf(samples)), { ended: () => this.leave() });
      this.pieces = pieces;
      $("record").textContent = "Stop";
      this.does("Recording");
    } catch (problem) {
      this.say(problem);
    }
  }

  // Gives the microphone back.
  leave() {
    this.microphone?.close();
    this.microphone = null;
    $("record").textContent = "Record";
    this.does("");
  }

  stop() {
    this.leave();
    if (this.pieces.length) this.ask([joined(this.pieces)], "");
  }

  async example(file) {
    this.sound();
    this.say("");
    try {
      const answer = await fetch(file);
      this.ask([await samplesOf(await answer.blob())], "");
    } catch (problem) {
      this.say(problem);
    }
  }

  // The question and its answer. What was written comes back if it cannot be asked.

  ask(recordings, text) {
    this.sound();
    const epoch = this.epoch;
    this.last = this.last
      .then(() => epoch === this.epoch && this.turn(recordings, text))
      .catch((problem) => {
        if (epoch !== this.epoch) return;
        this.say(problem);
        if (text && !$("written").value) $("written").value = text;
      });
  }

  async turn(recordings, text) {
    this.say("");
    const epoch = this.epoch;
    const turn = [text, ""];
    const pieces = [];
    const began = performance.now();
    let spoken = 0;
    const show = (ended) => epoch === this.epoch && this.show(turn, ended);
    this.speaker?.clear();
    this.speaker = new Speaker(this.context);
    const length = recordings.reduce((sum, samples) => sum + samples.length, 0);
    $("asked").hidden = !length;
    replay($("asked"), length ? wavOf(recordings) : null);
    this.player(null);
    for (const name of ["first-audio", "heard-seconds", "spoken-seconds"]) $(name).textContent = "–";
    if (length) $("heard-seconds").textContent = `${(length / RATE).toFixed(1)} s`;
    turn.shown = [this.paragraph("user"), this.paragraph("assistant")];
    $("clear").disabled = false;
    show(false);
    this.does("Thinking");
    try {
      await this.converse(recordings, text, (kind, event) => {
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
          this.does("Answering");
          this.speaker.put(event.item_id, pcm);
        } else if (kind === "response.output_audio.done") this.speaker.end();
        show(false);
      });
    } catch (error) {
      show(true);
      throw error;
    } finally {
      if (epoch === this.epoch && !this.microphone) this.does("");
    }
    show(true);
    if (epoch !== this.epoch) return;
    this.past.push([turn[0], turn[1]]);
    if (pieces.length) this.player(wavOf(pieces));
  }

  // One connection: resolves when the answer is whole.
  converse(recordings, text, happened) {
    const asked = [];
    for (const samples of recordings) {
      for (let at = 0; at < samples.length; at += PIECE) asked.push([{ type: "input_audio", audio: base64Of(samples.subarray(at, at + PIECE)) }]);
    }
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
        const output = { voice: $("live-voice").value };
        send({ type: "session.update", session: { ...SESSION, audio: { ...SESSION.audio, output } } });
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
      socket.onclose = async () => failed(opened ? new Problem("The connection was lost", "The answer is not whole. Ask again.") : await reason());
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
    $("clear").disabled = true;
    $("asked").hidden = true;
    replay($("asked"), null);
    this.player(null);
    for (const name of ["first-audio", "heard-seconds", "spoken-seconds"]) $(name).textContent = "–";
    this.say("");
    this.does("");
  }

  // What went wrong, and what helps: a text, or an error.
  say(problem) {
    const text = problem.message ?? problem;
    $("recordings-problem").textContent = problem.title ? `${problem.title}. ${text}` : text;
  }

  does(text) {
    if ($("recordings-state").textContent !== text) $("recordings-state").textContent = text;
  }
}

function joined(pieces) {
  const samples = new Int16Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  pieces.reduce((at, piece) => (samples.set(piece, at), at + piece.length), 0);
  return samples;
}
