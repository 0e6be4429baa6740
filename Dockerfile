# One image for every service: the command says which. Built by `docker compose build`.

FROM rust:1.95-slim-bookworm AS build
# C and C++ compilers and make, for librdkafka and aws-lc, which are built from source.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ gcc make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /agora
COPY . .
ENV SQLX_OFFLINE=true
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/agora/target \
    cargo build --release --locked --package agora \
    && cp target/release/agora /usr/local/bin/agora

FROM debian:bookworm-slim
# curl for the health checks, certificates for what we call over TLS.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home agora
COPY --from=build /usr/local/bin/agora /usr/local/bin/agora
USER agora
ENTRYPOINT ["agora"]
CMD ["--help"]
