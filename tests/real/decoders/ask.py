"""Answers each line of JSON on stdin with one on stdout: the decoder's result."""

import json
import runpy
import sys
from typing import Any

decoder = runpy.run_path(sys.argv[1])


def raw(value: str) -> str:
    return bytes.fromhex(value).decode("latin-1")


def ask(what: str, arguments: list[Any]) -> Any:
    if what == "assertion":
        return decoder[what](*arguments)
    if what == "signed":
        method, target, headers, secret, now = arguments
        headers = {name: raw(value) for name, value in headers.items()}
        return decoder[what](method, raw(target), headers, bytes.fromhex(secret), now)
    return decoder[what](raw(arguments[0]))


for line in sys.stdin:
    asked = json.loads(line)
    try:
        answer = {"answer": ask(asked["ask"], asked["arguments"])}
    except Exception as error:  # noqa: BLE001  # whatever a backend would have to deal with
        answer = {"refused": type(error).__name__}
    print(json.dumps(answer), flush=True)
