#!/bin/sh
# Make a virtual environment anew: make_venv.sh PYTHON DIRECTORY
set -eu
python=$1
directory=$2

say_and_stop() {
    echo "beamkeeper: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || say_and_stop "there is no $python here: install Python 3.11 or newer, or name it with make PYTHON=..."

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    say_and_stop "Python 3.11 or newer is needed, and $python is $("$python" -V 2>&1): name another with make PYTHON=..."

# Debian ships the part of Python that makes virtual environments as a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "beamkeeper: installing $package" >&2
        sh "$(dirname "$0")/apt_install.sh" "$package"
    else
        say_and_stop "$python cannot make virtual environments: ask an administrator for apt-get install $package"
    fi
fi

# The one that is to be removed cannot make another.
"$python" -c 'import os, sys; sys.exit(os.path.realpath(sys.prefix) == os.path.realpath(sys.argv[1]))' "$directory" ||
    say_and_stop "$python is of $directory, which is to be made anew: name the interpreter that made it, with make PYTHON=..."

rm -rf "$directory"
"$python" -m venv "$directory"
