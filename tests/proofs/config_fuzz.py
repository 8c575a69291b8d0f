"""Nearly valid configuration files in `check`, at a start, and in a reload of a running sidecar.

    python -m tests.proofs.config_fuzz --cases 100000 --seed 1
    python -m tests.proofs.config_fuzz --seed 1 --replay 4711     # the case of that number again

Each case is a valid file with some changes. `check` says what is wrong with it, or nothing; what has no problem is started, but
for its listeners; and a running sidecar reads it in place of its own. Nothing may raise, end, or take longer than a few seconds,
and nothing may be called a bug of the sidecar. Nothing leaves the process where it can have a network of its own.
"""

import argparse
import asyncio
import contextlib
import ctypes
import io
import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from types import FrameType

from sidecar.app.builder.assembly import Assembly
from sidecar.app.reload import Reload
from sidecar.app.server import CannotStart, build
from sidecar.app.state import Live
from sidecar.cli.check import problems_of, unseen
from sidecar.cli.dev.issuer import Issuer
from sidecar.common.clock import Clock
from sidecar.config import ConfigError, load, parse
from sidecar.gateway.signing_key import key_set
from tests.proofs import subject, verdict

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20
MOST_FAILURES = 20
ISSUERS = "issuers: {main: {issuer: https://idp.test/, audiences: [api], jwks_file: keys.json}}\n"
UPSTREAM = "upstream: http://127.0.0.1:9\n"
_WORDS = r"""
~ null true no on 0 -1 007 1:30 1e400 .nan .inf 0x10 1_000 '' " ' [] {} [[]] [a,a] &a *a !x | > # ... @ `
!!python/object:os.system
${HOME} ${NOPE} ${NOPE:-x} ${ ${} ${A:-${B}} / /* /** /a*b*c*d ( (a|b)* [0-9]{9999} a{, (?i)x 127.0.0.1:0 :0 [::1]:99999 http://[
http://a:b@c/ http://a:x unix:// ftp://x https:// 1s 1 1ms 99999999999999h 0s any none deny
../../etc/passwd /dev/null . /proc/self/mem 2026-11-30 2026-11-30T00:00:00Z a.b a\.b *.x x-jwt-sub HS256 --- issuers routes
"""
ODD = (
    *_WORDS.split(),
    *(
        "",
        "? ",
        "- ",
        ": ",
        "{a: }",
        "{? : x}",
        "&a [*a]",
        "<<: *a",
        "!!binary x",
        "!!str 1",
        "%YAML 9.9",
        "\t",
        "\0",
        "\x85",
    ),
    *("\u2028", "\ufeff", "\U0001f600", "é", "\udcff", "9" * 400, "x" * 5000, "[" * 200, "{a: " * 200, "- " * 500),
    "unix:///" + "x" * 300,
)


class Stuck(BaseException):
    """A case took too long."""


def seeds() -> list[str]:
    """Valid files: the example, with and without its comments, and every example of the pages."""
    example = (ROOT / "config.yaml").read_text()
    plain = "".join(line for line in example.splitlines(True) if not re.match(r" *(#|$)", line))
    found = [example, plain, (ROOT / "deploy/forward-auth/sidecar.yaml").read_text()]
    for page in sorted((ROOT / "docs").glob("**/*.md")):
        for text in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            for before in ("", UPSTREAM, ISSUERS + UPSTREAM, ISSUERS):
                with contextlib.suppress(ConfigError):
                    parse(before + text)
                    found.append(before + text)
                    break
    return found


def mutant(chance: Random, valid: list[str]) -> str:
    """One of the valid files with one to four changes."""
    text = chance.choice(valid)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        lines = text.splitlines(True) or [""]
        place = chance.randrange(len(lines))
        match chance.randrange(12):
            case 0:
                del lines[place]
            case 1:
                lines.insert(place, lines[place])
            case 2:
                lines.insert(place, chance.choice(lines))
            case 3:
                lines[place] = " " * chance.randrange(6) + lines[place].lstrip()
            case 4 | 5:
                lines[place] = re.sub(r"(: ).*", lambda found: found[1] + chance.choice(ODD), lines[place], count=1)
            case 6:
                lines[place] = lines[place].rstrip("\n") + chance.choice(ODD) + "\n"
            case 7:
                word = chance.choice(re.findall(r"[\w./-]+", text) or ["x"])
                lines[place] = re.sub(r"[\w./-]+", word, lines[place], count=1)
            case 8:
                at = chance.randrange(len(lines[place]) + 1)
                lines[place] = lines[place][:at] + chance.choice(ODD) + lines[place][at:]
            case 9:
                donor = chance.choice(valid).splitlines(True) or [""]
                begin = chance.randrange(len(donor))
                lines[place:place] = donor[begin : begin + chance.randint(1, 6)]
            case 10:
                at, to = sorted(chance.randrange(len(text) + 1) for _ in range(2))
                lines = [text[:at] + text[min(to, at + 40) :]]
            case _:
                lines[place] = lines[place].replace(":", chance.choice((" :", "", "::", ": -", "=")), 1)
        text = "".join(lines)
    return text


