#!/bin/sh
# Runs gpu_check under compute-sanitizer in its four modes:
#     sanitize.sh PATH_OF_GPU_CHECK
# Exits with 1 when any mode reports an error; every mode runs in any case. memcheck and initcheck get
# bare tensors: between guard bands, and full of NaN, there would be nothing for them to find.
set -u
program=${1:?usage: sanitize.sh PATH_OF_GPU_CHECK}
sanitizer=${CUDA_HOME:+$CUDA_HOME/bin/}compute-sanitizer
command -v "$sanitizer" >/dev/null || {
    echo "compute-sanitizer not found: set CUDA_HOME or PATH" >&2
    exit 3
}
status=0
for tool in memcheck racecheck initcheck synccheck; do
    echo "== $tool"
    case $tool in
    memcheck | initcheck) set -- --small --bare ;;
    *) set -- --small ;;
    esac
    "$sanitizer" --tool "$tool" --error-exitcode 1 "$program" "$@" || status=1
done
exit $status
