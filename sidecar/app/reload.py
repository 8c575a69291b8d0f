"""The configuration file over time: what changes in it while the sidecar runs, and what of that can be taken into use."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from operator import attrgetter
from pathlib import Path

from sidecar.app.builder.assembly import Assembly
from sidecar.app.builder.components import files_read
from sidecar.app.state import Live
from sidecar.common.errors import Unusable, unforeseen
from sidecar.common.loopback import is_loopback
from sidecar.config import Config, ConfigError, Problem, load

POLL_S = 2.0  # between two looks at the files
FIXED = (
    "listen",
    "tls",
    "health.listen",
    "admin.listen",
    "workers",
    "tracing",
)  # what was opened at the start stays open

log = logging.getLogger("sidecar.reload")


class Watch:
    """Looks whether files have changed. Follows symbolic links: a ConfigMap is changed by exchanging one above its files."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._seen = {file: _stamp(file) for file in files}
        self._last = dict(self._seen)

    def add(self, files: Iterable[Path]) -> None:
        """Look at these too."""
        for file in files:
            self._last[file] = self._seen.setdefault(file, _stamp(file))

    def changed(self) -> bool:
        """Has anything changed since the beginning? Not yet, as long as it changes: half a file is none."""
        last, self._last = self._last, {file: _stamp(file) for file in self._seen}
        return self._seen != self._last == last


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino, state.st_size


class Reload:
    """Takes the configuration into use again when its files have changed, or when it is asked to.

    `exchanged` is called as soon as another assembly is in use.
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
        """For ever: look at the files, and reload when they have changed or when `asked` is set."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(poll_s):
                    await self.asked.wait()
            if self.asked.is_set() or self._watch.changed():
                self.asked.clear()
                await self.reload()

    async def reload(self) -> bool:
        """Take the file as it is now into use, whole; or keep what is in use, and say in the log why."""
        watch = self._watch = self._new_watch()  # before anything is read, so that a change meanwhile is seen
        try:
            read = await asyncio.to_thread(load, self._file)
            watch.add(files_read(read))
            config = with_fixed(self._live.assembly.config, read)
            await self._live.exchange(config)
        except ConfigError as error:
            return self._kept(error.problems, error.text)
        except Unusable as error:
            return self._kept([Problem("", 0, 0, "", str(error))])
        except Exception as error:  # noqa: BLE001  # a bug; whatever a file holds, it ends nothing that runs
            return self._kept([Problem("", 0, 0, "", f"{self._file}: {unforeseen(error)}")])
        await self._exchanged(self._live.assembly)
        self._live.reloaded(restart_needed(read, config))
        log.info("event=config_reloaded file=%s", self._file)
        return True

    def _kept(self, problems: list[Problem], text: str = "") -> bool:
        for problem in problems:
            log.error(
                "event=config_kept problem=%r do='Mend it; until then what was read before is in use.'", str(problem)
            )
        self._live.not_reloaded(problems, text)
        return False

    def _is_in_use(self) -> bool:
        """Is the file as it was read? It may have changed before the watch began, or been refused by an earlier process."""
        if self._file.is_fifo():  # it has been read, and has nothing more to say
            return True
        try:
            return self._file.read_text("utf-8-sig") == self._live.assembly.config.written
        except (OSError, UnicodeDecodeError):
            return False

    def _new_watch(self) -> Watch:
        return Watch([self._file, *files_read(self._live.assembly.config)])


def restart_needed(running: Config, config: Config) -> tuple[str, ...]:
    """The keys of FIXED that two configurations have not in common."""
    return tuple(key for key in FIXED if attrgetter(key)(config) != attrgetter(key)(running))


def with_fixed(running: Config, config: Config) -> Config:
    """The new configuration, with what cannot change while it runs as it is. Raises Unusable."""
    for key in restart_needed(running, config):
        log.warning("event=restart_needed key=%s do='Restart to change it; the rest of the file is in use.'", key)
    health = config.health.model_copy(update={"listen": running.health.listen})
    admin = config.admin.model_copy(update={"listen": running.admin.listen})
    fixed = {"listen": running.listen, "tls": running.tls, "workers": running.workers, "tracing": running.tracing}
    config = config.model_copy(update={**fixed, "health": health, "admin": admin})
    if config.error_detail == "full" and not all(is_loopback(address.host) for address in config.listen):
        raise Unusable("error_detail: full is for a listener on loopback, and `listen` changes with a restart only")
    if config.workers > 1 and config.assertion is not None and config.assertion.key_file is None:
        raise Unusable("assertion: needs a key_file with several workers, and `workers` changes with a restart only")
    return config
