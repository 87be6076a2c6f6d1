#!/bin/sh
# A Kafka broker to try things with, in the foreground until Ctrl-C, with a topic named int; its data goes with it.
#   sh tests/kafka/broker.sh [PORT]           of 127.0.0.1; default 9092
set -eu
cd "$(dirname "$0")/../.."
. intcollector/setup.sh
set_up test
kafka_broker || exit 1
exec .venv/bin/python -m tests.kafka_broker "$@"
