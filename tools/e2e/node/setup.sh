#!/bin/sh
# Puts the unmodified mesos-framework from the npm registry into a folder: setup.sh FOLDER.
set -eu
folder=$1
done=$folder/.ready-1
[ -e "$done" ] && exit 0
own=$(dirname "$0")
rm -rf "$folder"
mkdir -p "$folder"
cp "$own/package.json" "$own/package-lock.json" "$folder"
npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --silent
touch "$done"
