#!/bin/sh
# install.sh REQUIREMENTS...: install locked requirements into /opt/venv, no dependency resolved, every hash checked.
# uv does it in a tenth of pip's time; it lives only as long as this script, so that no image carries it.
# A first argument `torch` installs PyTorch beforehand (install-torch.sh), by the same uv.
set -eu
here=$(dirname "$0")
say() { echo "graftwork: $*"; }

python3 -m venv /tmp/uv
/tmp/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r "$here/uv.txt"
export UV_NO_CACHE=1 UV_LINK_MODE=copy UV_SYSTEM_CERTS=true UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/venv
PATH=/tmp/uv/bin:$PATH
[ -d /opt/venv ] || uv venv --quiet --python "$(command -v python3)" /opt/venv

if [ "$1" = torch ]; then
    . "$here/install-torch.sh"
    shift
fi
for file in "$@"; do
    say "installing $(grep -c '^[A-Za-z0-9]' "$file") packages of $(basename "$file")"
    shift
    set -- "$@" -r "$file"
done
# Compiled here because whoever runs the image cannot write /opt/venv and would compile at every start.
uv pip install --quiet --no-deps --require-hashes --compile-bytecode "$@"
rm -rf /tmp/uv
