#!/usr/bin/env bash
# mini from nothing: an encoder and a language model from elsewhere stay as they are; between them an adaptor is trained,
# behind them a voice, and a monitor that knows when to answer.
#
#   BASE=base.json bash training/mini.sh WORK questions QUESTIONS.tsv    columns split (train, val, test) and text
#   BASE=base.json bash training/mini.sh WORK STAGE…                     answers speech adaptor replies voice monitor assemble
#   BASE=base.json bash training/mini.sh WORK figures TEST.tsv           columns text, and slot: words of a right answer
#
# In this order; what is there is not made again, and a stage that is broken off goes on where it stopped. `train` rows
# are learnt from, `val` rows choose, and what a `test` row says is left out. Everything lies below WORK; the model is
# WORK/mini. BASE names the encoder and the language model (docs/files.md, Base weights). `figures` measures the model, and
# beside it a cascade of RECOGNISER, the same language model and VOICE, and writes what it found into the model's card.
set -euo pipefail

WORK=${1:?the folder to work in} && shift
BASE=${BASE:-}
RECORDINGS=${RECORDINGS:-}  # sounds and people, a folder with manifest.jsonl (docs/recordings.md)
RECOGNISER=${RECOGNISER:-}  # a Whisper that labels the people whom nobody has written down
LEXICON=${LEXICON:-}        # words and names, one a line: heard in the places of common ones
VOICE=${VOICE:-flite:rms}   # speaks the replies
WORKERS=${WORKERS:-0}       # processes that speak; 0: one a processor. Kokoro joins where DUOLOGUE_KOKORO is set
SCALE=${SCALE:-1}           # of clips, answers and steps: 0.01 to see the path run
PYTHON=${PYTHON:-$(dirname "$0")/../.venv/bin/python}
BRIEF="Answer in one short sentence."

duologue() { "$PYTHON" -m duologue "$@"; }
say() { printf '\n== %s\n' "$*"; }
scaled() { awk -v n="$1" -v least="${2:-40}" -v by="$SCALE" 'BEGIN { n = int(n * by + 0.5); print (n > least ? n : least) }'; }
finished() { [[ -f $1/dataset.json ]] && grep -q '"complete": true' "$1/dataset.json"; }
base() { # encoder | llm: that part of BASE, read once into WORK
    [[ -f $WORK/$1/config.json ]] || duologue import base "$BASE" "$WORK/$1" part="$1"
}
written() { # RECIPE FILE key=value…: a file of conversations
    [[ ! -f $WORK/$2 ]] || return 0
    say "$2"
    duologue prepare "$1" out="$WORK/$2" "${@:3}"
}
spoken() { # RECIPE SET key=value…: a data set
    ! finished "$WORK/$2" || return 0
    say "$2"
    duologue prepare "$1" out="$WORK/$2" "${@:3}"
}
there() { # NAME…: those of the sets that are there, with commas between
    local found=""
    for name in "$@"; do if finished "$WORK/$name"; then found+=${found:+,}$WORK/$name; fi; done
    echo "$found"
}
train() { # STAGE key=value…
    say "$1"
    local less=()
    if [[ $SCALE != 1 ]]; then less=(steps="$(scaled 2000 2)"); fi
    duologue train "$1" out="$WORK/runs/$1" "${@:2}" ${less[@]+"${less[@]}"}
}

questions() { # FILE: what is asked, in an order that is drawn
    written dialogues questions.jsonl source="$1" where=split=train without=split=test,val shuffle=1
    written dialogues val.jsonl source="$1" where=split=val without=split=test shuffle=1 n="$(scaled 400)"
}

brief() { written answers "$1" source="$WORK/$2" n="$3" llm="$WORK/llm" system="$BRIEF" sentences=1; }
more() { written answers "$1" source="$WORK/$2" n="$3" llm="$WORK/llm" ask="$4" into="$5" sentences=1 max_tokens=32; }

