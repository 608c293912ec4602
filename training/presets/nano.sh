#!/usr/bin/env bash
# Rebuild nano, a model as the bundled one, from nothing: its data, its six stages, the checkpoint, its figures, its card.
#
#   training/presets/nano.sh                           on two cores or on a GPU, whatever is there
#   RECORDINGS=folder training/presets/nano.sh         with real recordings too (a folder with manifest.jsonl)
#   TTS='my-tts {text} {wav}' training/presets/nano.sh with one more voice, which that command speaks in
#   training/presets/nano.sh data                      up to the data; or up to: stages, checkpoint, figures (all)
#   SCALE=0.01 WORK=trial/work RUNS=trial/runs OUT=trial/nano training/presets/nano.sh    a hundredth of everything, to see the path run
#
# Broken off, it goes on where it stopped: what is there is not made again. The data can be prepared on one machine (it
# needs espeak-ng, flite and festival; RHVoice, ttspico and Kokoro add voices) and WORK carried to another for the stages,
# which need none of them.
set -euo pipefail
cd "$(dirname "$0")/../.."

OUT=${OUT:-checkpoints/nano}         # the checkpoint
WORK=${WORK:-work}                   # data sets
RUNS=${RUNS:-runs}                   # training runs
SCALE=${SCALE:-1}                    # of clips, steps and questions asked
RECORDINGS=${RECORDINGS:-}           # optional
TTS=${TTS:-}                         # optional
MACHINE=${MACHINE:-$(nproc --all) CPU cores}  # where the stages were trained, as the card calls it
NOTE=${NOTE:-}                       # on this run on the acceptance questions, for the card
LIKE=${LIKE:-checkpoints/nano}       # the model whose description and acceptance runs the card goes on with
PYTHON=${PYTHON:-.venv/bin/python}
UPTO=${1:-figures}

case $UPTO in data | stages | checkpoint | figures) ;; *)
    echo "training/presets/nano.sh: there is no step $UPTO; the steps are data, stages, checkpoint, figures" >&2
    exit 2 ;;
esac

duologue() { "$PYTHON" -m duologue "$@"; }
say() { printf '\n== %s\n' "$*"; }
scaled() { awk -v n="$1" -v least="$2" -v by="$SCALE" 'BEGIN { n = int(n * by + 0.5); print (n > least ? n : least) }'; }
commas() { local IFS=,; echo "$*"; }
finished() { [[ -f $1/dataset.json ]] && grep -q '"complete": true' "$1/dataset.json"; }
prepare() { # RECIPE FOLDER key=value…
    finished "$2" && return
    say "data: $2"
    duologue prepare "$1" out="$2" "${@:3}"
}
train() { # STAGE RUN key=value…
    say "stage: $1, in $RUNS/$2"
    local less=()
    if [[ $SCALE != 1 && " $* " != *" steps="* ]]; then
        steps=$("$PYTHON" -c "from duologue.training.main import resolve; print(resolve('$1', []).steps)")
        less=(steps="$(scaled "$steps" 2)")
    fi
    duologue train "$1" out="$RUNS/$2" "${@:3}" ${less[@]+"${less[@]}"}
}

# 1. Data. Each set has a seed of its own. The units are clusters of MFCC, which need no trained ear.
prepare questions "$WORK/questions" n="$(scaled 9000 40)" seed=1
prepare questions "$WORK/questions2" n="$(scaled 9000 40)" seed=12
prepare questions "$WORK/questions3" n="$(scaled 9000 40)" seed=13
# Half of it drills, and all of it in the voices that sound most like people.
prepare questions "$WORK/questions4" n="$(scaled 12000 40)" seed=14 drills=0.5 \
    voices=flite:rms,flite:kal16,festival:kal_diphone
prepare questions "$WORK/questions5" n="$(scaled 4000 40)" seed=15 drills=0.8
prepare questions "$WORK/questions6" n="$(scaled 9000 40)" seed=16 drills=0.3 \
    voices=flite:rms,flite:kal16,festival:kal_diphone
questions=("$WORK"/questions "$WORK"/questions{2,3,4,5,6,9,10,10,11,14,15,19,21})
# What came in later, by itself: the clock, orders, questions that go on from another, what nano does not know.
newer=clock,orders,follow_up,outside,repeat,knowledge,spelling
prepare questions "$WORK/questions9" n="$(scaled 3500 40)" seed=19 drills=0.12 only=$newer \
    voices=flite:rms,flite:kal16,festival:kal_diphone
