#!/usr/bin/env bash
# Runs every test: units, properties, real sockets, and real Envoy in both directions.
set -euo pipefail
cd "$(dirname "$0")"

EDDY_ENVOY="${EDDY_ENVOY:-$(.ci/install-envoy | tail -n 1)}"
export EDDY_ENVOY
cargo test --locked --workspace "$@"