class Fuzz:
    """A running sidecar, and a directory in which its file changes."""

    def __init__(self, directory: Path) -> None:
        issuer = Issuer("https://idp.test/", audience="api")
        (directory / "keys.json").write_text(json.dumps(key_set(issuer.keys)))
        self.file = directory / "config.yaml"
        self.good = ISSUERS + UPSTREAM
        self.file.write_text(self.good)
        self.outcomes: Counter[str] = Counter()
        self.live = Live(load(self.file), Clock())
        self.reload = Reload(self.file, self.live, self._exchanged)

    async def _exchanged(self, _assembly: Assembly) -> None:
        return

    async def begin(self) -> None:
        """Run a background task."""
        await self.live.prepare()
        self.live.begin()

    async def one(self, text: str) -> None:
        """Check, start and reload a file. Raises every forbidden exception."""
        self.file.write_bytes(text.encode("utf-8", "surrogateescape"))
        try:
            config = load(self.file)
        except ConfigError as error:
            self.outcomes["refused by check" if str(error) else "refused without a word"] += 1
        else:
            problems = await problems_of(config, online=False)
            unseen(config)
            self.outcomes["with files that cannot be used" if problems else "no problem"] += 1
            try:
                sidecar = build(config)
                await sidecar.live.prepare()
            except CannotStart:
                self.outcomes["cannot start"] += 1
            except Exception as error:
                if type(error).__name__ != "Unusable":
                    raise
                self.outcomes["cannot start"] += 1
            else:
                await sidecar.live.stop(at_once=True)
        if await self.reload.reload():
            self.outcomes["reloaded"] += 1
        elif self.live.file.refused is not None:
            said = " ".join(map(str, self.live.file.refused.problems))
            assert "the sidecar has a bug" not in said, said
        assert self.live.failed is not None
        assert not self.live.failed.done(), f"the sidecar would have ended: {self.live.failed.exception()!r}"

    async def end(self) -> None:
        """Assert that it still accepts a good file."""
        self.file.write_text(self.good)
        assert await self.reload.reload()
        await self.live.stop(at_once=True)


async def run(cases: range, seed: str) -> int:
    """Run the cases of a seed. Return the number of failures."""
    valid = seeds()
    failures = 0
    began = time.monotonic()

    def stuck(_number: int, _frame: FrameType | None) -> None:
        raise Stuck

    signal.signal(signal.SIGALRM, stuck)
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        fuzz = Fuzz(Path(directory))
        await fuzz.begin()
        for number in cases:
            text = mutant(Random(f"{seed}:{number}"), valid)
            signal.alarm(PATIENCE_S)
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    await fuzz.one(text)
            except BaseException:  # noqa: BLE001  # a SystemExit would end the process
                failures += 1
                print(f"case {number} of seed {seed}:\n{traceback.format_exc()[-3000:]}", flush=True)
                if len(cases) == 1:
                    print(text)
                if failures >= MOST_FAILURES:
                    break
            finally:
                signal.alarm(0)
            if number % 5000 == 4999:
                print(f"{number + 1} cases in {time.monotonic() - began:.0f} s, {failures} failures", flush=True)
        await fuzz.end()
    print(
        f"seed {seed}: {len(cases)} cases of {len(valid)} files in {time.monotonic() - began:.0f} s, {failures} failures"
    )
    print(f"outcomes: {dict(sorted(fuzz.outcomes.items()))}")
    return failures


def main() -> int:
    """0: no case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--replay", type=int, help="only the case of this number")
    options = parser.parse_args()
    print(subject())
    new_user_and_network = 0x10000000 | 0x40000000
    if ctypes.CDLL(None).unshare(new_user_and_network):
        print("no network of its own could be had: addresses in the files may be asked")
    logging.disable(logging.CRITICAL)
    cases = range(options.cases) if options.replay is None else range(options.replay, options.replay + 1)
    failures = asyncio.run(run(cases, options.seed))
    return verdict(failures)


if __name__ == "__main__":
    sys.exit(main())
