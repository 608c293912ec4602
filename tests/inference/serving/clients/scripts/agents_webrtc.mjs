// @openai/agents-realtime in a page, by WebRTC: what agents_webrtc.py opens.

import { OpenAIRealtimeWebRTC, RealtimeAgent, RealtimeSession, tool } from "./openai-realtime-agents.mjs";
import { agentOf, Dialogue, GREET, watch } from "./dialogue.mjs";

const LOOK_MS = 20;
const QUIETEST = 1e-4; // level of a loudspeaker that says something
const LONGEST_MS = 90_000;

const sleep = (ms) => new Promise((then) => setTimeout(then, ms));

export async function talk(url, apiKey, task) {
    const dialogue = new Dialogue(task, ["output_audio_buffer.stopped", "output_audio_buffer.cleared"]);
    const audio = new AudioContext({ sampleRate: 48_000 });
    await audio.resume();
    const question = await audio.decodeAudioData(await (await fetch("question.wav")).arrayBuffer());
    const microphone = audio.createMediaStreamDestination();
    const room = new ConstantSourceNode(audio, { offset: 0 }); // silence: a microphone is never without any sound
    room.connect(microphone);
    room.start();
    const loudspeaker = new Audio();
    const transport = new OpenAIRealtimeWebRTC({
        baseUrl: `${url}/realtime/calls`,
        mediaStream: microphone.stream,
        audioElement: loudspeaker,
    });
    const agent = agentOf({ RealtimeAgent, tool }, dialogue);
    const session = new RealtimeSession(agent, { transport, model: "gpt-realtime", tracingDisabled: true });
    watch(session, dialogue);
    await session.connect({ apiKey });
    const listening = listen(audio, loudspeaker.srcObject, dialogue);
    if (task === "functions") {
        transport.requestResponse({ instructions: GREET });
    }

    const end = performance.now() + LONGEST_MS;
    async function until(ready) {
        while (!ready() && !dialogue.errors.length) {
            if (performance.now() > end) dialogue.fail("the answer does not come");
            await sleep(LOOK_MS);
        }
    }
    const { questions, over } = dialogue.plan;
    for (const [ready, pauseS] of questions) {
        await until(ready);
        await sleep(1000 * pauseS);
        const source = new AudioBufferSourceNode(audio, { buffer: question });
        source.connect(microphone);
        source.start();
        await new Promise((then) => source.addEventListener("ended", then));
    }
    await until(over);
    clearInterval(listening);
    session.close();
    return dialogue.report();
}

// What can be heard of the answers, by its level.
function listen(audio, stream, dialogue) {
    const analyser = new AnalyserNode(audio, { fftSize: 1024 });
    audio.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    let before = performance.now();
    return setInterval(() => {
        const now = performance.now();
        analyser.getFloatTimeDomainData(samples);
        if (samples.some((sample) => Math.abs(sample) > QUIETEST)) dialogue.sound((now - before) / 1000);
        before = now;
    }, LOOK_MS);
}
