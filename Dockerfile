# loraworkbench with CUDA 13: driver 580.65 or newer. For older drivers:
#   docker build --build-arg CUDA=12.9.1 --build-arg CONSTRAINTS=cuda-12.8 -t loraworkbench .   (570.26 or newer)
#   docker build --build-arg CUDA=12.6.3 --build-arg CONSTRAINTS=cuda-12.6 -t loraworkbench .   (525.60 or newer)
# PyTorch's wheels bring the CUDA libraries, so the image has only CUDA's base; the compiler is for torch.compile.
ARG CUDA=13.0.1
FROM nvidia/cuda:${CUDA}-base-ubuntu24.04
ARG CONSTRAINTS=cuda-13

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ openssh-client python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Ubuntu's image has a user of the id 1000 already.
RUN userdel --remove ubuntu 2>/dev/null || true \
    && useradd --create-home --uid 1000 me \
    && install -d -o me -g me /opt/loraworkbench /state

USER me
RUN python3 -m venv /opt/loraworkbench
ENV PATH=/opt/loraworkbench/bin:$PATH

COPY --chown=me:me constraints.txt pyproject.toml README.md LICENSE /home/me/source/
COPY --chown=me:me constraints /home/me/source/constraints
COPY --chown=me:me workbench /home/me/source/workbench
COPY --chown=me:me screens /home/me/source/screens
COPY --chown=me:me presets /home/me/source/presets
RUN pip install --no-cache-dir -c /home/me/source/constraints/${CONSTRAINTS}.txt "/home/me/source[gpu,tasks,mcp]" \
    && rm -r /home/me/source

# Runs, caches and settings; downloaded models too.
ENV LORAWORKBENCH_HOME=/state/home HF_HOME=/state/huggingface TERM=xterm-256color COLORTERM=truecolor LANG=C.UTF-8
VOLUME /state
WORKDIR /work
ENTRYPOINT ["loraworkbench"]