answers() { # What the language model writes
    base llm
    brief chat.jsonl questions.jsonl "$(scaled 12000)"
    brief val_chat.jsonl val.jsonl "$(scaled 200)"
    more wordings.jsonl questions.jsonl "$(scaled 4000)" \
        "Rewrite this question in other words. Write only the new question."$'\n'"{text}" text
    more follow_ups.jsonl chat.jsonl "$(scaled 3000)" \
        "Question: {text}"$'\n'"Answer: {reply}"$'\n'"Write a short follow-up question about the answer." follow_up
    brief talks.jsonl follow_ups.jsonl "$(scaled 3000)"
    local begin='Somebody chats with a friend and mentions the topic "{text}". Write the one sentence that they say, beginning with'
    more statements.jsonl questions.jsonl "$(scaled 4000)" \
        "$begin \"Yesterday I\".|$begin \"My sister\".|$begin \"We\".|$begin \"I\".|$begin \"Last week he\".|$begin \"It\"." \
        statement
    written dialogues facts.jsonl source="$WORK/chat.jsonl" said=reply
}

say_aloud() { # SET FILE key=value…
    if [[ -f $WORK/$2 ]]; then spoken turns "$1" source="$WORK/$2" workers="$WORKERS" "${@:3}"; fi
}
no_speech() { spoken no_speech "$@" workers="$WORKERS" ${RECORDINGS:+source="$RECORDINGS"}; }
people() { spoken recordings "$@" source="$RECORDINGS" recogniser="$RECOGNISER" held_out=0.5 shard_clips=20; }

speech() { # The questions twice, each time in other voices, and all that the language model wrote: about 60 hours
    say_aloud questions_1 questions.jsonl seed=1
    say_aloud questions_2 questions.jsonl seed=2
    say_aloud said_chat chat.jsonl seed=3
    say_aloud said_wordings wordings.jsonl seed=4
    say_aloud said_talks talks.jsonl seed=5
    say_aloud said_statements statements.jsonl seed=6
    say_aloud said_facts facts.jsonl seed=8
    if [[ -n $LEXICON ]]; then
        written dialogues names.jsonl source="$WORK/questions.jsonl" swap="$LEXICON"
        say_aloud said_names names.jsonl seed=9
    fi
    if [[ -n ${DUOLOGUE_KOKORO:-} && -f $WORK/chat.jsonl ]]; then # about 4 hours
        written dialogues neural.jsonl source="$WORK/chat.jsonl" shuffle=1 seed=1 n="$(scaled 5500)"
        say_aloud neural neural.jsonl seed=7 voices=neural
    fi
    say_aloud val val.jsonl voices=dev
    say_aloud val_chat val_chat.jsonl voices=dev
    no_speech none n="$(scaled 3000)" seed=1
    no_speech val_none n="$(scaled 200)" seed=2 part=noises_dev
    if [[ -n $RECORDINGS ]]; then spoken recordings noises source="$RECORDINGS" part=noises; fi
    if [[ -n $RECORDINGS && -n $RECOGNISER ]]; then
        people readers part=speech
        people val_readers part=speech_held_out
    fi
}

adaptor() { # Words of the language model from the encoder's frames. The language model itself does not run.
    base encoder
    base llm
    train ctc_adaptor preset=mini encoder="$WORK/encoder" llm="$WORK/llm" \
        data="$(there questions_1 questions_2 said_chat said_wordings said_talks said_statements said_facts said_names \
            neural readers none)" \
        dev_data="$(there val val_readers val_none)" ${noises[@]+"${noises[@]}"}
}

replies() { # What the language model answers, and the questions, in one voice; and the units of its speech
    base encoder
    written dialogues reading.jsonl source="$WORK/questions.jsonl" instruction="Say this aloud." reply=text \
        n="$(scaled 7000)"
    say_aloud reading reading.jsonl part=replies voices="$VOICE"
    say_aloud replies chat.jsonl part=replies voices="$VOICE"
    say_aloud val_replies val_chat.jsonl part=replies voices="$VOICE"
    for name in $(there reading replies val_replies | tr , ' '); do # the units are those of the first
        [[ -f $name/units.jsonl ]] || duologue prepare units data="$name" quantiser="$WORK/units" \
            checkpoint="$WORK/encoder" layer=4 judge=0
    done
}

