#!/bin/sh
# Builds gpu_check and kernel_bench into a folder with nvcc alone:
#     build.sh FOLDER [ARCH]
# ARCH is a compute capability without the dot (90), or native (the default).
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:?usage: build.sh FOLDER [ARCH]}
arch=${2:-native}
case $arch in
native) target=native ;;
*) target=sm_$arch ;;
esac
nvcc=${CUDA_HOME:+$CUDA_HOME/bin/}nvcc
mkdir -p "$folder"
compile() {
    "$nvcc" -std=c++17 -O3 -arch="$target" -lineinfo -Werror all-warnings \
        -Xcompiler -Wall,-Wextra,-Werror -I"$here/include" -c "$1" \
        -o "$folder/$(basename "$1").o"
}
objects=
for source in "$here"/kernels/*.cpp "$here"/kernels/*.cu; do
    compile "$source"
    objects="$objects $folder/$(basename "$source").o"
done
compile "$here/tests/common/launches.cpp"
compile "$here/tests/common/problem.cpp"
compile "$here/tests/gpu/gpu_check.cu"
compile "$here/bench/kernel_bench.cu"
# shellcheck disable=SC2086 # a list of objects
"$nvcc" -arch="$target" -o "$folder/gpu_check" $objects "$folder/launches.cpp.o" \
    "$folder/problem.cpp.o" "$folder/gpu_check.cu.o"
# shellcheck disable=SC2086
"$nvcc" -arch="$target" -o "$folder/kernel_bench" $objects "$folder/kernel_bench.cu.o"
