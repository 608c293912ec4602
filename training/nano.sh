#!/bin/sh
# Rebuild nano, the bundled model, from nothing but this repository, Debian's synthesisers and, if they are there, the
# recordings in $RECORDINGS. Run it again after a stop: every step goes on where it was.
#
#   training/nano.sh [OUT]        WORK, RUNS: folders for data and runs; PYTHON: which one
set -eu
out=${1:-checkpoints/nano}
work=${WORK:-work} runs=${RUNS:-runs} python=${PYTHON:-python}
duologue() { "$python" -m duologue "$@"; }

# 1. Speech. Questions in many voices; answers in the one voice of the reply; held-out questions in voices set aside.
duologue prepare questions out="$work/questions" n=18000 seed=1
duologue prepare questions out="$work/dev_questions" n=160 seed=900 split=dev voices=dev drills=0 shard_size=40
duologue prepare replies out="$work/replies" n=4000 seed=2
speech=$work/questions noises=none
if [ -n "${RECORDINGS:-}" ]; then
    duologue prepare recordings source="$RECORDINGS" out="$work/recordings" part=train
    duologue prepare recordings source="$RECORDINGS" out="$work/noises" part=noises
    speech=$speech,$work/recordings noises=$work/noises
fi

# 2. The ear, and the mind as text.
duologue train asr_pretrain data="$speech" noises="$noises" dev_data="$work/dev_questions" out="$runs/asr_pretrain"
duologue train text_sft out="$runs/text_sft"

# 3. Units of the reply's voice, from a middle layer of the ear, and the vocoder that speaks them.
duologue prepare units data="$work/replies" quantiser="$work/units" checkpoint="$runs/asr_pretrain" layer=3
duologue train unit_vocoder data="$work/replies" out="$runs/unit_vocoder"

# 4. Ear and mind together (LLaMA-Omni's stage 1), then the unit decoder (its stage 2).
duologue train speech_to_text data="$work/questions" noises="$noises" dev_data="$work/dev_questions" \
    start="encoder=$runs/asr_pretrain,llm=$runs/text_sft" out="$runs/speech_to_text"
duologue train unit_decoder data="$work/replies" start="llm=$runs/speech_to_text" out="$runs/unit_decoder"

# 5. One checkpoint, measured in voices that were set aside.
"$python" -m duologue.training.assemble "$out" encoder="$runs/asr_pretrain" adaptor="$runs/speech_to_text" \
    llm="$runs/speech_to_text" unit_decoder="$runs/unit_decoder" vocoder="$runs/unit_vocoder"
duologue evaluate s2s --model "$out" --profile quick -o "$runs/evaluation"
