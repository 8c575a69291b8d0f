"""Reloads the configuration when its files change."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from operator import attrgetter
from pathlib import Path

from sidecar.app.builder.assembly import Assembly
from sidecar.app.builder.components import files_read
from sidecar.app.state import Live
from sidecar.common.errors import Unusable, unforeseen
from sidecar.common.file_content import check_regular
from sidecar.common.loopback import is_loopback
from sidecar.common.watched_file import Watch
from sidecar.config import Config, ConfigError, Problem, load
from sidecar.config.changes import changed_keys

POLL_S = 2.0  # between two checks of the files
FIXED = (
    "listen",
    "tls",
    "health.listen",
    "admin.listen",
    "workers",
    "tracing",
)  # keys that need a restart: their sockets and processes stay open

log = logging.getLogger("sidecar.reload")


class Reload:
    """Reloads the configuration when its files have changed, or on request.

    `exchanged` is called after another assembly is in use.
    """

    def __init__(self, file: Path, live: Live, exchanged: Callable[[Assembly], Awaitable[None]]) -> None:
        self.asked = asyncio.Event()
        self._file = file
        self._live = live
        self._exchanged = exchanged
        self._watch = self._new_watch()
        if not self._is_in_use():
            self.asked.set()
        live.file.path = file

    async def follow(self, poll_s: float = POLL_S) -> None:
        """Until cancelled: check the files, and reload when they have changed or when `asked` is set."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(poll_s):
                    await self.asked.wait()
            if self.asked.is_set() or self._watch.changed():
                self.asked.clear()
                await self.reload()

    async def reload(self) -> bool:
        """Use the current file, or keep the previous configuration and log the problems. Returns whether it is in use."""
        watch = self._watch = self._new_watch()  # before the read, so that a later change is seen
        try:
            check_regular(self._file)
            read = await asyncio.to_thread(load, self._file)
            watch.add(files_read(read))
            before = self._live.assembly.config
            config = with_fixed(before, read)
            await self._live.exchange(config)
        except ConfigError as error:
            return self._kept(error.problems, error.text)
        except Unusable as error:
            return self._kept([Problem("", 0, 0, "", str(error))])
        except Exception as error:  # noqa: BLE001  # a bug; bad files must not end running work
            return self._kept([Problem("", 0, 0, "", f"{self._file}: {unforeseen(error)}")])
        await self._exchanged(self._live.assembly)
        changed = changed_keys(before, config)
        self._live.reloaded(restart_needed(read, config), changed)
        log.info("event=config_reloaded file=%s changed=%r", self._file, changed)
        return True

    def _kept(self, problems: list[Problem], text: str = "") -> bool:
        for problem in problems:
            log.error(
                "event=config_kept problem=%r do='Fix the file; the previous configuration stays active.'", str(problem)
            )
        self._live.not_reloaded(problems, text)
        return False

    def _is_in_use(self) -> bool:
        """Is the file as it was read? It may have changed before the watch began, or been refused by an earlier process."""
        if self._file.exists() and not self._file.is_file():  # a pipe, which has been read and has nothing more to say
            return True
        try:
            return self._file.read_text("utf-8-sig") == self._live.assembly.config.written
        except (OSError, UnicodeDecodeError):
            return False

    def _new_watch(self) -> Watch:
        return Watch([self._file, *files_read(self._live.assembly.config)])


def restart_needed(running: Config, config: Config) -> tuple[str, ...]:
    """The keys of FIXED that differ between two configurations."""
    return tuple(key for key in FIXED if attrgetter(key)(config) != attrgetter(key)(running))


def with_fixed(running: Config, config: Config) -> Config:
    """The new configuration with the running values of the keys in FIXED. Raises Unusable."""
    for key in restart_needed(running, config):
        log.warning(
            "event=restart_needed key=%s do='Restart the sidecar to change it; the rest of the file is in use.'", key
        )
    health = config.health.model_copy(update={"listen": running.health.listen})
    admin = config.admin.model_copy(update={"listen": running.admin.listen})
    fixed = {"listen": running.listen, "tls": running.tls, "workers": running.workers, "tracing": running.tracing}
    config = config.model_copy(update={**fixed, "health": health, "admin": admin})
    if config.error_detail == "full" and not all(is_loopback(address.host) for address in config.listen):
        raise Unusable(
            "error_detail: full needs a listener on loopback, and `listen` changes only with a restart; restart the sidecar"
        )
    if config.workers > 1 and config.assertion is not None and config.assertion.key_file is None:
        raise Unusable(
            "assertion: needs a key_file with several workers, and `workers` changes only with a restart; restart the sidecar"
        )
    return config
