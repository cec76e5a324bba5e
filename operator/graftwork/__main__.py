"""The operator's process: configuration, Lease, mirror, watches, reconcilers; and how it ends.

It exits 0 after SIGTERM or SIGINT, and 1 when the Lease is lost, a watch cannot go on or the configuration is refused.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from typing import NoReturn

from graftwork import config as configuration
from graftwork import logs
from graftwork.errors import ConfigError, LeaseLost

logger = logging.getLogger("graftwork")


def main() -> NoReturn:
    """Run until told to stop."""
    try:
        config = configuration.load()
    except ConfigError as error:
        logs.set_up("info", "text")
        logger.error("%s", error)
        sys.exit(1)
    logs.set_up(config.log_level, config.log_format)
    try:
        code = asyncio.run(_run(config))
    except ConfigError as error:
        logger.error("%s", error)
        code = 1
    end_now(code)


def end_now(code: int) -> NoReturn:
    """End the process without running anything more: what still runs must not write."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _run(config: configuration.Config) -> int:
    from graftwork.process import Process, reconcilers

    process = Process(config, reconcilers(), lost=_lost)
    loop = asyncio.get_running_loop()

    def install() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, process.stop)

    install()  # and again once kopf runs, which puts its own handlers in their place
    gc.freeze()  # modules and classes stay: no need to look at them in every collection
    return await process.run(watching=install)


def _lost(error: LeaseLost) -> None:
    logger.critical("%s. Ending at once: another operator may act from now on", error)
    end_now(1)


if __name__ == "__main__":
    main()