prepare questions "$WORK/questions10" n="$(scaled 5000 40)" seed=20 drills=0.12 only=$newer
prepare questions "$WORK/questions11" n="$(scaled 2500 40)" seed=21 drills=1
# Words that nothing foretells, and short questions of which there are few.
prepare questions "$WORK/questions14" n="$(scaled 2000 40)" seed=24 drills=0.15 alone=0.4 only=repeat
few=small_talk,outside,knowledge,capitals
prepare questions "$WORK/questions15" n="$(scaled 1200 40)" seed=25 drills=0.1 only=$few
# What was said, once more: the ways of asking are few, but each clip goes on from another turn each time.
prepare questions "$WORK/questions19" n="$(scaled 2200 40)" seed=29 drills=0 only=follow_again
# In two breaths, as people ask who think between them: each is said by itself, so the first falls like a whole question.
prepare questions "$WORK/questions21" n="$(scaled 4700 40)" seed=43 drills=0 pauses=1
# Voices made by statistics from people's recordings, as most of those that nano is tested on: they count twice.
if command -v RHVoice-test > /dev/null && "$PYTHON" -c 'import ttspico' 2> /dev/null; then
    prepare questions "$WORK/questions7" n="$(scaled 9000 40)" seed=17 drills=0.45 voices=more
    prepare questions "$WORK/questions8" n="$(scaled 7000 40)" seed=18 drills=0.12 voices=more only=$newer
    prepare questions "$WORK/questions12" n="$(scaled 1500 40)" seed=22 drills=1 voices=more
    prepare questions "$WORK/questions16" n="$(scaled 900 40)" seed=26 drills=1 alone=1 voices=more
    prepare questions "$WORK/questions20" n="$(scaled 1200 40)" seed=30 drills=0 voices=more only=follow_again
    prepare questions "$WORK/questions22" n="$(scaled 1800 40)" seed=44 drills=0 pauses=1 voices=more
    prepare asides "$WORK/asides2" n="$(scaled 3000 40)" seed=32 voices=more
fi
asides=("$WORK/asides")
if finished "$WORK/asides2"; then
    questions+=("$WORK"/questions{7,7,8,8,12,16,20,20,22})
    asides+=("$WORK/asides2")
else
    say "without RHVoice (bdl, clb) and ttspico: nano hears fewer voices than the card counts"
fi
if [[ -n ${DUOLOGUE_KOKORO:-} ]]; then # dozens of people, by a neural synthesiser (data_prep/speech/engines/kokoro.py)
    prepare questions "$WORK/questions13" n="$(scaled 4000 40)" seed=23 drills=0.15 voices=neural
    prepare questions "$WORK/questions17" n="$(scaled 800 40)" seed=27 drills=1 alone=1 voices=neural
fi
if finished "$WORK/questions17"; then questions+=("$WORK"/questions{13,17}); fi
if [[ -n $TTS ]]; then
    prepare questions "$WORK/questions18" n="$(scaled 1500 40)" seed=28 drills=0.3 tts_command="$TTS"
fi
if finished "$WORK/questions18"; then questions+=("$WORK/questions18"); fi
prepare questions "$WORK/dev_questions" n="$(scaled 160 16)" seed=900 split=dev voices=dev drills=0 shard_size=40
prepare asides "$WORK/asides" n="$(scaled 9000 40)" seed=31
prepare asides "$WORK/dev_asides" n="$(scaled 200 16)" seed=33 split=dev voices=dev shard_size=40
prepare questions "$WORK/dev_questions2" n="$(scaled 200 16)" seed=902 split=dev voices=dev drills=0 shard_size=50 \
    only=$newer
# Of 8,000 the voice learns much by heart.
prepare replies "$WORK/replies" n="$(scaled 13000 80)" seed=2
# What is counted out is the longest that is said: months and letters, too, or the voice learns days by heart.
prepare replies "$WORK/replies2" n="$(scaled 1500 40)" seed=3 drills=0 practice=0.6 \
    only=days_after,days_after_more,months_after_practice,letters_after_practice
replies=("$WORK"/replies{,2})
if [[ -n $RECORDINGS ]]; then
    prepare recordings "$WORK/recordings_train" source="$RECORDINGS" part=train
    prepare recordings "$WORK/noises" source="$RECORDINGS" part=noises
    prepare spliced "$WORK/spliced" source="$WORK/recordings_train" n="$(scaled 3000 40)" seed=40
    prepare sounds "$WORK/sounds" source="$RECORDINGS" n="$(scaled 1600 40)" seed=41
fi
for folder in "${replies[@]}"; do # the units are those of the first
    [[ ! -f $folder/units.jsonl ]] || continue
    say "units: $folder"
    duologue prepare units data="$folder" quantiser="$WORK/units"
done
heard=("${questions[@]}")
noises=()
for folder in recordings_train spliced sounds; do
    if finished "$WORK/$folder"; then heard+=("$WORK/$folder"); fi
done
if finished "$WORK/noises"; then noises=(noises="$WORK/noises"); fi
[[ $UPTO != data ]] || exit 0

# 2. Stages.
dev=(dev_data="$WORK/dev_questions,$WORK/dev_questions2")
train asr_pretrain asr_pretrain data="$(commas "${heard[@]}")" "${dev[@]}" ${noises[@]+"${noises[@]}"}
train text_sft text_sft
talk=("${heard[@]}" "${asides[@]}")
train speech_to_text speech_to_text start="encoder=$RUNS/asr_pretrain,llm=$RUNS/text_sft" \
    data="$(commas "${talk[@]}")" "${dev[@]}" ${noises[@]+"${noises[@]}"}
