# Bellwire in a container: build once, run with python3 and nodejs at hand for functions.
FROM docker.io/library/rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ libc6-dev libssl-dev make pkg-config zlib1g-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --profile dist -p bellwire-controller

FROM docker.io/library/debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends python3 nodejs ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* && useradd --system --create-home bellwire
COPY --from=build /src/target/dist/bellwire /usr/local/bin/bellwire
USER bellwire
WORKDIR /service
EXPOSE 7070 7071
ENTRYPOINT ["bellwire"]
CMD ["run", "-f", "bellwire.yaml"]
