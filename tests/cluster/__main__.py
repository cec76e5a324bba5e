"""Entry point of `python3 -m tests.cluster`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said here in words, before a newer syntax is a traceback
    sys.exit("error: python3 is {}.{}; the cluster needs 3.11 or newer (Debian 12 has it)".format(*sys.version_info[:2]))

from tests.cluster.cli import main

sys.exit(main())
