"""Do the tests notice when a module is wrong? Runs them against each mutant of it (tests/proofs/mutants.py).

python -m tests.proofs.mutation jwt/claims policy/access_policy
python -m tests.proofs.mutation --results DIR --tests proxy/test_upstream_pool.py proxy/handler   # quick tests first,
python -m tests.proofs.mutation --results DIR --again proxy/handler                         # then all for what they left

A mutant is killed when a test fails, or when its tests take more than five times as long as they should. Works in a copy of the
tree. The tests are collected and run once, noting which of them run which line; then each mutant gets a forked process, in which
the code of its functions is exchanged and the tests that run the changed line are run, until one fails twice in a row: a
busy machine kills nothing. What cannot be changed in a living process (constants, class bodies), and what survives
there but also ran at import, is tried in a process that imports the changed module afresh and runs every test of it; at the end
the unchanged module has to pass in the same way. A test that fails without a change is named and left out. The dots are the tests
of the first run; then lines say how far the mutants are, and which of them was not killed.

Most of a mutant's time would be waits for what never comes. So `patience` counts turns of the event loop here, not seconds: a
test gives up sooner, but not because others have the machine.
"""

import argparse
import asyncio
import functools
import gc
import importlib
import itertools
import json
import os
import random
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests import peers
from tests.peers import clock
from tests.proofs import subject, verdict
from tests.proofs.mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
MOST_SURVIVORS = 0.03
SHORTEST_TIMEOUT_S = 10.0  # a busy machine is no finding
LEAST_PATIENCE_S = 0.5  # for a test that takes next to nothing
TURN_S = 0.01
STILL_S = 1.0  # for the end of a thread, where all others wait
SPARE_CPU_S = 2  # for a test that takes next to nothing
NEAR = 10  # lines around a mutant: who killed others there is asked first
TELL_S = 30.0  # between two lines that say how far it is
MOST_MEMORY = 4 * 2**30
IMPORTED_BEFORE = ("aiohttp.web", "jose.jwk", "msgspec", "prometheus_client", "pydantic", "trustme", "uvloop", "yaml")
OPTIONS = [
    "-q",
    "-s",
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
    "--hypothesis-profile=mutation",
    "--hypothesis-seed=0",
]

