#!/bin/sh
# Makes the secrets that compose.yaml mounts, unless they are there. Keep token-salt: without it no token works.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets

if [ ! -e secrets/token-salt ]; then
    openssl rand -hex 32 >secrets/token-salt
fi
if [ ! -e secrets/valkey-password ] || [ ! -e secrets/valkey-users ]; then
    password=$(openssl rand -hex 32)
    digest=$(printf %s "$password" | openssl dgst -sha256 -r | cut -d ' ' -f 1)
    printf '%s\n' "$password" >secrets/valkey-password
    # What the strategy needs, and no more; `health` can do nothing but PING.
    cat >secrets/valkey-users <<USERS
user default off
user health on nopass resetchannels -@all +ping
user gatehouse on #$digest ~auth:* resetchannels &__redis__:invalidate -@all +auth +ping +info +hmget +hget +pttl +client|id +client|tracking +subscribe +eval +exists +hset +hexists +pexpire +del +sadd +srem +smembers +scan +set +get
USERS
fi
# The directory keeps others out. The containers' users, who are other people than you, read the files themselves.
chmod 700 secrets
chmod 644 secrets/*
