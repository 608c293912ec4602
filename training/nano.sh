#!/usr/bin/env bash
# Rebuild nano, the bundled model, from nothing: its data, its five stages, the checkpoint, its figures, its card.
#
#   training/nano.sh                            on two cores, overnight; on a machine with a GPU, in about an hour
#   RECORDINGS=folder training/nano.sh          with real recordings too (a folder with manifest.jsonl)
#   training/nano.sh data                       up to the data; then: stages, checkpoint, figures
#   OUT=elsewhere SCALE=0.01 training/nano.sh   a hundredth of the steps, to see the whole path run
#
# Broken off, it goes on where it stopped: a step whose result is there is not done again. The data can be prepared on
# one machine (it needs espeak-ng, flite and festival) and work/ carried to another for the stages, which need neither.
set -euo pipefail
cd "$(dirname "$0")/.."

OUT=${OUT:-checkpoints/nano}        # the checkpoint
WORK=${WORK:-work}                  # data sets
RUNS=${RUNS:-runs}                  # training runs
FIGURES=${FIGURES:-$RUNS/figures}   # what the evaluation finds
SCALE=${SCALE:-1}                   # of the steps of every stage and the questions of the evaluation
RECORDINGS=${RECORDINGS:-}          # optional
MACHINE=${MACHINE:-$(nproc) cores}  # as the card calls it
NOTE=${NOTE:-}                      # on this look at the acceptance questions
UPTO=${1:-figures}
PYTHON=${PYTHON:-.venv/bin/python}

export PYTHONUNBUFFERED=1
duologue() { "$PYTHON" -m duologue "$@"; }
say() { printf '\n== %s\n' "$*"; }
finished() { [[ -f $1/dataset.json ]] && grep -q '"complete": true' "$1/dataset.json"; }
prepare() { # RECIPE FOLDER key=value…
    finished "$2" && return
    say "data: $2"
    duologue prepare "$1" out="$2" "${@:3}"
}
steps() { "$PYTHON" -c "print(max(2, round($1 * $SCALE)))"; }
train() { # STAGE STEPS key=value…
    say "stage: $1"
    duologue train "$1" out="$RUNS/$1" steps="$(steps "$2")" "${@:3}"
}
case $UPTO in data | stages | checkpoint | figures) ;; *)
    echo "training/nano.sh: $UPTO is no step; the steps are data, stages, checkpoint, figures" >&2
    exit 2 ;;
esac

# 1. Data. Seeds differ, so that no two sets share a question by construction.
questions=()
for seed in 1 12 13; do
    prepare questions "$WORK/questions$seed" n=9000 seed=$seed
    questions+=("$WORK/questions$seed")
done
prepare questions "$WORK/dev_questions" n=160 seed=900 split=dev voices=dev drills=0 shard_size=40
prepare replies "$WORK/replies" n=4000 seed=2
speech=("${questions[@]}")
noises=()
if [[ -n $RECORDINGS ]]; then
    prepare recordings "$WORK/recordings_train" source="$RECORDINGS" part=train
    prepare recordings "$WORK/noises" source="$RECORDINGS" part=noises
fi
if finished "$WORK/recordings_train"; then speech+=("$WORK/recordings_train"); fi
if finished "$WORK/noises"; then noises=(noises="$WORK/noises"); fi
if [[ ! -f $WORK/replies/units.jsonl ]]; then
    say "units: $WORK/replies"
    duologue prepare units data="$WORK/replies" quantiser="$WORK/units"
fi
[[ $UPTO == data ]] && exit

# 2. Stages.
commas() { local IFS=,; echo "$*"; }
train asr_pretrain 14000 data="$(commas "${speech[@]}")" dev_data="$WORK/dev_questions" "${noises[@]}"
train text_sft 3000
train speech_to_text 4000 start="encoder=$RUNS/asr_pretrain,llm=$RUNS/text_sft" data="$(commas "${questions[@]}")" \
    dev_data="$WORK/dev_questions" "${noises[@]}"
train unit_decoder 6000 start="llm=$RUNS/speech_to_text" data="$WORK/replies"
train unit_vocoder 12000 data="$WORK/replies"
[[ $UPTO == stages ]] && exit

# 3. The checkpoint.
say "checkpoint: $OUT"
"$PYTHON" -m duologue.training.assemble "$OUT" encoder="$RUNS/asr_pretrain" adaptor="$RUNS/speech_to_text" \
    llm="$RUNS/speech_to_text" unit_decoder="$RUNS/unit_decoder" vocoder="$RUNS/unit_vocoder"

card=("$PYTHON" -m duologue.checkpoints.card "$OUT")
for folder in "${speech[@]}" "$WORK/replies"; do card+=(--data "$folder"); done
[[ ${#noises[@]} == 0 ]] || card+=(--data "$WORK/noises")
for stage in asr_pretrain text_sft speech_to_text unit_decoder unit_vocoder; do
    card+=(--run "$RUNS/$stage@$MACHINE")
done
"${card[@]}"
[[ $UPTO == checkpoint ]] && exit

# 4. Its figures in voices that training never heard, and the card that states them. The folder is named by the weights,
# so that another model's figures are not taken for this one's.
say "figures: $FIGURES"
weights=$(sha256sum "$OUT/model.safetensors" | cut -c1-12)
duologue evaluate s2s --profile card --model "$OUT" -o "$FIGURES/$weights"
"${card[@]}" --report "$FIGURES/$weights/report.json" --log checkpoints/acceptance.jsonl --accept "$NOTE"
say "nano is in $OUT"
