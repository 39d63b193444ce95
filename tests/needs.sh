#!/bin/sh
# The tests run against real servers and tools. Says which are missing; installs them where it may.
missing=""
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
have nginx   || missing="$missing nginx-light"
have b3sum   || missing="$missing b3sum"
have curl    || missing="$missing curl"
have aria2c  || missing="$missing aria2"
have openssl || missing="$missing openssl"
# Small file systems on loop devices and shaped lines in network namespaces: only root can make those.
if [ "$(uname)" = Linux ] && [ "$(id -u)" = 0 ]; then
    have mkfs.ext4  || missing="$missing e2fsprogs"
    have mkfs.xfs   || missing="$missing xfsprogs"
    have mkfs.btrfs || missing="$missing btrfs-progs"
    have mount      || missing="$missing mount"
    have setpriv    || missing="$missing util-linux"
    have ip         || missing="$missing iproute2"
    have tc         || missing="$missing iproute2"
fi
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
if command -v brew >/dev/null 2>&1; then
    brew install nginx b3sum curl aria2 openssl && exit 0
fi
echo "the tests need these packages:$missing" >&2
echo "on Debian or Ubuntu: sudo apt-get install$missing" >&2
exit 1
