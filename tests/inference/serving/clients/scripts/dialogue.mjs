// What the JavaScript clients share, in node and in a page: the user of dialogue.py, without a microphone of its own.

export const TOOL = {
    name: "weather",
    description: "The weather of a place.",
    parameters: { type: "object", properties: { place: { type: "string" } }, required: ["place"] },
};
export const RESULT = "rain";
export const GREET = "Greet.";
const PAUSE_S = 0.5;
const OVER_S = 0.4;

export class Dialogue {
    // task: "turns" or "functions", see dialogue.py. ends: the events with which an answer is over.
    constructor(task, ends = ["response.done"]) {
        this.task = task;
        this.ends = ends;
        this.heard = [];
        this.said = [""];
        this.audio_s = [0];
        this.calls = [];
        this.errors = [];
    }

    // When the question is to be asked, each time: whether the time has come, and the silence before it in seconds; and
    // when all is over.
    get plan() {
        const answered = (times) => () => this.said.length > times;
        if (this.task === "functions") {
            return { questions: [[answered(1), PAUSE_S]], over: answered(2) };
        }
        return {
            questions: [
                [() => true, 2 * PAUSE_S],
                [() => this.audio_s[0] > OVER_S, 0],
                [answered(2), PAUSE_S],
            ],
            over: answered(3),
        };
    }

    // An event of the protocol, as the client hands it on.
    note(event) {
        if (event.type === "conversation.item.input_audio_transcription.completed") {
            this.heard.push(event.transcript.trim());
        } else if (event.type === "response.output_audio_transcript.delta") {
            this.said[this.said.length - 1] += event.delta;
        }
        if (this.ends.includes(event.type)) {
            this.end();
        }
    }

    sound(seconds) {
        this.audio_s[this.audio_s.length - 1] += seconds;
    }

    call(name, args) {
        this.calls.push([name, args]);
        return RESULT;
    }

    // An answer is over; one that only called a function is none.
    end() {
        if (this.said.at(-1).trim() || this.audio_s.at(-1)) {
            this.said.push("");
            this.audio_s.push(0);
        }
    }

    fail(error) {
        this.errors.push(error instanceof Error ? String(error) : JSON.stringify(error));
    }

    report() {
        const { heard, said, audio_s, calls, errors } = this;
        return { heard, said, audio_s, calls, errors };
    }
}

// The user's side of an agents session: its agent, and what it notes.
export function agentOf({ RealtimeAgent, tool }, dialogue) {
    const weather = tool({
        ...TOOL,
        strict: false,
        execute: async (input) => dialogue.call(TOOL.name, JSON.stringify(input)),
    });
    return new RealtimeAgent({ name: "Duologue", instructions: "", tools: dialogue.task === "functions" ? [weather] : [] });
}

export function watch(session, dialogue) {
    session.on("transport_event", (event) => dialogue.note(event));
    session.on("error", (event) => dialogue.fail(event.error));
}
