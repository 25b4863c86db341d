#!/bin/bash
# The second call, on the same machine at once after the first: engines of TensorRT (README.md).
#     OUT=FOLDER bash benchmarks/gpu/call2.sh [CARRIED]
# CARRIED is .gpu2 unless said otherwise; WORK is what the first call left, ~/gpu.
# Where Python has TensorRT, engines are built, compared and timed by vim-deploy itself
# (engines.py); else by trt86_run with the libraries of 8.6 that the calls carried.
CARRIED=${1:-.gpu2}
HERE=benchmarks/gpu
DEADLINE=${DEADLINE:-360}
. "$HERE/lib.sh"
WORK=${WORK:-$HOME/gpu}
PYTHON=${PYTHON:-python3}
MODELS=$WORK/models PLANS=$WORK/plans
mkdir -p "$PLANS"
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$PWD:$WORK/site"
LIBRARY=$WORK/libvim_plugins.so
#: Plugin layers of Vim-Ti: one of each a block.
PLUGINS=VimBiCausalConv=24,VimBiSelectiveScan=24

# Every JSON object that a step printed is a line of trt.jsonl, under the step's name.
keep() { sed -n "s/^{/{\"step\": \"$1\", /p" "$LOGS/$1.log" >>"$OUT/trt.jsonl"; }

# NAME MODEL SECONDS OPTIONS...
build() {
    local name=$1 model=$2 limit=$3
    shift 3
    rm -f "$PLANS/$name.plan"
    step "build-$name" "$limit" "$WORK/trt86_run" build "$MODELS/$model.onnx" \
        "$PLANS/$name.plan" --timings "$PLANS/timings" "$@"
    keep "build-$name"
}

# NAME BATCH PIXELS OPTIONS...
run() {
    local name=$1 batch=$2 size=$3
    shift 3
    if [ ! -s "$PLANS/$name.plan" ]; then
        left_out "run-$name-b$batch" "there is no engine: build-$name made none"
        return
    fi
    step "run-$name-b$batch" 20 "$WORK/trt86_run" run "$PLANS/$name.plan" --batch "$batch" \
        --shape "3,$size,$size" "$@"
    keep "run-$name-b$batch"
}

# NAME IMAGES LIMIT: the logits of a run with --in and --out against the module's.
parity() {
    local name=$1 stem=$2 limit=$3
    if [ ! -s "$PLANS/$name-logits.raw" ]; then
        left_out "parity-$name" "there are no logits: its run gave none"
        return
    fi
    step "parity-$name" 20 "$PYTHON" $HERE/judge.py parity "$PLANS/$name-logits.raw" \
        "$MODELS/$stem.out" --limit "$limit"
    keep "parity-$name"
}

# SIZE PRECISION BATCHES SECONDS COMPARED LIMIT LEVEL [TIMED...]
vim() {
    local size=$1 precision=$2 range=$3 seconds=$4 compared=$5 limit=$6 level=$7
    local name=vim-$1-$2 types=()
    shift 7
    [ "$precision" = fp16 ] && types=(--fp16 true --types "$MODELS/$name.types")
    build "$name" "$name" "$seconds" --shape "3,$size,$size" --batches "$range" \
        --plugin "$LIBRARY" --plugins "$PLUGINS" --level "$level" "${types[@]}"
    rm -f "$PLANS/$name-logits.raw"
    run "$name" "$compared" "$size" --plugin "$LIBRARY" --in "$MODELS/vim-$size.in" \
        --out "$PLANS/$name" --layers "$LOGS/$name.layers.json"
    parity "$name" "vim-$size" "$limit"
    if [ -s "$LOGS/$name.layers.json" ]; then
        step "layers-$name" 20 "$PYTHON" $HERE/judge.py layers "$LOGS/$name.layers.json" \
            "$MODELS" "$name" --plugins "$PLUGINS"
        keep "layers-$name"
    else
        left_out "layers-$name" "there are no layers: its run told none"
    fi
    for batch in "$@"; do run "$name" "$batch" "$size" --plugin "$LIBRARY"; done
}

# SIZE BATCHES SECONDS COMPARED LEVEL [TIMED...]: TensorRT chooses where float16 is used.
deit() {
    local size=$1 range=$2 seconds=$3 compared=$4 level=$5 name=deit-$1-fp16
    shift 5
    build "$name" "deit-$size" "$seconds" --shape "3,$size,$size" --batches "$range" \
        --fp16 true --level "$level"
    rm -f "$PLANS/$name-logits.raw"
    run "$name" "$compared" "$size" --in "$MODELS/deit-$size.in" --out "$PLANS/$name"
    parity "$name" "deit-$size" 1e-2
    for batch in "$@"; do run "$name" "$batch" "$size"; done
}

step unpack 30 "$PYTHON" $HERE/prepare.py unpack "$CARRIED" "$WORK"
step machine 20 "$PYTHON" $HERE/results.py machine "$OUT/machine.json" --carried "$CARRIED" \
    --command "bash $HERE/call2.sh"
if "$PYTHON" -c 'import tensorrt' 2>/dev/null; then
    step engines-prepare 120 "$PYTHON" $HERE/engines.py prepare "$WORK/engines" --models vim-tiny
    step engines "$DEADLINE" "$PYTHON" $HERE/engines.py run "$WORK/engines" --out "$OUT" \
        --plans "$PLANS" --seconds $((DEADLINE - $(elapsed) - 10))
else
    step tensorrt 60 "$PYTHON" "$WORK/parts/unpack.py" "$WORK/parts" "$WORK/trt"
    export LD_LIBRARY_PATH="$WORK/trt${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    vim 224 fp16 1,64,64 120 8 1e-2 3 1 64
    vim 224 fp32 1,8,8 90 8 1e-3 3 1
    deit 224 1,64,64 90 8 3 1 64
    vim 1248 fp16 1,8,8 90 1 1e-2 2 8
    deit 1248 1,8,8 80 1 2 8
fi
ended 2
