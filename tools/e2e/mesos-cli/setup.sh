#!/bin/sh
# Makes a virtual environment with the unmodified command line of Mesos 1.11 (`mesos`), as packaged on PyPI:
# setup.sh FOLDER. It needs Python 3.12 or newer.
set -eu
folder=$1
done=$folder/.ready-1
[ -e "$done" ] && exit 0
python=
for candidate in python3 python3.14 python3.13 python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || { echo "no Python of 3.12 or newer" >&2; exit 1; }
rm -rf "$folder"
"$python" -m venv "$folder"
"$folder/bin/pip" --quiet --disable-pip-version-check install avmesos-cli==1.3.0
"$folder/bin/python" -c 'import avmesos.cli'
touch "$done"
