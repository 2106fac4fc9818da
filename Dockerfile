# A node in a container: the wheel of this checkout, and what it depends on, pinned.
#
#   docker build -t meshnode .
#   docker run -d --name node -p 4001:4001 -v meshnode:/var/lib/meshnode meshnode
#   docker exec node meshnode invite
#
# What it is told: node.toml in the volume, or MESHNODE_… variables (see README.md).

FROM python:3.11-slim-bookworm AS build
# py-libp2p pins fastecdsa, which compiles against GMP.
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential libgmp-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY meshnode meshnode
COPY protocol protocol
COPY bootstrap bootstrap
COPY simulations simulations
# EXTRAS=[specialists,mcp] adds agents to host and the door for MCP clients.
ARG EXTRAS=""
RUN python -m venv /usr/local/meshnode \
    && /usr/local/meshnode/bin/pip install --no-cache-dir -c constraints.txt ".${EXTRAS}"

FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap libgmp10 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --home-dir /var/lib/meshnode meshnode \
    && install -d -o meshnode -g meshnode -m 0700 /var/lib/meshnode
COPY --from=build /usr/local/meshnode /usr/local/meshnode
ENV PATH=/usr/local/meshnode/bin:$PATH \
    MESHNODE_HOME=/var/lib/meshnode \
    PYTHONUNBUFFERED=1
USER meshnode
VOLUME /var/lib/meshnode
EXPOSE 4001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=20s --start-period=60s CMD ["meshnode", "node", "--json"]
ENTRYPOINT ["meshnode"]
CMD ["up", "--listen", "/ip4/0.0.0.0/tcp/4001", "--log", "json"]
