"""Tiled, of the same field, in an environment of its own: how fast it takes entries over HTTP and searches them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

TILED_ENTRIES = 5000

PROGRAM = """
import json, subprocess, sys, time, urllib.request
from pathlib import Path
from tiled.client import from_uri
from tiled.queries import Key
directory, entries, metadata, port = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]
server = subprocess.Popen(
    [str(Path(sys.executable).parent / "tiled"), "serve", "catalog", "--temp", "--public", "--api-key", "secret",
     "--port", port],
    stdout=subprocess.DEVNULL, stderr=open(directory + "/log", "wb"),
)
try:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1)
            break
        except OSError:
            time.sleep(0.2)
    client = from_uri(f"http://127.0.0.1:{port}/api/v1", api_key="secret")
    began = time.perf_counter()
    for number in range(entries):
        client.create_container(key=f"e{number}", metadata={**metadata, "frame": number})
    created = time.perf_counter() - began
    began = time.perf_counter()
    found = client.search(Key("frame") == entries // 2)
    first = list(found.keys().head(1))
    searched = time.perf_counter() - began
    assert first == [f"e{entries // 2}"], first
    print(json.dumps([entries / created, searched]))
finally:
    server.terminate()
    server.wait()
"""


def tiled() -> tuple[float, float]:
    """Return how many entries it creates each second, and the seconds that one search takes."""
    import catalog_data as data

    from beamkeeper.testing.servers import free_port

    with tempfile.TemporaryDirectory(prefix="beamkeeper-bench-tiled-") as directory:
        venv.create(f"{directory}/env", with_pip=True)
        python = Path(directory, "env", "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "tiled[all]"], check=True)
        metadata = json.dumps(next(data.scans(1)).of(0))
        argv = [str(python), "-c", PROGRAM, directory, str(TILED_ENTRIES), metadata, str(free_port())]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        if done.returncode:
            sys.stderr.write(done.stderr[-2000:])
            raise RuntimeError("Tiled could not be measured")
        rate, searched = json.loads(done.stdout.splitlines()[-1])
        return float(rate), float(searched)
