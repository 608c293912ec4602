// Which words of an answer have been said by now. Its text comes ahead of its sound, so it is shown as fast as it is
// spoken: by letters a second until all of the sound has come, then in proportion to what is left of it.
import { RATE } from "../sound.js";

const LETTERS_A_SECOND = 15; // until an answer has shown how fast this voice speaks

export class Captions {
  // shown(item, text) is called when more of an answer has been said.
  constructor(shown) {
    this.shown = shown;
    this.pace = LETTERS_A_SECOND;
    this.answers = new Map(); // by item, those that are not over
  }

  answer(item) {
    if (!this.answers.has(item)) this.answers.set(item, { text: "", samples: 0, seen: 0, whole: null });
    return this.answers.get(item);
  }

  write(item, delta) {
    this.answer(item).text += delta;
  }

  sound(item, samples) {
    this.answer(item).samples += samples;
  }

  // There is no more of it; played: samples of it until now.
  complete(item, text, played) {
    const answer = this.answer(item);
    answer.text = text;
    answer.whole = { played, seen: Math.min(answer.seen, text.length) };
    if (answer.samples > RATE) this.pace = (text.length * RATE) / answer.samples;
  }

  drop(item) {
    this.answers.delete(item);
  }

  clear() {
    this.answers.clear();
  }

  // played: samples by item. silent: nothing can be heard in this page, so nothing is held back.
  follow(played, silent = false) {
    for (const [item, answer] of this.answers) {
      const now = played.get(item) || 0;
      const { text, samples, whole } = answer;
      let letters = (this.pace * now) / RATE;
      if (silent || (whole && now >= samples)) letters = text.length;
      else if (whole) letters = whole.seen + ((text.length - whole.seen) * (now - whole.played)) / (samples - whole.played);
      if (now || silent || whole) this.show(item, answer, Math.max(answer.seen, wordEnd(text, letters)));
      if (whole && answer.seen >= text.length) this.answers.delete(item);
    }
  }

  show(item, answer, letters) {
    if (letters === answer.seen) return;
    answer.seen = letters;
    this.shown(item, answer.text.slice(0, letters));
  }
}

// Where the word ends that has so many letters before it, or within it.
function wordEnd(text, letters) {
  const at = Math.min(text.length, Math.max(1, Math.floor(letters)));
  const rest = text.slice(at).search(/\s/);
  return rest < 0 ? text.length : at + rest;
}
