#!/usr/bin/env bash
# An ear from speech alone, in LUISE's two iterations: labels of a random quantiser, then of its own best middle layer.
#
#   DATA=work/questions,work/recordings DEV=work/dev_questions training/presets/ssl.sh
#   STEPS=2000 PROBE_STEPS=300 …        shorter; CLUSTERS=500 …   more units
#
# Probes choose the layer and say what each iteration has brought: RUNS/ssl_probe/figures and RUNS/ssl2_probe/figures hold
# the curves over layers, beside random weights and log-mel. Broken off, it goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/../.."

DATA=${DATA:-work/questions}         # speech, sets with commas between
LABELLED=${LABELLED:-${DATA%%,*}}    # what the probes learn from: clips with their text
DEV=${DEV:-work/dev_questions}       # in voices that are in none of them
RUNS=${RUNS:-runs}
STEPS=${STEPS:-}                     # of each iteration; the recipe's own if not given
PROBE_STEPS=${PROBE_STEPS:-}
PROBE_HIDDEN=${PROBE_HIDDEN:-64}     # of the probes' heads; 0: linear ones
CLUSTERS=${CLUSTERS:-200}            # units of the second iteration
MORE=${MORE:-}                       # further key=value of both iterations, for example preset=tiny
PYTHON=${PYTHON:-.venv/bin/python}

duologue() { "$PYTHON" -m duologue "$@"; }
say() { printf '\n== %s\n' "$*"; }
units=ssl_units.jsonl

learn() { # NAME key=value…
    say "iteration: $1"
    # shellcheck disable=SC2086
    duologue train ssl out="$RUNS/$1" data="$DATA" dev_data="$DEV" ${STEPS:+steps=$STEPS} "${@:2}" $MORE
}
probe() { # NAME
    say "probes: $1"
    duologue train probe out="$RUNS/$1_probe" source="$RUNS/$1" data="$LABELLED" dev_data="$DEV" \
        hidden="$PROBE_HIDDEN" ${PROBE_STEPS:+steps=$PROBE_STEPS}
    duologue evaluate probe --data "$RUNS/$1_probe" -o "$RUNS/$1_probe/figures"
}

learn ssl
probe ssl
layer=$("$PYTHON" -c 'import json, sys
figures = json.load(open(sys.argv[1]))["figures"]
print(next(iter(figures.values()))["best_layer"])' "$RUNS/ssl_probe/figures/report.json")
say "units: layer $layer"
for set in ${DATA//,/ } ${DEV//,/ }; do # the first set's clusters are everyone's
    [[ $set/$units -nt $RUNS/ssl_units/units.json ]] || duologue prepare units data="$set" \
        checkpoint="$RUNS/ssl" layer="$layer" quantiser="$RUNS/ssl_units" clusters="$CLUSTERS" file=$units
done
learn ssl2 units=$units clusters="$CLUSTERS"
probe ssl2
