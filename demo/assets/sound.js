// Sound out and in, at the protocol's rate. Out needs Web Audio alone, which every page has; the microphone needs what
// browsers give only to pages that came by https or from this very machine.
import { Problem } from "./service.js";

export const RATE = 24000;
const RESERVE_S = 0.1; // that waits before speech begins, against a network that stumbles

// Plays pieces of speech one behind the other, so that they join without a gap or a click, and knows what was played.
export class Speaker {
  constructor(context, started = () => {}) {
    this.context = context;
    this.started = started; // called with an item, and when its first sample will be played
    this.pending = [];
    this.playing = []; // { item, node, at, samples }
    this.over = new Map(); // by item: samples of pieces that have ended or were cut
    this.until = 0; // when the last sample is played, or was
    this.analyser = new AnalyserNode(context, { fftSize: 1024 });
    this.analyser.connect(context.destination);
    this.wave = new Float32Array(1024);
  }

  put(item, samples) {
    this.pending.push({ item, samples });
    const waiting = this.pending.reduce((sum, piece) => sum + piece.samples.length, 0);
    if (this.until > this.context.currentTime || waiting >= RESERVE_S * RATE) this.end();
  }

  // Play what is pending, however little: no more will come, or enough has.
  end() {
    for (const { item, samples } of this.pending.splice(0)) {
      if (!samples.length) continue;
      const buffer = this.context.createBuffer(1, samples.length, RATE);
      buffer.copyToChannel(Float32Array.from(samples, (x) => x / 32768), 0);
      const node = new AudioBufferSourceNode(this.context, { buffer });
      node.connect(this.analyser);
      const at = Math.max(this.until, this.context.currentTime + 0.005);
      const piece = { item, node, at, samples: samples.length };
      node.onended = () => this.ended(piece);
      node.start(at);
      this.playing.push(piece);
      this.until = at + buffer.duration;
      if (!this.over.has(item)) {
        this.over.set(item, 0);
        this.started(item, at);
      }
    }
  }

  // Silent at once; `until` then says when its last sample was played.
  clear() {
    for (const piece of [...this.playing]) {
      piece.node.stop();
      this.ended(piece);
    }
    this.pending = [];
    this.until = Math.min(this.until, this.context.currentTime);
  }

  ended(piece) {
    if (!this.playing.includes(piece)) return;
    this.playing.splice(this.playing.indexOf(piece), 1);
    this.over.set(piece.item, this.over.get(piece.item) + this.heard(piece));
  }

  heard(piece) {
    return Math.round(Math.max(0, Math.min(piece.samples, (this.context.currentTime - piece.at) * RATE)));
  }

  // Samples of each item that were played, by item.
  get played() {
    const all = new Map(this.over);
    for (const piece of this.playing) all.set(piece.item, all.get(piece.item) + this.heard(piece));
    return all;
  }

  // Whether anything is being played now.
  get audible() {
    return this.playing.some((piece) => piece.at <= this.context.currentTime) && this.context.state === "running";
  }

  get level() {
    this.analyser.getFloatTimeDomainData(this.wave);
    return this.wave.reduce((peak, x) => Math.max(peak, Math.abs(x)), 0);
  }
}

// Why this page has no microphone; "" if it can have one.
export function noMicrophone() {
  if (navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode) return "";
  if (window.isSecureContext) return "This browser gives pages no microphone. You can write instead; the answers are spoken.";
  return (
    "There is no microphone here: this page came over plain http from another machine, and browsers give a microphone " +
    "only to https and to localhost. Start it with --certfile and --keyfile, put it behind a proxy that speaks https, " +
    "or open it on that machine itself. You can write instead; the answers are spoken."
  );
}

const REFUSED = {
  NotAllowedError: ["The microphone is blocked", "Allow it for this page in your browser (beside the address), then start talking. Or write: the answers are spoken."],
  NotFoundError: ["No microphone was found", "Plug one in, then start talking. Or write: the answers are spoken."],
  NotReadableError: ["The microphone is busy", "Another program has it. Close that one, or choose another microphone under Settings. Or write: the answers are spoken."],
};

// Opens the microphone. heard({ samples, began, level }) is called every 20 ms, ended() if it goes away by itself. device:
// its id, if not the system's choice. Of the result, close() gives it back and mute(yes) lets it hear silence.
export async function openMicrophone(context, heard, { device = "", ended = () => {} } = {}) {
  const why = noMicrophone();
  if (why) throw new Problem("No microphone", why);
  const stream = await streamOf(device);
  const { source, own } = sourceOf(context, stream);
  await source.context.audioWorklet.addModule(new URL("worklets.js", import.meta.url));
  const node = new AudioWorkletNode(source.context, "duologue-microphone", { numberOfOutputs: 0, processorOptions: { rate: RATE } });
  node.port.onmessage = ({ data }) => heard({ ...data, began: data.began + context.currentTime - source.context.currentTime });
  source.connect(node);
  const [track] = stream.getAudioTracks();
  track.onended = ended;
  return {
    mute(yes) {
      track.enabled = !yes;
    },
    close() {
      track.onended = null;
      track.stop();
      source.disconnect();
      node.port.onmessage = null;
      own?.close();
    },
  };
}

// Some browsers (Firefox) let a microphone only into a context of its own rate: then it gets one, and is resampled.
function sourceOf(context, stream) {
  try {
    return { source: context.createMediaStreamSource(stream) };
  } catch {
    const own = new AudioContext();
    own.resume();
    return { source: own.createMediaStreamSource(stream), own };
  }
}

async function streamOf(device) {
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: device ? { ...audio, deviceId: { exact: device } } : audio });
  } catch (error) {
    if (device && error.name === "OverconstrainedError") return streamOf(""); // it is not there any more
    throw new Problem(...(REFUSED[error.name] || ["No microphone", `${error.message || error}. You can write instead.`]));
  }
}

export function pcmOf(samples) {
  return Int16Array.from(samples, (x) => Math.max(-1, Math.min(1, x)) * 32767);
}

// A recording as a file, to be played again or saved.
export function wavOf(pieces) {
  const size = 2 * pieces.reduce((sum, piece) => sum + piece.length, 0);
  const view = new DataView(new ArrayBuffer(44));
  const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  word(0, "RIFF"), view.setUint32(4, 36 + size, true), word(8, "WAVEfmt "), view.setUint32(16, 16, true);
  view.setUint16(20, 1, true), view.setUint16(22, 1, true); // PCM, mono
  view.setUint32(24, RATE, true), view.setUint32(28, 2 * RATE, true), view.setUint16(32, 2, true), view.setUint16(34, 16, true);
  word(36, "data"), view.setUint32(40, size, true);
  return new Blob([view, ...pieces], { type: "audio/wav" });
}
