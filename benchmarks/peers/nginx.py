"""nginx as a proxy without token checks: the least cost of any proxy."""

from pathlib import Path

from benchmarks.peers import Peer
from benchmarks.peers.installed import find, first_line
from benchmarks.setting import Setting

_CONFIG = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
    access_log %(access_log)s;
    client_max_body_size 0;
    client_body_temp_path temp;
    proxy_temp_path temp;
    keepalive_requests 1000000000;
    upstream origin {
        server 127.0.0.1:%(origin)d;
        keepalive 100;
        keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:%(port)d;
        location / {
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }
    }
}
"""


def version() -> str:
    """From the machine's own packages."""
    return first_line(find("nginx"), "-v").removeprefix("nginx version: ")


def command(setting: Setting, port: int, directory: Path) -> list[str]:
    """One worker; bodies are streamed and not put into files."""
    access_log = "/dev/stdout" if setting.access_log else "off"
    config = _CONFIG % {"port": port, "origin": setting.origin, "access_log": access_log}
    (directory / "nginx.conf").write_text(config)
    return [find("nginx"), "-e", "stderr", "-p", ".", "-c", "nginx.conf"]


PEER = Peer("nginx", "nginx, proxy_pass, no verification", "nginx.conf", version, command, verifies=False)