voice() { # Units from spelling alone, so that it speaks for any language model; samples from units
    base llm
    train unit_decoder preset=mini llm="$WORK/llm" state_dropout=1 \
        data="$(there reading replies)" dev_data="$WORK/val_replies"
    [[ -d $WORK/runs/narrow ]] || duologue grow "$WORK/runs/narrow" vocoder=nano
    train unit_vocoder preset=mini start=vocoder="$WORK/runs/narrow" data="$(there reading replies)"
}

monitor() { # When to answer: questions, their pauses, what is said to nobody here, sounds; most of it in writing
    base encoder
    base llm
    written dialogues asked.jsonl source="$WORK/questions.jsonl" n="$(scaled 8000)"
    written dialogues asides.jsonl source=nano said=aside n="$(scaled 4000)"
    train duplex preset=llama-omni encoder="$WORK/encoder" llm="$WORK/llm" adaptor="$WORK/runs/ctc_adaptor" \
        data="$(there said_chat said_talks said_statements said_facts none)" dev_data="$(there val_chat)" \
        texts="$WORK/asked.jsonl,$WORK/asides.jsonl,$WORK/statements.jsonl" instructions="$BRIEF" monitor.hidden_dim=32 \
        scenes="$(scaled 800)" window.left_ms=4000 ${noises[@]+"${noises[@]}"}
}

assemble() { # With what is likely to be said: the n-grams of the questions
    if [[ ! -f $WORK/questions.arpa ]]; then
        say questions.arpa
        duologue lm train "$WORK/questions.jsonl" -o "$WORK/questions.arpa"
    fi
    say "$WORK/mini"
    duologue assemble "$WORK/mini" base="$BASE" adaptor="$WORK/runs/ctc_adaptor" monitor="$WORK/runs/duplex" \
        unit_decoder="$WORK/runs/unit_decoder" vocoder="$WORK/runs/unit_vocoder" llm_dtype=auto instructions="$BRIEF" \
        lm="$WORK/questions.arpa" lm_bonus=2.5
}

measured() { # SUITE MODEL key=value…
    local name=$1-$2
    reports+=${reports:+,}$WORK/figures/$name/report.json
    [[ ! -f $WORK/figures/$name/report.json ]] || return 0
    say "figures/$name"
    duologue evaluate "$1" --model "$WORK/$2" --data "$WORK/test.jsonl" --output "$WORK/figures/$name" \
        profile=card "${@:3}"
}

figures() { # TEST: in the voices that nothing was trained on
    local reports=""
    written dialogues test.jsonl source="$1" shuffle=1 n="$(scaled 300)"
    measured asr mini
    measured s2s mini questions="$(scaled 300)" recogniser="$RECOGNISER"
    measured latency mini
    measured duplex mini recogniser="$RECOGNISER"
    duologue card "$WORK/mini" reports="$reports" accept="questions and voices that nothing was trained on"
    printf '{"cascade": {"llm": "llm", "recogniser": "%s", "voice": "%s"}}\n' "$RECOGNISER" "$VOICE" > "$WORK/cascade.json"
    measured s2s cascade.json questions="$(scaled 300)" recogniser="$RECOGNISER"
}

mkdir -p "$WORK"
: "${1:?which stage? See the first lines of training/mini.sh}"
while [[ $# -gt 0 ]]; do
    stage=$1 && shift
    noises=()
    if finished "$WORK/noises"; then noises=(noises="$WORK/noises"); fi
    case $stage in
    questions) questions "${1:?questions needs a table, QUESTIONS.tsv}" && shift ;;
    figures)
        : "${RECOGNISER:?figures needs RECOGNISER, a Whisper that hears the replies}"
        figures "${1:?figures needs a table, TEST.tsv}" && shift ;;
    speech | replies) $stage ;;
    answers | adaptor | voice | monitor | assemble)
        : "${BASE:?$stage needs BASE, a JSON file that names the encoder and the language model}"
        $stage ;;
    *)
        echo "training/mini.sh: there is no stage $stage; the stages are questions, answers, speech, adaptor, replies," \
            "voice, monitor, assemble, figures" >&2
        exit 2 ;;
    esac
done