CALLS = (
    "test_cost.py::test_no_request_makes_more_calls_than_its_budget"  # what only makes requests quicker is missed there
)
LIMITS = "test_limits.py"
ON_ASYNCIO = "[asyncio"  # these tests run on uvloop's loop, too
IN_MEMORY = "proxy/test_upstream_pool.py proxy/test_client_connection.py proxy/test_upstream_connection.py proxy/test_handler.py"
WIRE = (
    f"{IN_MEMORY} proxy/test_bodies.py proxy/test_limits_and_timeouts.py proxy/test_connection.py "
    "proxy/test_wire_answers.py proxy/test_wire.py proxy/test_bugs.py proxy/test_memory_budget.py proxy/test_client_isolation.py "
    "proxy/test_tunnel_in_memory.py"
)
METRICS_AND_LINES = "observability/test_telemetry.py observability/test_access_lines.py"
VERIFIER = "jwt/test_verifier.py jwt/test_token_cache.py"
PATHS = "policy/test_routes.py policy/test_ambiguous_paths.py policy/test_ignored_differences.py policy/test_path_readings.py"
TESTS_OF = {
    "observability/access_lines": f"observability/test_access_log.py {METRICS_AND_LINES}",
    "observability/access_log": f"observability/test_access_log.py {METRICS_AND_LINES}",
    "jwt/token_extractor": "jwt/test_token_extractor.py jwt/test_token_sources.py jwt/test_token_places.py",
    "jwt/token_places": "jwt/test_token_extractor.py jwt/test_token_sources.py jwt/test_token_places.py",
    "jwt/token_cache": f"{VERIFIER} jwt/test_denylist.py jwt/jwks/test_key_history.py app/test_reload.py",
    "jwt/denylist": (
        "jwt/test_denylist.py jwt/test_verifier_rules.py jwt/test_real_issuers.py app/test_explain.py app/test_admin.py"
    ),
    "jwt/denied_table": "jwt/test_denylist.py",
    "jwt/denylist_reader": "jwt/test_denylist.py",
    **{
        f"jwt/{name}": (
            f"jwt/test_claims.py jwt/test_claim_rules.py {VERIFIER} jwt/test_verifier_rules.py "
            "jwt/test_real_issuers.py app/test_explain.py app/test_refusal_details.py"
        )
        for name in ("claims", "claim_checks", "claim_rules", "subjects", "token_checks", "examination")
    },
    "jwt/issuer": (
        f"{VERIFIER} jwt/test_verifier_rules.py jwt/test_real_issuers.py jwt/jwks/test_local_keys.py "
        "jwt/test_claim_rules.py jwt/test_denylist.py app/test_refusal_details.py app/test_explain.py"
    ),
    "jwt/issuer_templates": (
        "jwt/test_real_issuers.py jwt/test_providers.py jwt/test_verifier_rules.py app/test_refusal_details.py "
        "jwt/test_denylist.py"
    ),
    "policy/access_policy": "policy/test_access_policy.py policy/test_policy_rules.py app/test_explain.py",
    "policy/claim_conditions": "policy/test_claim_conditions.py policy/test_policy_rules.py jwt/test_claim_rules.py",
    "policy/granted": "policy/test_access_policy.py policy/test_policy_rules.py jwt/test_real_issuers.py",
    "policy/report_mode": "policy/test_report_mode.py",
    "policy/request_signature": "policy/test_request_signature.py",
    "policy/identity_headers": "policy/test_identity_headers.py policy/test_identity_options.py",
    "jwt/compact_jws": "jwt/test_compact_jws.py",
    **{
        f"jwt/jwks/{name}": (
            "jwt/jwks/test_jwk.py jwt/jwks/test_key_set.py jwt/jwks/test_local_keys.py jwt/test_real_issuers.py"
        )
        for name in ("algorithms", "jwk")
    },
    "jwt/jwks/key_set": (
        "jwt/jwks/test_key_set.py jwt/jwks/test_jwk.py jwt/jwks/test_cache.py jwt/jwks/test_local_keys.py "
        "jwt/test_real_issuers.py"
    ),
    "jwt/jwks/fetcher": "jwt/jwks/test_fetcher.py jwt/jwks/test_local_keys.py jwt/test_real_issuers.py",
    "jwt/jwks/key_server": "jwt/jwks/test_fetcher.py jwt/jwks/test_key_server.py jwt/test_real_issuers.py",
    **{
        f"jwt/jwks/{name}": (
            "jwt/jwks/test_cache.py jwt/jwks/test_key_history.py jwt/jwks/test_local_keys.py app/test_admin_answers.py "
            "app/test_reload.py app/test_outages.py jwt/test_real_issuers.py"
        )
        for name in ("cache", "issuer_clock", "refresh_schedule", "shared_fetch", "unknown_kids", "retired_keys")
    },
    "jwt/jwks/snapshot": "jwt/jwks/test_key_history.py",
    "jwt/verifier": (
        f"{VERIFIER} jwt/test_verifier_rules.py jwt/test_denylist.py jwt/jwks/test_key_history.py "
        "jwt/test_real_issuers.py app/test_explain.py app/test_refusal_details.py"
    ),
    "gateway/api_keys": "gateway/test_api_keys.py cli/test_keys.py",
    "gateway/key_ring": "gateway/test_key_ring.py cli/test_keys.py",
    "gateway/token_minter": "gateway/test_token_minter.py gateway/test_assertion.py",
    "gateway/token_endpoint": "gateway/test_token_endpoint.py",
    "gateway/issuer_metadata": "gateway/test_token_endpoint.py",
    "common/watched_file": "common/test_watched_file.py app/test_reload.py gateway/test_api_keys.py gateway/test_rotation.py",
    "policy/path_normalization": f"{PATHS} policy/test_path_normalization.py",
    "policy/routes": f"{PATHS} proxy/test_routing.py",
    **{
        f"http/{name}": f"http/test_{name}.py"
        for name in ("chunked", "forwarded", "framing", "responses", "websocket_frames")
    },
    "http/cors": "http/test_cors.py proxy/test_cors.py",
    "http/grammar": "http",
    "http/head_cache": "http/test_head_cache.py",
    **{
        f"http/{name}": f"http/test_{name}.py http/test_message_reader.py {CALLS}"
        for name in ("message_reader", "response_head")
    },
    "http/request_head": f"http/test_request_head.py http/test_cors.py http/test_message_reader.py {CALLS}",
    "http/header_policy": f"http/test_header_policy.py policy/test_identity_options.py {CALLS}",
    "proxy/handler": (
        f"{WIRE} gateway/test_resource_metadata.py policy/test_request_signature.py gateway/test_token_endpoint.py "
        "gateway/test_gateway.py proxy/test_forward_auth.py proxy/test_cors.py proxy/test_routing.py proxy/test_exchange.py "
        "app/test_health.py jwt/test_token_sources.py observability/test_tracing.py app/test_explain.py "
        f"proxy/test_equal_heads.py proxy/test_without_head_cache.py proxy/test_tunnel.py jwt/test_token_places.py {CALLS}"
    ),
    "proxy/authentication": (
        f"{WIRE} policy/test_report_mode.py gateway/test_api_keys.py jwt/test_token_sources.py app/test_explain.py "
        "proxy/test_cors.py proxy/test_routing.py"
    ),
    "proxy/request_relay": f"{WIRE} proxy/test_pipelining.py proxy/test_memory_bounds.py",
    "proxy/retry": WIRE,
    "proxy/body_limit": "proxy/test_limits_and_timeouts.py proxy/test_bodies.py",
    "proxy/upgrade": (
        "proxy/test_exchange.py proxy/test_tunnel_in_memory.py proxy/test_upstream_connection.py proxy/test_tunnel.py "
        "proxy/test_wire.py"
    ),
    "proxy/request_id": "proxy/test_exchange.py",
    "proxy/serving": f"proxy/test_listener.py {IN_MEMORY} app/test_reload.py",
    "proxy/client_limits": f"{IN_MEMORY} proxy/test_connection.py proxy/test_limits_and_timeouts.py app/test_reload.py",
    "proxy/lingering_close": f"{WIRE} proxy/test_persistent_connections.py proxy/test_tls.py",
    "proxy/connection": f"{WIRE} proxy/test_memory_bounds.py proxy/test_tunnel.py proxy/test_tls.py",
    "proxy/resources": (
        f"proxy/test_resources.py {IN_MEMORY} proxy/test_memory_bounds.py proxy/test_limits_and_timeouts.py "
        "proxy/test_bodies.py app/test_admin_answers.py"
    ),
    "proxy/exchange": (
        f"{WIRE} proxy/test_persistent_connections.py gateway/test_token_endpoint.py proxy/test_tunnel.py "
        "proxy/test_early_hints.py proxy/test_memory_bounds.py proxy/test_pipelining.py"
    ),
    "proxy/response_relay": (
        f"proxy/test_framing_of_answers.py proxy/test_early_hints.py {WIRE} proxy/test_answers_to_head.py "
        f"proxy/test_http_1_0_clients.py proxy/test_tunnel.py proxy/test_tls.py {METRICS_AND_LINES} "
        "observability/test_access_log.py"
    ),
    "proxy/upstream_connection": f"proxy/test_early_hints.py {WIRE} proxy/test_tls.py proxy/test_framing_of_answers.py",
    "proxy/upstream_pool": f"{WIRE} proxy/test_tls.py app/test_reload.py app/test_server.py",
    "proxy/client_connection": (
        f"proxy/test_pipelining.py {WIRE} proxy/test_listener.py proxy/test_persistent_connections.py "
        "proxy/test_memory_bounds.py proxy/test_tunnel.py proxy/test_tls.py proxy/test_equal_heads.py "
        f"proxy/test_without_head_cache.py app/test_server.py app/test_reload.py {CALLS}"
    ),
    "proxy/listener": (
        f"proxy/test_listener.py {IN_MEMORY} proxy/test_connection.py proxy/test_silent_handshakes.py "
        "proxy/test_failed_handshakes.py proxy/test_websocket_handshakes.py "
        "proxy/test_tls.py proxy/test_limits_and_timeouts.py app/test_server.py app/test_reload.py"
    ),
    "proxy/tunnel": "proxy/test_tunnel.py proxy/test_tunnel_in_memory.py proxy/test_bugs.py",
    "proxy/forward_auth": "proxy/test_forward_auth.py",
    "proxy/local_answers": (
        "proxy/test_persistent_connections.py proxy/test_forward_auth.py gateway/test_api_keys.py gateway/test_token_endpoint.py "
        f"gateway/test_resource_metadata.py {METRICS_AND_LINES} proxy/test_limits_and_timeouts.py "
        f"proxy/test_wire.py proxy/test_cors.py {IN_MEMORY}"
    ),
    "observability/telemetry": (
        f"{METRICS_AND_LINES} observability/test_access_log.py observability/test_tracing.py "
        "observability/test_scrape.py observability/test_rejection_log.py"
    ),
    "observability/record": (
        "observability/test_record.py observability/test_access_log.py "
        f"{METRICS_AND_LINES} observability/test_tracing.py"
    ),
}
"""Module -> the files and folders with its tests, the quickest first."""

