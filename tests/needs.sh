#!/bin/sh
# The tests run against real servers and tools. Says which are missing; installs them where it may.
missing="" useful=""
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }
have nginx   || missing="$missing nginx-light"
have b3sum   || missing="$missing b3sum"
have curl    || missing="$missing curl"
have aria2c  || missing="$missing aria2"
have openssl || missing="$missing openssl"
have ssh-keygen || useful="$useful openssh-client"
# Small file systems on loop devices, other users, shaped lines in network namespaces: only root can make those, and
# the tests that want them are skipped, with the reason, where they cannot be had.
if [ "$(uname)" = Linux ] && [ "$(id -u)" = 0 ]; then
    have mkfs.ext4  || useful="$useful e2fsprogs"
    have mkfs.xfs   || useful="$useful xfsprogs"
    have mkfs.btrfs || useful="$useful btrfs-progs"
    have mount      || useful="$useful mount"
    have setpriv    || useful="$useful util-linux"
    have ip         || useful="$useful iproute2"
    have tc         || useful="$useful iproute2"
fi
[ -z "$missing$useful" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    for package in $useful; do
        apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
            echo "no $package: some tests will be skipped" >&2
    done
    # shellcheck disable=SC2086
    [ -z "$missing" ] || apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
[ -z "$missing" ] && exit 0
if command -v brew >/dev/null 2>&1; then
    brew install nginx b3sum curl aria2 openssl && exit 0
fi
echo "the tests need these packages:$missing" >&2
echo "on Debian or Ubuntu: sudo apt-get install$missing" >&2
exit 1
