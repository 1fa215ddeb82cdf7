#!/bin/sh
# Install Debian packages without a question: apt_install.sh PACKAGE...
set -eu
export DEBIAN_FRONTEND=noninteractive
# Another apt, such as the one that updates a machine at night, is waited for.
apt-get -o DPkg::Lock::Timeout=600 -qq update
apt-get -o DPkg::Lock::Timeout=600 -qq --yes --no-install-recommends install "$@"