Line = tuple[str, int]
Place = tuple[str, int, bytes]
Swap = list[tuple[CodeType, CodeType]]
Outcome = str | None
"""The killer of a mutant: a test, `timeout` or `crash`; None: it survived."""


def main() -> int:
    """Run the mutants of the named modules; 0 when at most MOST_SURVIVORS of each survive."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("modules", nargs="+", choices=sorted(TESTS_OF), metavar="module")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options.add_argument("--results", type=Path, help="a directory for one JSON file per module")
    options.add_argument("--again", action="store_true", help="only what is not killed by those files")
    options.add_argument("--tests", help="only these, in place of all of a module's: what they kill is killed")
    options.add_argument(
        "--seconds",
        type=float,
        default=float("inf"),
        help="of the tests that run a mutant's line, the quickest: as many as take so long",
    )
    options.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="no more mutants after this: a sample, in the order of chance",
    )
    options.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.here:
        return verdict(_here(given))
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # compiled tests are read again for each mutant
    if given.results:
        sys.argv += ["--results", str(given.results.resolve())]
    with tempfile.TemporaryDirectory(prefix="mutation-") as copy:
        ignored = shutil.ignore_patterns(".git", ".venv", "node_modules", ".*_cache", "__pycache__", ".hypothesis")
        shutil.copytree(ROOT, copy, ignore=ignored, dirs_exist_ok=True)
        command = [sys.executable, "-m", "tests.proofs.mutation", "--here", *sys.argv[1:]]
        return subprocess.run(command, cwd=copy, env=environment, check=False).returncode


class Module:
    """One of the modules, its mutants and what has become of them."""

    def __init__(self, name: str, results: Path | None, *, again: bool) -> None:
        self.name = name
        self.path = Path("sidecar", f"{name}.py").resolve()
        self.mutants = list(mutants(self.path.read_text(), str(self.path)))
        self._told = results / f"{name.replace('/', '.')}.json" if results else None
        before = json.loads(self._told.read_text()) if self._told and again and self._told.exists() else {}
        killed = {name: outcome for name, outcome in before.items() if outcome is not None}
        self.outcomes: dict[str, Outcome] = {one.name: killed[one.name] for one in self.mutants if one.name in killed}
        self.left = [mutant for mutant in self.mutants if mutant.name not in self.outcomes]

    def note(self, mutant: Mutant, outcome: Outcome) -> None:
        """What has become of it, also in the file: a run that is ended has not been for nothing."""
        self.outcomes[mutant.name] = outcome
        if self._told:
            self._told.parent.mkdir(parents=True, exist_ok=True)
            self._told.write_text(json.dumps(self.outcomes, indent=1))

    def tell(self) -> bool:
        """Say what has become of them. False when too many survived."""
        survivors = [mutant for mutant in self.mutants if self.outcomes.get(mutant.name, "untried") is None]
        timeouts = sum(outcome == "timeout" for outcome in self.outcomes.values())
        tried = len(self.outcomes)
        share = len(survivors) / max(1, tried)
        print(
            f"\n{self.name}: {tried} of {len(self.mutants)} mutants, {tried - len(survivors)} killed "
            f"({timeouts} by timeout), {len(survivors)} survived ({share:.1%})",
            *(f"    {mutant}" for mutant in survivors),
            sep="\n",
            flush=True,
        )
        return share <= MOST_SURVIVORS


def _here(given: argparse.Namespace) -> int:
    begun = time.monotonic()
    print(subject(), flush=True)
    modules = [Module(name, given.results, again=given.again) for name in given.modules]
    for name in IMPORTED_BEFORE:
        importlib.import_module(name)
    peers.patience = patience
    clock.REAL_WAIT_S = STILL_S
    phases = [Phase.explicit, Phase.generate]  # nobody reads the smallest example
    settings.register_profile(
        "mutation",
        max_examples=25,
        deadline=None,
        phases=phases,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    files = {
        module.name: [f"tests/{name}" for name in (LIMITS, *(given.tests or TESTS_OF[module.name]).split())]
        for module in modules
    }
    living = Living(modules, given.jobs, given.seconds, given.minutes * 60)
    outcomes = living.run(list(dict.fromkeys(name for names in files.values() for name in names)))
    failures = 0
    for module in modules:
        module.outcomes = outcomes[module.name]
        fresh = Fresh(module, files[module.name], living)
        afresh = [mutant for mutant in module.left if mutant.name in living.afresh.get(module.name, ())]
        for mutant, outcome in _raced([*afresh, None] if afresh else [], fresh.run, fresh.timeout, given.jobs):
            if mutant is not None:
                module.note(mutant, outcome)
            elif outcome is not None:
                print(f"\nthe unchanged module fails, too: {outcome}", flush=True)
        failures += not module.tell()
    print(f"{time.monotonic() - begun:.0f} s", flush=True)
    return failures


_patience = peers.patience


class Patience:
    """How long the test that runs may wait for one thing."""

    seconds = peers.PATIENCE_S


@asynccontextmanager
async def patience(what: str) -> AsyncIterator[None]:
    """As `peers.patience`, but the loop has to come round often enough: each turn takes in all that has come until then."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, clock.HandLoop):  # its seconds take no time
        async with _patience(what):
            yield
        return
    turns = int(Patience.seconds / TURN_S)
    timer: asyncio.TimerHandle | None = None

    def turn() -> None:
        nonlocal turns, timer
        turns -= 1
        if turns:
            timer = loop.call_later(TURN_S, turn)
        else:
            limit.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as limit:
            turn()
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise peers.Impatient(f"waited too long for {what}") from None
    finally:
        if timer:
            timer.cancel()


