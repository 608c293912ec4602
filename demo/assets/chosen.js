// The recordings that are asked about: read one after the other, listened to, taken out again.
import { RATE, wavOf } from "./sound.js";
import { limits, samplesOf } from "./service.js";

export class Chosen {
  // place: their list. say(text): what went wrong; does(text): what is being done.
  constructor(place, say, does) {
    Object.assign(this, { place, say, does });
    this.kept = []; // { samples, element }
    this.reading = Promise.resolve();
  }

  get samples() {
    return this.kept.map(({ samples }) => samples);
  }

  get seconds() {
    return this.kept.reduce((sum, { samples }) => sum + samples.length, 0) / RATE;
  }

  add(files) {
    this.say("");
    this.reading = this.reading.then(() => this.read(files));
  }

  async read(files) {
    const failed = [];
    for (const file of files) {
      this.does(`Reading ${file.name}`);
      try {
        const samples = await samplesOf(file);
        const seconds = this.seconds + samples.length / RATE;
        if (seconds > limits.seconds) throw new Error(`With it the recordings have ${lengthOf(seconds)}; at most ${lengthOf(limits.seconds)} are heard at once. Take another out first.`);
        this.keep(file.name, samples);
      } catch (error) {
        failed.push(files.length > 1 ? `${file.name}: ${error.message}` : error.message);
      }
    }
    this.does("");
    this.say(failed.join("\n"));
  }

  keep(name, samples) {
    const element = document.createElement("li");
    const label = make("span", "name", name);
    label.title = name;
    const audio = make("audio", "");
    audio.controls = true;
    audio.setAttribute("aria-label", name);
    const remove = make("button", "small", "Remove");
    remove.type = "button";
    remove.setAttribute("aria-label", `Remove ${name}`);
    element.append(label, make("span", "length", lengthOf(samples.length / RATE)), remove, audio);
    const kept = { samples, element };
    remove.addEventListener("click", () => {
      this.kept.splice(this.kept.indexOf(kept), 1);
      replay(element, null);
      element.remove();
      document.getElementById("upload").focus();
    });
    this.kept.push(kept);
    this.place.append(element);
    replay(element, wavOf([samples]));
  }
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

function lengthOf(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")} min`;
}

// Puts a recording into a player, or takes it out.
export function replay(place, blob) {
  const audio = place.querySelector("audio");
  if (audio.src) URL.revokeObjectURL(audio.src);
  if (blob) audio.src = URL.createObjectURL(blob);
  else {
    audio.removeAttribute("src");
    audio.load();
  }
  return audio.src && blob ? audio.src : "";
}
