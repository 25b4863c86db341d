# vim-deploy with full TensorRT: NVIDIA's image, the plugin library and native ops compiled
# (docs/containers.md):
#
#   docker build -f containers/cuda.Dockerfile -t vim-deploy:cuda .
#
# A tag can come to mean another image. Where that matters, name the one you have looked at by its
# digest, which `docker images --digests nvcr.io/nvidia/tensorrt` shows:
#   --build-arg TENSORRT_IMAGE=nvcr.io/nvidia/tensorrt@sha256:...
# An engine runs in the TensorRT that built it: take the image whose TensorRT your server has, and
# say in TENSORRT which one that is.
ARG TENSORRT_IMAGE=nvcr.io/nvidia/tensorrt:25.11-py3

FROM ${TENSORRT_IMAGE} AS build
# The release in that image, with as many numbers as matter; another one ends the build.
ARG TENSORRT=10.14
# GPUs that the plugin library has code for: all, or a list such as 80,90.
ARG GPUS=all
# PyTorch is what files are compared with; it needs no GPU for that.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# NVIDIA's images hold pip to the versions of their own Python packages; these go beside them.
ENV PIP_CONSTRAINT= \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_DEPS=1
# Compilers of the image's own Ubuntu release; its repository keeps no older versions to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ make python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY containers/tensorrt_release.py /tmp/
RUN python3 /tmp/tensorrt_release.py "${TENSORRT}" && rm /tmp/tensorrt_release.py
COPY requirements/ requirements/
# TensorRT's own Python package is the image's.
RUN python3 -m venv --system-site-packages /opt/vim-deploy \
    && sh requirements/names/select.sh tool gpu > /tmp/tool.lock \
    && /opt/vim-deploy/bin/pip install --ignore-installed --require-hashes --only-binary :all: \
        -r /tmp/tool.lock \
    && /opt/vim-deploy/bin/pip install --ignore-installed --require-hashes --only-binary :all: \
        --index-url "${TORCH_INDEX}" -r requirements/torch.lock \
    && rm /tmp/tool.lock
COPY . .
RUN /opt/vim-deploy/bin/pip install --no-build-isolation . \
    && mkdir /opt/vim-deploy/native \
    && /opt/vim-deploy/bin/vim-deploy plugin build --target onnxruntime \
        -o /opt/vim-deploy/native/libvim_ort_cpu.so \
    && /opt/vim-deploy/bin/vim-deploy plugin build --arch "${GPUS}" \
        -o /opt/vim-deploy/native/libvim_plugins.so

FROM ${TENSORRT_IMAGE}
COPY --from=build /opt/vim-deploy /opt/vim-deploy
ENV PATH=/opt/vim-deploy/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    VIM_DEPLOY_ORT_OPS=/opt/vim-deploy/native/libvim_ort_cpu.so \
    VIM_DEPLOY_PLUGIN=/opt/vim-deploy/native/libvim_plugins.so
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin vim
USER 10001
# Your folder goes here: docker run --gpus all -v "$PWD:/work" --user "$(id -u):$(id -g)" ...
WORKDIR /work
ENTRYPOINT ["vim-deploy"]
CMD ["--help"]
