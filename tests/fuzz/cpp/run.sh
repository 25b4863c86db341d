#!/bin/sh
# Fuzzes the C++ library's readers of foreign bytes: tests/fuzz/cpp/run.sh SECONDS [TARGET...]
#
# SECONDS for each target with libFuzzer where there is clang (Debian: clang and libclang-rt-dev, or
# CLANGXX=...). Elsewhere the driver under g++'s sanitizers gives each target a million changed
# inputs, or as many as it manages in SECONDS. Corpora and findings stay in build/fuzz-cpp/ or
# FUZZ_DIR.
set -eu
case "${1:-}" in
'' | *[!0-9]*)
    echo "usage: $0 SECONDS [TARGET...]" >&2
    exit 2
    ;;
esac
seconds=$1
shift
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
library=$here/../../../cpp
build=${FUZZ_DIR:-$here/../../../build/fuzz-cpp}
mkdir -p "$build"
targets=${*:-json record netpbm picture prepare classes found text onnx}

sources=
for part in classification decode decode_jpeg decode_png description detections file half inputs json \
    onnx_file onnx_rules onnx_walk orientation preprocess record resample result tensor text \
    write_image; do
    sources="$sources $library/src/$part.cpp"
done
flags="-std=c++17 -O1 -g -fno-omit-frame-pointer -I$library/include -I$library/src -I$here"
libraries=
# Decoders whose headers are not here are left out, as in a build of the library.
for format in PNG:png.h:-lpng JPEG:jpeglib.h:-ljpeg; do
    header=${format#*:}
    if printf '#include <cstddef>\n#include <cstdio>\n#include <%s>\n' "${header%%:*}" |
        "${CXX:-c++}" -fsyntax-only -x c++ - 2>/dev/null; then
        flags="$flags -DVIM_DEPLOY_HAS_${format%%:*}=1"
        libraries="$libraries ${format##*:}"
    else
        echo "no ${header%%:*}: that decoder is not fuzzed" >&2
    fi
done

compiler=${CLANGXX:-}
for name in clang++ clang++-19 clang++-18 clang++-17 clang++-16 clang++-15 clang++-14; do
    if [ -z "$compiler" ] && command -v "$name" >/dev/null; then
        compiler=$name
    fi
done
if [ -n "$compiler" ] && ! echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
    "$compiler" -x c++ -fsanitize=fuzzer,address - -o "$build/probe" 2>/dev/null; then
    echo "$compiler has no libFuzzer (Debian: libclang-rt-dev)" >&2
    compiler=
fi

python3 "$here/seeds.py" "$build/seeds"
cd "$build"
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=0}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}"
if [ -z "$compiler" ]; then
    # shellcheck disable=SC2086
    "${CXX:-g++}" $flags -fsanitize=address,undefined -fno-sanitize-recover=all \
        "$here/driver.cpp" "$here/targets.cpp" $sources $libraries -o driver
    for target in $targets; do
        status=0
        timeout "$seconds" ./driver "$target" 1000000 1 "seeds/$target/"* || status=$?
        if [ "$status" -ne 0 ] && [ "$status" -ne 124 ]; then
            echo "found: $build/driver-$target.input" >&2
            exit 1
        fi
    done
    exit 0
fi
for target in $targets; do
    # shellcheck disable=SC2086
    "$compiler" $flags -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
        "-DTARGET=$target" "$here/targets.cpp" $sources $libraries -o "fuzz-$target"
    mkdir -p "corpus/$target"
    "./fuzz-$target" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=2048 -max_len=16384 \
        -print_final_stats=1 -artifact_prefix="$target-" "corpus/$target" "seeds/$target"
done
