#!/bin/sh
# Runs gpu_check under compute-sanitizer, with all its tools or those that are named:
#     sanitize.sh PATH_OF_GPU_CHECK [TOOL...]
# Exits with 1 when any tool reports an error; every tool runs in any case. memcheck and initcheck get
# bare tensors: between guard bands, and full of NaN, there would be nothing for them to find.
set -u
program=${1:?usage: sanitize.sh PATH_OF_GPU_CHECK [TOOL...]}
shift
sanitizer=${CUDA_HOME:+$CUDA_HOME/bin/}compute-sanitizer
command -v "$sanitizer" >/dev/null || {
    echo "compute-sanitizer not found: set CUDA_HOME or PATH" >&2
    exit 3
}
[ $# -gt 0 ] || set -- memcheck racecheck initcheck synccheck
status=0
for tool in "$@"; do
    echo "== $tool"
    case $tool in
    memcheck | initcheck) layout=--bare ;;
    *) layout= ;;
    esac
    # shellcheck disable=SC2086 # no word where there is none
    "$sanitizer" --tool "$tool" --error-exitcode 1 "$program" --small $layout || status=1
done
exit $status
