#!/bin/sh
# Install the servers that the tests use, where we may; whoever may not uses what PyPI ships, or skips.
set -eu

[ "$(id -u)" -eq 0 ] || exit 0
command -v apt-get >/dev/null || exit 0

wanted=
if ! command -v initdb >/dev/null && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    wanted="$wanted postgresql"
fi

# What files are sent to, and who people are: program and package.
while read -r program package; do
    command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || wanted="$wanted $package"
done <<LIST
rsync rsync
sudo sudo
slapd slapd
ldapwhoami ldap-utils
sshd openssh-server
ssh openssh-client
setpriv util-linux
openssl openssl
ip iproute2
nft nftables
ethtool ethtool
curl curl
nginx nginx-light
chromium chromium
globus-gridftp-server globus-gridftp-server-progs
globus-url-copy globus-gass-copy-progs
grid-proxy-init globus-proxy-utils
myproxy-server myproxy-server
myproxy-logon myproxy
slurmctld slurm-wlm
slurmdbd slurmdbd
munged munge
mariadbd mariadb-server
sge_qmaster gridengine-master
sge_execd gridengine-exec
qsub gridengine-client
LIST
# python-ldap is compiled where it is installed.
[ -e /usr/include/ldap.h ] || wanted="$wanted gcc libc6-dev libldap2-dev libsasl2-dev"

[ -n "$wanted" ] || exit 0
# Grid Engine's packages would ask which master they belong to: to none, the tests bring their own.
case "$wanted" in *gridengine*)
    for package in common client; do
        echo "gridengine-$package shared/gridengineconfig boolean false" | debconf-set-selections
    done ;;
esac
# shellcheck disable=SC2086
exec sh "$(dirname "$0")/apt_install.sh" $wanted