class Living:
    """A pytest session that has collected its tests; mutants get into it by the code of its functions."""

    def __init__(self, modules: Sequence[Module], jobs: int, most_s: float, all_s: float) -> None:
        self._modules = modules
        self._paths = frozenset(str(module.path) for module in modules)
        self._jobs = jobs
        self._most_s = most_s
        self._all_s = all_s
        self.afresh: dict[str, list[str]] = {}
        self._lines: set[Line] = set()
        self._failed: str | None = None
        self._cpu_s: dict[pytest.Item, float] = {}
        self._seconds: dict[pytest.Item, float] = {}
        self.clean_s = 0.0
        self.usual: dict[str, tuple[float, float]] = {}

    def run(self, files: list[str]) -> dict[str, dict[str, Outcome]]:
        """Module -> outcome by mutant; those that have to be imported afresh are missing."""
        with tempfile.TemporaryFile("w+") as self._answer:  # a pipe would wait for whatever a mutant has left running
            if (pid := os.fork()) == 0:
                code = 1
                try:
                    self._trace()
                    code = pytest.main([*files, *OPTIONS], plugins=[self])
                finally:
                    self._answer.flush()
                    os._exit(code)
            _, status = os.waitpid(pid, 0)
            self._answer.seek(0)
            told = self._answer.read()
        if not told:
            raise SystemExit(f"the tests cannot be run: {os.waitstatus_to_exitcode(status)}")
        self.clean_s, self.usual, outcomes, self.afresh = json.loads(told)
        return dict(outcomes)

    def _trace(self) -> None:
        def local(frame: FrameType, event: str, _: Any) -> Any:
            self._lines.add((frame.f_code.co_filename, frame.f_lineno))
            return local

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            return local(frame, event, _) if frame.f_code.co_filename in self._paths else None

        sys.settrace(trace)
        threading.settrace(trace)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of the run: the clean one, then the mutants."""
        at_import, self._lines = self._lines, set()
        runs: dict[pytest.Item, set[Line]] = {}
        seconds: dict[pytest.Item, float] = {}
        cpu: dict[pytest.Item, float] = {}
        for item in session.items:
            if ON_ASYNCIO in item.nodeid:
                continue
            self._trace()  # Python forgets it where it runs out of stack
            begun, cpu_s = time.monotonic(), time.process_time()
            failed = self._run([item])
            lines, self._lines = self._lines, set()
            if failed is not None:
                print(f"left out, since it fails without a change: {item.nodeid}", flush=True)
                continue
            runs[item] = lines
            seconds[item] = time.monotonic() - begun
            cpu[item] = time.process_time() - cpu_s
        self._cpu_s, self._seconds = cpu, seconds
        sys.settrace(None)
        threading.settrace(None)
        self.clean_s = sum(seconds.values())
        gc.unfreeze()  # a sidecar that starts hides everything from get_objects
        functions = self._functions()
        caches = [one for one in gc.get_objects() if isinstance(one, functools._lru_cache_wrapper)]
        clear = [one.cache_clear for one in caches if one.__module__.startswith("sidecar.")]
        for module in [one for one in sys.modules.values() if getattr(one, "__file__", None) in self._paths]:
            memories = [one for name, one in vars(module).items() if type(one) is dict and name[:1] == "_" != name[1:2]]
            clear += [one.clear for one in memories]
        swaps: dict[Mutant, Swap] = {}
        afresh: dict[str, list[str]] = {}
        of: dict[Mutant, Module] = {}
        for one in self._modules:
            original = compile(one.path.read_text(), str(one.path), "exec")
            for mutant in one.left:
                of[mutant] = one
                if (swap := _swap(original, mutant.code)) is not None:
                    swaps[mutant] = swap
                else:
                    afresh.setdefault(one.name, []).append(mutant.name)
        kills: list[tuple[Mutant, pytest.Item]] = []
        by_name = {item.nodeid: item for item in session.items}

        def covering(mutant: Mutant) -> list[pytest.Item]:
            path = mutant.code.co_filename
            lines = {(path, line) for line in range(mutant.first, mutant.last + 1)}
            near = Counter(
                item for one, item in kills if of[one] == of[mutant] and abs(one.first - mutant.first) <= NEAR
            )
            found = sorted((item for item in runs if runs[item] & lines), key=lambda one: (-near[one], seconds[one]))
            sums = itertools.accumulate(seconds[item] for item in found)
            return [item for item, so_far in zip(found, sums, strict=True) if so_far <= self._most_s]

        def tried(mutant: Mutant | None) -> Outcome:
            if mutant is None:
                return self._run(runs)
            for memo in clear:
                memo()
            for code, other in swaps[mutant]:
                for function in functions.get(_place(code), ()):
                    function.__code__ = other
            return self._run(covering(mutant))

        def timeout(mutant: Mutant | None) -> float:
            return 5 * self.clean_s if mutant is None else 5 * sum(seconds[item] for item in covering(mutant))

        def living(mutant: Mutant) -> bool:
            return all(one.co_freevars == two.co_freevars for one, two in swaps[mutant])

        gc.collect()
        gc.freeze()
        chosen = [mutant for mutant in swaps if living(mutant)]
        random.Random(0).shuffle(chosen)
        for mutant in swaps.keys() - set(chosen):
            afresh.setdefault(of[mutant].name, []).append(mutant.name)
        for mutant, outcome in _raced(_until(self._all_s, chosen), tried, timeout, self._jobs):
            if mutant is None:
                if outcome is not None:
                    print(f"\nthe unchanged modules fail, too: {outcome}", flush=True)
                continue
            if outcome is not None or not at_import & _inside(swaps[mutant]):
                of[mutant].note(mutant, outcome)
            else:
                afresh.setdefault(of[mutant].name, []).append(mutant.name)
            if outcome in by_name:
                kills.append((mutant, by_name[outcome]))
        most = Counter(one for _, one in kills)
        best = sorted(runs, key=lambda one: (-most[one], seconds[one]))
        outcomes = {one.name: one.outcomes for one in self._modules}
        json.dump(
            (self.clean_s, {item.nodeid: (cpu[item], seconds[item]) for item in best}, outcomes, afresh), self._answer
        )
        return True

    def _functions(self) -> dict[Place, list[FunctionType]]:
        found: dict[Place, list[FunctionType]] = {}
        for one in gc.get_objects():
            if isinstance(one, FunctionType) and one.__code__.co_filename in self._paths:
                found.setdefault(_place(one.__code__), []).append(one)
        return found

    def _run(self, items: Iterable[pytest.Item]) -> Outcome:
        """The first of these tests that fails twice."""
        for item in items:
            failed = self._once(item) and self._once(item)
            if failed:
                return failed
        return None

    def _once(self, item: pytest.Item) -> str | None:
        self._failed = None
        if item in self._cpu_s:
            _limit(self._cpu_s[item], self._seconds[item])
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return self._failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        if report.failed:
            self._failed = report.nodeid


class Fresh(MetaPathFinder):
    """A pytest session that imports a changed module."""

    def __init__(self, module: Module, files: list[str], living: Living) -> None:
        self._name = f"sidecar.{module.name.replace('/', '.')}"
        self._path = str(module.path)
        self._files = files
        self._failed: str | None = None
        self._code: CodeType | None = None
        self._living = living
        self._order: dict[str, int] = {}

    def timeout(self, _: Mutant | None) -> float:
        """For all of its tests."""
        return 5 * self._living.clean_s

    def run(self, mutant: Mutant | None) -> Outcome:
        """Run every test, until one fails."""
        self._code = mutant.code if mutant else None
        self._order = {name: at for at, name in enumerate(self._living.usual)}
        sys.meta_path.insert(0, self)
        code = pytest.main([*self._files, "-x", *OPTIONS], plugins=[self])
        return None if code == 0 else self._failed or "crash"

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Those of constants first, then those that have killed most; without those that fail anyway."""
        items[:] = [item for item in items if item.nodeid in self._order]
        items.sort(key=lambda item: (LIMITS not in item.nodeid, self._order[item.nodeid]))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test that hangs is ended like one that hangs in the living."""
        _limit(*self._living.usual[nodeid])

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The changed module in place of the one in the file."""
        if name != self._name or self._code is None:
            return None
        return spec_from_file_location(name, self._path, loader=_Loader(name, self._path, self._code))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        if report.failed:
            self._failed = report.nodeid


