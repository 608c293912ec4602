// What was said, in turns: seen, saved as a file, and told to a session that begins anew.
export class Transcript {
  constructor(place, assistant) {
    this.place = place;
    this.assistant = assistant; // what it is called in a file
    this.turns = new Map(); // by item id: { role, text, at, element, words, cut, failed }
  }

  has(id) {
    return this.turns.has(id);
  }

  get empty() {
    return !this.turns.size;
  }

  get ids() {
    return [...this.turns.keys()];
  }

  text(id) {
    return this.turns.get(id)?.text || "";
  }

  add(id, role) {
    const element = document.createElement("div");
    element.className = `turn ${role}`;
    const head = document.createElement("span");
    head.className = "who";
    head.textContent = role === "user" ? "You" : "Duologue";
    const words = document.createElement("p");
    element.append(head, words);
    element.hidden = true; // until there are words
    this.turns.set(id, { role, text: "", at: new Date(), element, words });
    this.keepUp(() => this.place.append(element));
  }

  // without: what is seen in the place of no text.
  write(id, text, without = "") {
    const turn = this.turns.get(id);
    if (!turn || turn.cut) return;
    turn.text = text || "";
    this.keepUp(() => {
      turn.words.textContent = text || without;
      turn.element.hidden = !(text || without);
    });
  }

  extend(id, delta) {
    this.write(id, (this.text(id) + delta).trimStart());
  }

  // It was interrupted, and no more than this was heard of it.
  cut(id, text) {
    const turn = this.turns.get(id);
    if (!turn) return;
    if (!turn.cut) this.mark(turn, "interrupted");
    turn.cut = true;
    turn.text = text;
    this.keepUp(() => {
      turn.element.dataset.cut = "true";
      turn.element.hidden = false;
      turn.words.textContent = `${text} —`.trimStart();
    });
  }

  // What was being said, and has not been written down, is not going to be.
  tidy() {
    for (const [id, { text, cut }] of this.turns) if (!text && !cut) this.remove(id);
  }

  fail(id) {
    const turn = this.turns.get(id);
    if (!turn || turn.failed) return;
    turn.failed = true;
    this.mark(turn, "not answered");
  }

  mark(turn, text) {
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.textContent = text;
    turn.words.before(mark);
  }

  remove(id) {
    this.turns.get(id)?.element.remove();
    this.turns.delete(id);
  }

  clear() {
    this.turns.clear();
    this.place.replaceChildren();
  }

  // Whoever reads the end goes on reading the end; whoever has scrolled back is left alone.
  keepUp(change) {
    const { scrollHeight, scrollTop, clientHeight } = this.place;
    const atEnd = scrollHeight - scrollTop - clientHeight < 40;
    change();
    if (atEnd) this.place.scrollTop = this.place.scrollHeight;
  }

  // As items of the protocol: questions that were answered, and their answers.
  get items() {
    const items = [];
    let asked = [];
    for (const [id, { role, text, failed }] of this.turns) {
      if (!text || failed) continue;
      const type = role === "user" ? "input_text" : "output_text";
      asked.push({ id, type: "message", role, content: [{ type, text }] });
      if (role === "assistant") items.push(...asked.splice(0));
    }
    return items;
  }

  get file() {
    const began = [...this.turns.values()][0]?.at ?? new Date();
    const lines = [...this.turns.values()].map(({ role, text, at, cut, failed }) => {
      const note = cut ? " (interrupted)" : failed ? " (not answered)" : "";
      return `[${at.toLocaleTimeString()}] ${role === "user" ? "You" : "Duologue"}${note}: ${text}${cut ? " —" : ""}`;
    });
    return `A conversation with ${this.assistant}, ${began.toLocaleString()}\n\n${lines.join("\n")}\n`;
  }

  save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this.file], { type: "text/plain" }));
    link.download = `duologue-${new Date().toISOString().slice(0, 16).replace(/[T:]/g, "-")}.txt`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}
