# vim-deploy for any CPU, with native ops compiled and TensorRT-RTX to build engines with
# (docs/containers.md):
#
#   docker build -f containers/cpu.Dockerfile -t vim-deploy:cpu .
#
# A tag can come to mean another image. Where that matters, name the one you have looked at by its
# digest, which `docker images --digests python` shows:
#   --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# Builds of torch without CUDA; their hashes are in requirements/torch.lock.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_DEPS=1
# Compilers of the image's own Debian release; its repository keeps no older versions to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# What changes rarely comes first: a change of the sources installs no package again.
COPY requirements/ requirements/
RUN python -m venv /opt/vim-deploy \
    && sh requirements/names/select.sh tool rtx > /tmp/tool.lock \
    && /opt/vim-deploy/bin/pip install --require-hashes --only-binary :all: -r /tmp/tool.lock \
    && /opt/vim-deploy/bin/pip install --require-hashes --only-binary :all: \
        --index-url "${TORCH_INDEX}" -r requirements/torch.lock \
    && /opt/vim-deploy/bin/pip install --require-hashes --no-build-isolation \
        -r requirements/source.lock \
    && rm /tmp/tool.lock
COPY . .
RUN /opt/vim-deploy/bin/pip install --no-build-isolation . \
    && mkdir /opt/vim-deploy/native \
    && /opt/vim-deploy/bin/vim-deploy plugin build --target onnxruntime \
        -o /opt/vim-deploy/native/libvim_ort_cpu.so

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/vim-deploy /opt/vim-deploy
ENV PATH=/opt/vim-deploy/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    VIM_DEPLOY_ORT_OPS=/opt/vim-deploy/native/libvim_ort_cpu.so
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin vim
USER 10001
# Your folder goes here: docker run -v "$PWD:/work" --user "$(id -u):$(id -g)" ...
WORKDIR /work
ENTRYPOINT ["vim-deploy"]
CMD ["--help"]
