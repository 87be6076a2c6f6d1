#!/bin/sh
# One command from a bare system to tests: installs what is missing, then checks style, types and behaviour.
#   sh tests/run.sh [options of pytest]
# Tests run in several processes, one a CPU and four at most; -n 0: in this one. More in tests/README.md.
# The exit code is the worst of them; the last line is pytest's.
set -eu
cd "$(dirname "$0")/.."
. intcollector/setup.sh
set_up test
# witnesses: gcc of the layout of bpf/report.h, tshark of what capture files hold; ip and ping change and use interfaces;
# openssl makes certificates
packages gcc libc6-dev tshark iproute2 iputils-ping openssl
# looks at the page, and needs letters for it; Ubuntu has it as a snap only, which cannot look into a network namespace
case $system in
debian*) packages chromium fonts-dejavu-core fonts-inter ;;
*) echo "intcollector: this system has no package chromium: the tests of the page will be skipped" >&2 ;;
esac
PATH=$PWD/.venv/servers/usr/bin:$PATH
export PATH
server prometheus prometheus
server promtool promtool # Debian 12: in prometheus
server influxd influxdb
kafka_broker || true

worst=0
check() {
	name=$1
	shift
	echo "== $name"
	code=0
	"$@" || code=$?
	[ "$code" -le "$worst" ] || worst=$code
}
check "ruff check" .venv/bin/ruff check .
check "ruff format" .venv/bin/ruff format --check .
check mypy .venv/bin/mypy
check clang-format .venv/bin/clang-format --dry-run -Werror bpf/*.[ch]
[ "$worst" = 0 ] || echo "== of the checks above, one failed at least: exit code $worst, whatever the tests say"
# as root for XDP
# shellcheck disable=SC2086
check pytest $as_root env PATH="$PATH" CI="${CI:-}" .venv/bin/python -m pytest \
	-n auto --maxprocesses 4 --dist worksteal "$@"
# what root wrote is the caller's
[ -z "$as_root" ] || sudo chown -R "$(id -u):$(id -g)" .pytest_cache .hypothesis 2>/dev/null || true
exit "$worst"
