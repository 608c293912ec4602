// Which microphone and loudspeaker; remembered from visit to visit, as are how soon it answers and its voice.
const KEY = "duologue";

export function remembered() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) || {};
  } catch {
    return {};
  }
}

export function remember(change) {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...remembered(), ...change }));
  } catch {
    // a browser that keeps nothing
  }
}

export class Devices {
  // inputs, outputs: their lists. changed(kind) when another is chosen.
  constructor(inputs, outputs, changed) {
    this.lists = { audioinput: inputs, audiooutput: outputs };
    this.chosen = { audioinput: remembered().audioinput || "", audiooutput: remembered().audiooutput || "" };
    const canChoose = { audioinput: Boolean(navigator.mediaDevices?.enumerateDevices), audiooutput: "setSinkId" in AudioContext.prototype };
    for (const [kind, list] of Object.entries(this.lists)) {
      list.disabled = !canChoose[kind];
      list.addEventListener("change", () => {
        this.chosen[kind] = list.value;
        remember({ [kind]: list.value });
        changed(kind);
      });
    }
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.refresh());
    this.refresh();
  }

  // A browser names them only to pages that have had the microphone.
  async refresh() {
    const found = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) || [];
    for (const [kind, list] of Object.entries(this.lists)) {
      const own = found.filter((device) => device.kind === kind && device.deviceId && !["default", "communications"].includes(device.deviceId));
      const options = own.map(({ deviceId, label }, i) => new Option(label || `${i + 1}`, deviceId));
      list.replaceChildren(new Option("System default", ""), ...options);
      list.value = own.some(({ deviceId }) => deviceId === this.chosen[kind]) ? this.chosen[kind] : "";
    }
  }

  get input() {
    return this.chosen.audioinput;
  }

  // Let a context sound there; where it is no more, as the system has it.
  async send(context) {
    if (!context.setSinkId) return;
    await context.setSinkId(this.chosen.audiooutput).catch(() => context.setSinkId("").catch(() => {}));
  }
}
