#!/usr/bin/env bash
# Runs every test: units, properties, real sockets, and real Envoy in both directions.
set -euo pipefail
cd "$(dirname "$0")"

EDDY_ENVOY="${EDDY_ENVOY:-$(.ci/install-envoy | tail -n 1)}"
export EDDY_ENVOY
EDDY_PROMETHEUS_CLIENT="${EDDY_PROMETHEUS_CLIENT:-$(.ci/install-prometheus-client | tail -n 1)}"
export EDDY_PROMETHEUS_CLIENT
EDDY_PROMTOOL="${EDDY_PROMTOOL:-$(.ci/install-promtool | tail -n 1)}"
export EDDY_PROMTOOL
EDDY_CHROMIUM="${EDDY_CHROMIUM:-$(.ci/install-chromium | tail -n 1)}"
export EDDY_CHROMIUM
cargo test --locked --workspace "$@"
# Spans are in builds that ask for them.
cargo test --locked -p eddy --features otlp --test otlp