def _limit(cpu_s: float, seconds: float) -> None:
    """End this process, unless it comes here again within five times what a test takes as a rule."""
    Patience.seconds = max(LEAST_PATIENCE_S, 3 * seconds)
    most_s = int(time.process_time() + 5 * cpu_s + SPARE_CPU_S)
    resource.setrlimit(resource.RLIMIT_CPU, (most_s, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_REAL, SHORTEST_TIMEOUT_S + 5 * seconds)


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


def _swap(original: CodeType, other: CodeType) -> Swap | None:
    """The functions that differ, each with its other code; None when what differs is not in a function."""
    pairs: list[tuple[CodeType, CodeType]] = []
    waiting = [(original, other)]
    while waiting:
        one, two = waiting.pop()
        if one == two:
            continue
        is_function = bool(one.co_flags & 0x2)  # CO_NEWLOCALS
        insides = [[const for const in code.co_consts if isinstance(const, CodeType)] for code in (one, two)]
        if is_function:
            pairs.append((one, two))
        elif _own(one) != _own(two):
            return None
        if len(insides[0]) == len(insides[1]):
            waiting += zip(*insides, strict=True)
        elif not is_function:
            return None
    return pairs


def _place(code: CodeType) -> Place:
    """Where the code of a function comes from."""
    return code.co_qualname, code.co_firstlineno, code.co_linetable


def _own(code: CodeType) -> tuple[Any, ...]:
    consts = [(type(const), const) for const in code.co_consts if not isinstance(const, CodeType)]
    return code.co_code, repr(consts), code.co_names, code.co_varnames, code.co_exceptiontable


def _inside(swap: Swap) -> set[Line]:
    """The lines within the functions that differ, but for their heads, which run when they are defined."""
    lines = {(one.co_filename, line) for one, _ in swap for _, _, line in one.co_lines() if line}
    return lines - {(one.co_filename, one.co_firstlineno) for one, _ in swap if not one.co_name.startswith("<")}


_NO_MORE = object()


def _until(seconds: float, every: Iterable[Mutant]) -> Iterator[Mutant | None]:
    """These, as long as there is time, and at last none: the unchanged module."""
    ends = time.monotonic() + seconds
    yield from itertools.takewhile(lambda _: time.monotonic() < ends, every)
    yield None


def _raced(
    every: Iterable[Any], run: Callable[[Any], Outcome], timeout: Callable[[Any], float], jobs: int
) -> Iterator[tuple[Any, Outcome]]:
    """Run each in a forked process, so many at a time; yields as they end."""
    waiting = iter(every)
    begun = 0
    told_at = time.monotonic()
    with selectors.DefaultSelector() as selector:
        while True:
            while len(selector.get_map()) < jobs and (one := next(waiting, _NO_MORE)) is not _NO_MORE:
                begun += 1
                reader, pid = _forked(functools.partial(run, one))
                deadline = time.monotonic() + max(SHORTEST_TIMEOUT_S, timeout(one))
                selector.register(reader, selectors.EVENT_READ, (one, pid, deadline))
            if not selector.get_map():
                return
            if time.monotonic() - told_at > TELL_S:
                told_at = time.monotonic()
                now = ", ".join(str(key.data[0] or "without a change") for key in selector.get_map().values())
                print(f"\n{begun}: {now}", end="", flush=True)
            ready = {key.fd for key, _ in selector.select(0.2)}
            for key in list(selector.get_map().values()):
                one, pid, deadline = key.data
                if key.fd in ready or time.monotonic() > deadline:
                    told = os.read(key.fd, 4096).decode() if key.fd in ready else "timeout"
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    os.killpg(pid, signal.SIGKILL)
                    _, status = os.waitpid(pid, 0)
                    if status & 0x7F in (signal.SIGXCPU, signal.SIGALRM):
                        told = "timeout"
                    if told == "survived" and one is not None:
                        print(f"\nnot killed: {one}", end="", flush=True)
                    yield one, None if told == "survived" else told or "crash"


def _forked(run: Callable[[], Outcome]) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        os.setpgid(
            pid, pid
        )  # so that it can be ended with all of its children; parent and child both set it, as either may run first
        return reader, pid
    os.setpgid(0, 0)
    outcome: Outcome = "crash"
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nowhere, fd)
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
        outcome = run()
    finally:
        os.write(writer, (outcome or "survived").encode()[:4096])
        time.sleep(60)  # ended from outside, with all that it has started
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
