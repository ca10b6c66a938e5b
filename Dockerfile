# Two images. Both render in software or on the GPU through Vulkan, run as a user without rights, and hold pinned versions.
#   docker build --target cpu -t genvla:cpu .        a machine without GPU: tests, the CPU experiments, scene generation
#   docker build --target gpu -t genvla:gpu .        NVIDIA GPUs; the driver comes from the host, with nvidia-container-toolkit
#   docker run --rm --gpus all --shm-size 16g -v $PWD/scenes:/workspace/scenes -v $PWD/runs:/workspace/runs genvla:gpu doctor
# For a build that stays the same for ever, give the base by its digest: --build-arg BASE=python@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true GIT_PYTHON_REFRESH=quiet
RUN useradd --create-home --uid 1000 genvla && install -d -o 1000 /workspace /workspace/runs /workspace/scenes
WORKDIR /opt/genvla
COPY cluster/constraints.txt cluster/
COPY genvla/__init__.py genvla/vulkan.py genvla/

# Vulkan's loader and the libraries a driver needs. Debian 12's Mesa is too old for SAPIEN, so the script takes that of its backports.
FROM base AS cpu-system
RUN sh -c "$(python -c 'from genvla.vulkan import install_script; print(install_script())')" && rm -rf /var/lib/apt/lists/*
RUN pip install --no-deps --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu

# NVIDIA's driver is the host's; the two files tell the loaders of Vulkan and EGL its name. The CUDA runtime comes with torch's wheels.
FROM base AS gpu-system
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all
RUN sh -c "$(python -c 'from genvla.vulkan import install_script; print(install_script(nvidia=True))')" && rm -rf /var/lib/apt/lists/*
RUN install -d /usr/share/vulkan/icd.d /usr/share/glvnd/egl_vendor.d \
 && echo '{"file_format_version": "1.0.0", "ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.3.204"}}' \
    > /usr/share/vulkan/icd.d/nvidia_icd.json \
 && echo '{"file_format_version": "1.0.0", "ICD": {"library_path": "libEGL_nvidia.so.0"}}' \
    > /usr/share/glvnd/egl_vendor.d/10_nvidia.json
RUN pip install torch==2.13.0

FROM cpu-system AS cpu
COPY . .
RUN pip install -c cluster/constraints.txt ".[llm,assets]"
COPY --chown=genvla configs /workspace/configs
COPY --chown=genvla checkpoints /workspace/checkpoints
USER 1000
WORKDIR /workspace
ENTRYPOINT ["genvla"]
CMD ["--help"]

FROM gpu-system AS gpu
COPY . .
RUN pip install -c cluster/constraints.txt ".[llm,assets]"
COPY --chown=genvla configs /workspace/configs
COPY --chown=genvla checkpoints /workspace/checkpoints
USER 1000
WORKDIR /workspace
ENTRYPOINT ["genvla"]
CMD ["--help"]