# The encoder learns with the rest, from clips in voices that nobody has, so that voices nobody trained it on are less new.
# What the encoder's steps would cost, written sums above all, is gone over in writing beside them.
kinds=arithmetic,sequence,repeat,follow_up,clock,comparison,calendar,small_talk,outside
joint() { # RUN start key=value…
    train duplex "$1" start="$2" learn=encoder,monitor,adaptor,llm augment=voices text_fraction=1 text_only=$kinds \
        pause_fraction=0.7 data="$(commas "${talk[@]}")" \
        dev_data="$WORK/dev_questions,$WORK/dev_questions2,$WORK/dev_asides" ${noises[@]+"${noises[@]}"} "${@:3}"
}
joint duplex "encoder=$RUNS/asr_pretrain,adaptor=$RUNS/speech_to_text,llm=$RUNS/speech_to_text"
# Then two ways on from there, of which the mean is taken.
whole="encoder=$RUNS/duplex,adaptor=$RUNS/duplex,llm=$RUNS/duplex,monitor=$RUNS/duplex"
joint duplex_a "$whole" seed=1 steps="$(scaled 1200 2)"
joint duplex_b "$whole" seed=2 steps="$(scaled 1200 2)"
both=$RUNS/duplex_a+$RUNS/duplex_b
# Mostly in writing, with practice in counting; then by ear again, for that costs the transcript; and of all a mean.
start="encoder=$both,adaptor=$both,llm=$both,monitor=$both"
joint words "$start" learn=monitor,adaptor,llm text_fraction=5 practice=0.5 batch_size=12 lr=1e-3 steps="$(scaled 600 2)"
start="encoder=$both,adaptor=$RUNS/words,llm=$RUNS/words,monitor=$RUNS/words"
joint duplex_c "$start" learn=monitor,adaptor,llm text_fraction=1.5 practice=0.4 steps="$(scaled 400 2)"
mean="0.7*$RUNS/duplex_c+0.15*$RUNS/duplex_a+0.15*$RUNS/duplex_b"
# The monitor goes on by itself, on the finished model: more pauses, which cost the rest nothing.
breaths=("$WORK/questions21")
if finished "$WORK/questions22"; then breaths+=("$WORK/questions22"); fi
train duplex monitor start="encoder=$both,adaptor=$mean,llm=$mean,monitor=$mean" learn=monitor augment=voices \
    pause_fraction=0.75 batch_size=32 lr=1e-3 steps="$(scaled 300 2)" data="$(commas "${talk[@]}" "${breaths[@]}")" \
    "${dev[@]}" ${noises[@]+"${noises[@]}"}
# The word monitor reads what the finished model writes down.
train word_monitor word_monitor start="encoder=$both,adaptor=$mean,llm=$mean" data="$(commas "${talk[@]}")" \
    dev_data="$WORK/dev_questions,$WORK/dev_questions2,$WORK/dev_asides" scenes="$(scaled 8000 64)" \
    ${noises[@]+"${noises[@]}"}
train unit_decoder unit_decoder start="llm=$mean" data="$(commas "${replies[@]}")"
train unit_vocoder unit_vocoder data="$(commas "${replies[@]}")"
[[ $UPTO != stages ]] || exit 0

# 3. The checkpoint, with a card that says it has not been measured. The card to go on with is copied first, once: the
# checkpoint may take its place.
say "checkpoint: $OUT"
like=$RUNS/card.json
mkdir -p "$RUNS"
if [[ ! -f $like && -f $LIKE/card.json ]]; then cp "$LIKE/card.json" "$like"; fi
duologue assemble "$OUT" encoder="$both" adaptor="$mean" llm="$mean" monitor="$RUNS/monitor" \
    word_monitor="$RUNS/word_monitor" unit_decoder="$RUNS/unit_decoder" vocoder="$RUNS/unit_vocoder"
sets=($(printf '%s\n' "${heard[@]}" | sort -u) "${asides[@]}" "${replies[@]}")
if finished "$WORK/noises"; then sets+=("$WORK/noises"); fi
runs=("$RUNS"/{asr_pretrain,text_sft,speech_to_text,duplex,duplex_a,duplex_b,words,duplex_c,monitor,word_monitor,unit_decoder,unit_vocoder})
facts=(data="$(commas "${sets[@]}")" runs="$(commas "${runs[@]}")" machine="$MACHINE")
if [[ -f $like ]]; then facts+=(like="$like"); fi
duologue card "$OUT" "${facts[@]}"
[[ $UPTO != checkpoint ]] || exit 0

# 4. Its figures in voices that it never heard, and the card that states them. The folder is named by the weights, so
# that no model is credited with the figures of another.
figures=$RUNS/figures-$(sha256sum "$OUT/model.safetensors" | cut -c1-12)
say "figures: $figures"
duologue evaluate s2s --model "$OUT" -o "$figures" profile=card questions="$(scaled 600 6)"
duologue card "$OUT" reports="$figures/report.json" accept="$NOTE"
cp "$OUT/card.json" "$like"  # the next checkpoint goes on with these acceptance runs
say "done: $OUT"
