// The connection of the live conversation. It opens when it is needed, tells a new session what was said before, and
// says in words that help why it ended.
import { Problem, connect, reason } from "../service.js";

const ENDED = {
  session_idle_timeout: ["Are you still there?", "Nothing has come from this page for a while, so your place was given back. Start talking or write, and it goes on where you were."],
  session_expired: ["The time is over", "A conversation may not last longer. Start talking or write: a new one begins, which knows what was said."],
  rate_limit_exceeded: ["The connection was closed", "This page sent more than the service takes. Start talking or write to go on."],
};

export class Connection {
  // begun() sends what a session begins with; happened(event); lost(problem, silent): silent where nobody need be told.
  constructor({ begun, happened, lost }) {
    Object.assign(this, { begun, happened, lost });
    this.socket = null;
  }

  get open() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  // Resolves once events can be sent. patience: for how long a full service is asked again, ms.
  async ready(patience = 0) {
    const until = performance.now() + patience;
    for (;;) {
      try {
        return await (this.opening ||= this.connect());
      } catch (problem) {
        this.opening = null;
        if (performance.now() >= until || problem.code !== "full") throw problem;
        await new Promise((again) => setTimeout(again, 250));
      }
    }
  }

  connect() {
    const socket = (this.socket = connect());
    let opened = false;
    let ended = ""; // why, as the server's last error has it
    return new Promise((done, failed) => {
      socket.onopen = () => {
        opened = true;
        this.begun();
        done();
      };
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.type === "error") ended = event.error.code;
        if (this.socket === socket && !(ENDED[ended] && event.type === "error")) this.happened(event);
      };
      socket.onclose = async ({ code }) => {
        if (this.socket !== socket) {
          failed(new Problem("No connection", "It was closed."));
          return;
        }
        this.socket = this.opening = null;
        if (!opened) failed(await reason());
        else this.lost(why(code, ended));
      };
    });
  }

  send(event) {
    if (this.open) this.socket.send(JSON.stringify(event));
  }

  // Nobody is told: this page wants it.
  close() {
    const socket = this.socket;
    this.socket = this.opening = null;
    socket?.close();
  }
}

function why(code, ended) {
  if (ENDED[ended]) return new Problem(...ENDED[ended], ended);
  if (code === 1001) return new Problem("The service was shut down", "What was said is still here. Once it is back, start talking or write, and it goes on where you were.", "away");
  if (code === 1011) return new Problem("Something broke", "The service had a fault of its own and hung up. Start talking or write to go on where you were.", "fault");
  return new Problem("The connection was lost", "What was said is still here, and so is what you wrote. Start talking or write, and it goes on where you were.", "lost");
}
