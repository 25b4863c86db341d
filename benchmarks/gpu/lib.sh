# Steps with limits and one deadline, for the calls of benchmarks/gpu, which source this file.
#
#     step NAME SECONDS COMMAND...     run it and wait; returns its exit code
#     start NAME SECONDS COMMAND...    run it beside what follows
#     finish NAME...                   wait for some that were started
#     left_out NAME REASON             note a step that cannot be run at all
#     ended NUMBER                     the last line of a call: what ran, and how long it took
#
# Set from outside: OUT, the folder for what comes back; DEADLINE, the seconds after the start at
# which nothing may run any more; LONGEST, a limit for every step (for rehearsals).
# A step never ends the call. OUT/steps.tsv has a line of each: name, exit code, seconds, and, where
# the code is not 0, why. OUT/logs.tgz has what the steps printed, packed again after every step.
: "${OUT:?set OUT to the folder for what comes back}" "${DEADLINE:?}"
if [ -z "${LOGS:-}" ]; then
    LOGS=$(mktemp -d)
    trap 'rm -rf "$LOGS"' EXIT
fi
LONGEST=${LONGEST:-$DEADLINE}
mkdir -p "$LOGS" "$OUT"
BEGAN=$(date +%s)
declare -A STARTED=()

elapsed() { echo $(($(date +%s) - BEGAN)); }

# NAME CODE SECONDS REASON: one line of steps.tsv, without what would break it.
noted() {
    local why
    why=$(printf '%s' "$4" | tr '\t\r\n' '   ' | tr -d '\000-\037\177' | cut -c 1-300)
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$why" | tee -a "$OUT/steps.tsv"
    # Several steps may end at once: packed under a name of its own, then renamed.
    local packed="$OUT/.logs.$BASHPID"
    tar czf "$packed" -C "$LOGS" . 2>/dev/null
    mv "$packed" "$OUT/logs.tgz"
}

left_out() { noted "$1" left-out 0 "$2"; }

# What a log says about a failure: our own coded message, else its last line.
reason_in() {
    local coded
    coded=$(grep -m 1 -E 'VIM-[0-9]{3}' "$1") && printf '%s' "$coded" && return
    grep -v '^[[:space:]]*$' "$1" | tail -n 1
}

step() {
    local name=$1 limit=$2 log="$LOGS/$1.log" left began code why=
    shift 2
    left=$((DEADLINE - $(elapsed)))
    if [ "$left" -lt 1 ]; then
        noted "$name" skipped 0 "the call's $DEADLINE s were over"
        return 1
    fi
    [ "$limit" -gt "$LONGEST" ] && limit=$LONGEST
    [ "$limit" -gt "$left" ] && limit=$left
    began=$(elapsed)
    timeout -k 5 "$limit" "$@" >"$log" 2>&1 </dev/null
    code=$?
    # timeout says 124; a program that had to be killed, 137.
    case $code in
    0) ;;
    124 | 137) why="stopped after $limit s; its last words: $(reason_in "$log")" ;;
    *) why=$(reason_in "$log") ;;
    esac
    [ "$code" -ne 0 ] && [ -z "$why" ] && why="exit code $code, without a word"
    noted "$name" "$code" $(($(elapsed) - began)) "$why"
    return "$code"
}

start() {
    step "$@" &
    STARTED[$1]=$!
}

finish() {
    local name
    for name in "$@"; do
        [ -n "${STARTED[$name]:-}" ] && wait "${STARTED[$name]}"
    done
    return 0
}

ended() {
    echo "call $1: $(elapsed) s"
}
