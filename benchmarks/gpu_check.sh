#!/bin/sh
# Everything a GPU has to show, in two calls (details: gpu_check.py --help):
#     benchmarks/gpu_check.sh prepare FOLDER            with PyTorch; needs no GPU
#     benchmarks/gpu_check.sh run FOLDER [OPTION...]    with a GPU and TensorRT; needs no PyTorch
# PYTHON is the interpreter with vim-deploy (python3); TORCH_PYTHON, for `run`, one whose PyTorch
# has CUDA, to time the module beside the engines. Without it that part is left out, and said so.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH=$(dirname "$here")${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
exec "${PYTHON:-python3}" "$here/gpu_check.py" "$@"
