#!/bin/bash
# The first call: kernels and PyTorch, without TensorRT (README.md). On the machine with the GPU, in
# the root of the checkout, with what prepare.py filled:
#     OUT=FOLDER bash benchmarks/gpu/call1.sh [CARRIED]
# CARRIED is .gpu unless said otherwise. WORK, a folder that stays until the second call, is ~/gpu.
CARRIED=${1:-.gpu}
HERE=benchmarks/gpu
DEADLINE=${DEADLINE:-300}
. "$HERE/lib.sh"
WORK=${WORK:-$HOME/gpu}
PYTHON=${PYTHON:-python3}
mkdir -p "$WORK/models"
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$PWD:$WORK/site"
LIBRARY=$WORK/libvim_plugins.so

step unpack 30 "$PYTHON" $HERE/prepare.py unpack "$CARRIED" "$WORK"
step machine 20 "$PYTHON" $HERE/results.py machine "$OUT/machine.json" --carried "$CARRIED" \
    --command "bash $HERE/call1.sh"
step nvidia-smi 20 nvidia-smi -q -d CLOCK,POWER,TEMPERATURE,COMPUTE
timeout "$DEADLINE" nvidia-smi --format=csv -l 1 \
    --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu \
    >"$LOGS/clocks.csv" 2>&1 &
clocks=$!

# Right or wrong does not depend on who else uses the GPU: side by side. The models for the second
# call need processors only, and have until the end of this one.
CUDA_VISIBLE_DEVICES='' start export 280 "$PYTHON" $HERE/export_models.py "$WORK/models"
checks=(gpu_check plugin_test)
start gpu_check 85 "$WORK/gpu_check" --seconds 70 --output "$OUT/gpu_check.json"
start plugin_test 85 "$PYTHON" -m vim_deploy plugin test "$LIBRARY"
for tool in memcheck racecheck initcheck synccheck; do
    start "$tool" 85 sh plugins/tests/gpu/sanitize.sh "$WORK/gpu_check" "$tool"
    checks+=("$tool")
done
step check 85 "$PYTHON" $HERE/kernels.py check "$LIBRARY" "$OUT/check.json"
finish "${checks[@]}"

# Code of others, where it was carried.
ext=() official=()
[ -d "$WORK/ext" ] && ext=(--ext "$WORK/ext")
[ -d "$WORK/official" ] && official=(--official "$WORK/official")

# Times: alone on the GPU.
step time 70 "$PYTHON" $HERE/kernels.py time "$LIBRARY" "$OUT/times.json" --seconds 60 \
    --clock "$WORK/libsm_clock.so" "${ext[@]}"
step models 105 "$PYTHON" $HERE/models.py "$LIBRARY" "$OUT/models.json" --seconds 90 \
    "${ext[@]}" "${official[@]}"
step ncu 30 "$PYTHON" $HERE/kernels.py ncu "$LIBRARY" "$OUT/ncu.json"

kill "$clocks" 2>/dev/null
finish export
ended 1
