// @openai/agents-realtime in node, by WebSocket.
//
//     node agents_websocket.mjs http://127.0.0.1:8000/v1 question.wav turns|functions

import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";
import { agentOf, Dialogue, GREET, watch } from "./dialogue.mjs";

const BLOCK_S = 0.02;
const SIZE = 2 * 24_000 * BLOCK_S;
const LONGEST_S = 90;
const HEADER = 44; // bytes of the WAV file

const [url, recording, task] = process.argv.slice(2);
const dialogue = new Dialogue(task);
const question = (await readFile(recording)).subarray(HEADER);
const session = new RealtimeSession(agentOf({ RealtimeAgent, tool }, dialogue), {
    transport: "websocket",
    model: "gpt-realtime",
    tracingDisabled: true,
});
watch(session, dialogue);
session.on("audio", (event) => dialogue.sound(event.data.byteLength / 48_000));
await session.connect({ apiKey: "none", url: `${url.replace("http", "ws")}/realtime?model=gpt-realtime` });
if (task === "functions") {
    session.transport.requestResponse({ instructions: GREET });
}

function* blocks() {
    const { questions, over } = dialogue.plan;
    const silence = Buffer.alloc(SIZE);
    for (const [ready, pauseS] of questions) {
        while (!ready()) yield silence;
        for (let s = 0; s < pauseS; s += BLOCK_S) yield silence;
        for (let at = 0; at < question.length; at += SIZE) {
            yield Buffer.concat([question.subarray(at, at + SIZE)], SIZE);
        }
    }
    while (!over()) yield silence;
}

const began = performance.now();
let at = 0;
for (const block of blocks()) {
    if (dialogue.errors.length) break;
    if (at * BLOCK_S > LONGEST_S) {
        dialogue.fail("the answer does not come");
        break;
    }
    session.sendAudio(block.buffer.slice(block.byteOffset, block.byteOffset + block.byteLength));
    at += 1;
    await sleep(Math.max(0, began + 1000 * at * BLOCK_S - performance.now()));
}
session.close();
console.log(JSON.stringify(dialogue.report()));
