# Brings what is missing: distribution packages, and a virtual environment in .venv that sees the distribution's bcc.
# Shared by intcollector/demo.sh and tests/run.sh; "sh intcollector/setup.sh" alone is enough to run the collector.
# Plain sh and nothing but dpkg, apt and coreutils: a bare system has no python3, sudo, git or make.
# shellcheck shell=sh

fail() {
	echo "intcollector: $*" >&2
	exit 1
}

# Sets as_root: what to put before a command that needs root.
find_root() {
	as_root=
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || fail "XDP and package installation need root: run this as root, or install sudo"
		as_root="sudo env PYTHONDONTWRITEBYTECODE=1" # leaves no folder behind that the caller cannot remove
	fi
}

check_system() {
	system=$(. /etc/os-release 2>/dev/null && echo "${ID:-an unknown system} ${VERSION_ID:-}") || system="an unknown system"
	case $system in
	"debian 12" | "debian 13" | "ubuntu 22.04" | "ubuntu 24.04") ;;
	*) fail "this is $system; the set-up knows Debian 12 and 13 and Ubuntu 22.04 and 24.04 (README, Supported systems)" ;;
	esac
}

# Without a question, without what is only recommended, and behind another apt that runs (a fresh machine upgrades itself).
apt_get() {
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=600 "$@"
}

# Once a run at most; a repository that does not answer may be one that nothing is needed from.
update_lists() {
	[ -n "${lists_updated:-}" ] && return
	echo "intcollector: updating the package lists" >&2
	apt_get update >&2 || echo "intcollector: apt-get update failed, going on with the lists there are" >&2
	lists_updated=yes
}

# packages NAME...: installs those that are not there. Asks dpkg first, so that a second run needs no network.
packages() {
	missing=
	for package; do
		dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
	done
	[ -z "$missing" ] && return
	update_lists
	echo "intcollector: installing$missing" >&2
	# shellcheck disable=SC2086
	apt_get install $missing >"${TMPDIR:-/tmp}/intcollector-apt.$$" 2>&1 || {
		cat "${TMPDIR:-/tmp}/intcollector-apt.$$" >&2
		rm -f "${TMPDIR:-/tmp}/intcollector-apt.$$"
		fail "apt-get could not install$missing: see above (on Ubuntu they need the component universe)"
	}
	rm -f "${TMPDIR:-/tmp}/intcollector-apt.$$"
}

# server COMMAND PACKAGE: a server to test against, on PATH. If it is not installed, its package is unpacked into the
# virtual environment and not installed: installing would start a service, now and at every boot, on a port that may be
# in use. What the tests start, they stop.
server() {
	command -v "$1" >/dev/null && return
	apt-cache show "$2" >/dev/null 2>&1 || update_lists
	if ! apt-cache show "$2" >/dev/null 2>&1; then
		echo "intcollector: this system has no package $2: the tests that need $1 will be skipped" >&2
		return
	fi
	echo "intcollector: unpacking $2 into .venv/servers" >&2
	rm -rf .venv/download
	mkdir -p .venv/download .venv/servers
	(cd .venv/download && apt-get -qq -o APT::Sandbox::User=root download "$2") >&2 ||
		{ update_lists && (cd .venv/download && apt-get -qq -o APT::Sandbox::User=root download "$2") >&2; } ||
		fail "cannot download the package $2: is there a network?"
	dpkg-deb -x .venv/download/*.deb .venv/servers
	rm -rf .venv/download
}

# kafka_broker: the jars of a Kafka broker to test against (tests/kafka/pom.xml), in .venv/servers/kafka. Maven and Java
# are the distribution's where there are none; Maven keeps what it fetched in ~/.m2, as it always does.
kafka_broker() {
	state=$(cksum <tests/kafka/pom.xml)
	if [ "$(cat .venv/servers/kafka/made 2>/dev/null)" = "$state" ] && command -v java >/dev/null; then return; fi
	{ command -v mvn && command -v java; } >/dev/null || (packages maven default-jre-headless) || {
		echo "intcollector: Maven or Java is missing: the tests that need Kafka will be skipped" >&2
		return 1
	}
	echo "intcollector: fetching a Kafka broker into .venv/servers/kafka" >&2
	rm -rf .venv/servers/kafka
	mvn --batch-mode --quiet -Dstyle.color=never --file tests/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime \
		-DoutputDirectory="$PWD/.venv/servers/kafka" >&2 || {
		echo "intcollector: Maven could not fetch the Kafka broker: the tests that need it will be skipped" >&2
		return 1
	}
	echo "$state" >.venv/servers/kafka/made
}

# virtual_environment run|test: .venv with the package and its requirements. Debian's own python, by its path: the first
# python3 on PATH may be another one, which does not see the distribution's bcc.
virtual_environment() {
	unset PYTHONHOME PYTHONPATH
	# Usable: made by this very python, in this very place (its scripts name the path), and it sees the distribution's bcc.
	made="$PWD $(/usr/bin/python3 --version)"
	if [ "$(cat .venv/made 2>/dev/null)" != "$made" ] ||
		! .venv/bin/python -c 'import bcc, pip, sys; sys.exit(not hasattr(bcc, "BPF"))' 2>/dev/null; then
		echo "intcollector: making the virtual environment .venv" >&2
		rm -rf .venv
		/usr/bin/python3 -m venv --system-site-packages .venv || fail "cannot make the virtual environment .venv in $PWD"
		echo "$made" >.venv/made
	fi
	# The note is written last: whatever was interrupted is done again.
	note=.venv/installed-$1
	state=$(cat setup.py pyproject.toml requirements.txt | cksum)
	[ "$(cat "$note" 2>/dev/null)" = "$state" ] && return
	echo "intcollector: installing the Python packages" >&2
	what=.
	[ "$1" = test ] && what='.[test]'
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --editable "$what" >&2 ||
		fail "pip could not install the Python packages: see above; is there a network?"
	[ "$1" = test ] && echo "$state" >.venv/installed-run
	echo "$state" >"$note"
}

# set_up run|test, in the checkout
set_up() {
	check_system
	find_root
	packages python3-bpfcc python3-venv linux-libc-dev ca-certificates
	virtual_environment "$1"
}

case $0 in
setup.sh | */setup.sh)
	set -eu
	cd "$(dirname "$0")/.."
	set_up run
	;;
esac
