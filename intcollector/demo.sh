#!/bin/sh
# One command from a bare system to metrics: installs what is missing, then runs "intcollector lab demo".
#   sh intcollector/demo.sh [options of "intcollector lab demo"]
set -eu
from=$PWD
cd "$(dirname "$0")/.."
checkout=$PWD
. intcollector/setup.sh
set_up run
cd "$from" # the options may name files
exec $as_root "$checkout/.venv/bin/intcollector" lab demo "$@"
