"""The whole story in a minute: two origins, a kill, a resume, a flipped byte, a repair, a lab of three machines.

`make demo` runs this. It makes a Dia-shaped checkpoint of seeded random weights (model and vocoder), serves it
from two throttled HTTP servers on this machine, and runs the real command line against them.
FULL=1 uses the real sizes (6.4 GB and 307 MB).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from diachunk.testing.bad_server import BadServer
from diachunk.testing.checkpoint import DEMO_SCALE, dia_bytes, make_dia
from diachunk.testing.faults import Drip, always

MB = 1_000_000
DATA = Path(os.environ.get("DEMO_DIR", "demo-data")).absolute()
FULL = os.environ.get("FULL", "") not in ("", "0")


def say(text: str) -> None:
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def command(arguments: list[str]) -> list[str]:
    print("$ diachunk " + " ".join(_short(each) for each in arguments), flush=True)
    return [sys.executable, "-m", "diachunk", *arguments]


def _short(argument: str) -> str:
    return argument.replace(f"{DATA}/", "")


def diachunk(*arguments: str, expect: int = 0) -> None:
    """Runs the command line as a user would, and insists on its exit code."""
    code = subprocess.run(command(list(arguments)), cwd=DATA, check=False).returncode
    if code != expect:
        raise SystemExit(f"demo: expected exit code {expect}, got {code}")


def kill_midway(arguments: list[str], servers: list[BadServer], after_bytes: int) -> None:
    """Starts a fetch and SIGKILLs it once the servers have sent that much."""
    process = subprocess.Popen(command(arguments), cwd=DATA)
    while sum(server.body_bytes for server in servers) < after_bytes:
        if process.poll() is not None:
            raise SystemExit("demo: the fetch ended before it could be killed")
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def flip_a_byte(blob: Path) -> int:
    """Changes one byte in the middle of a blob, as a bad disk would. Returns where."""
    blob.chmod(0o644)
    position = blob.stat().st_size // 2
    with open(blob, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 0x40]))
    return position


def main() -> None:
    scale = 1.0 if FULL else DEMO_SCALE
    total = dia_bytes(scale)
    checkpoint = DATA / f"checkpoint-{'full' if FULL else 'small'}"
    store = DATA / "store"
    shutil.rmtree(store, ignore_errors=True)
    DATA.mkdir(parents=True, exist_ok=True)
    os.environ["DIACHUNK_HOME"] = str(store)
    os.environ.setdefault("XDG_CONFIG_HOME", str(DATA / "no-config"))
    # The story has machines of its own; a real neighbour that has the same would spoil its numbers.
    os.environ.setdefault("DIACHUNK_DISCOVER", "false")

    say(f"A checkpoint of two components, {total / MB:,.0f} MB of seeded random weights")
    if not (checkpoint / "complete").exists():
        shutil.rmtree(checkpoint, ignore_errors=True)
        make_dia(checkpoint, scale=scale)
        (checkpoint / "complete").touch()
    print(f"made in {_short(str(checkpoint))}")

    say("Publish it: a manifest, nothing else")
    parts = [f"{name}={checkpoint / name}" for name in ("model", "vocoder")]
    manifest = str(DATA / "dia-demo.json")
    diachunk("publish", *parts, "--name", "diachunk/demo", "--no-store", "--out", manifest)

    rates = (150 * MB, 250 * MB) if FULL else (12 * MB, 24 * MB)
    servers = [BadServer(checkpoint, always(Drip(rate // 2))) for rate in rates]
    origins = [part for server in servers for part in ("--origin", server.url)]
    try:
        story(manifest, origins, servers, total, store)
    finally:
        for server in servers:
            server.close()


def story(manifest: str, origins: list[str], servers: list[BadServer], total: int, store: Path) -> None:
    say("Fetch it from two origins at once ... and kill it without warning (SIGKILL) half-way")
    kill_midway(["fetch", manifest, *origins], servers, total // 2)
    before = sum(server.body_bytes for server in servers)
    print(f"\nkilled after the origins had sent {before / MB:,.0f} MB")

    say("The same command again: it resumes")
    diachunk("fetch", manifest, *origins)
    sent = [server.body_bytes for server in servers]
    twice = max(0, sum(sent) - total)
    shares = " + ".join(f"{each / MB:,.0f}" for each in sent)
    print(f"the origins sent {shares} MB in all: {twice / MB:.1f} MB ({twice / total:.1%}) were sent twice")

    say("Verify every byte")
    diachunk("verify")

    say("Damage it: one flipped bit in the vocoder")
    vocoder = next((store / "snapshots").glob("*/vocoder/model.safetensors")).resolve()
    print(f"at byte {flip_a_byte(vocoder):,} of {_short(str(vocoder))}")
    diachunk("verify", expect=4)

    say("Repair it: only the damaged chunk travels")
    before = sum(server.body_bytes for server in servers)
    diachunk("verify", "--repair", *origins)
    print(f"the origins sent {(sum(server.body_bytes for server in servers) - before) / MB:.1f} MB")

    say("And all is well")
    diachunk("verify")
    diachunk("ls")

    lab(servers, total)


def lab(servers: list[BadServer], total: int) -> None:
    say("A lab: this machine shares what it has, and two others want it by its name at the same moment")
    port = free_port()
    serving = subprocess.Popen(command(["serve", "--port", str(port), "--no-discover"]), cwd=DATA)
    try:
        wait_for(f"http://127.0.0.1:{port}/v1/node", serving)
        before = sum(server.body_bytes for server in servers)
        words = ["fetch", "diachunk/demo", "--peer", f"127.0.0.1:{port}", "--no-discover", "--linger", "5s"]
        others = []
        for name in ("other-1", "other-2"):
            home = DATA / name
            shutil.rmtree(home, ignore_errors=True)
            environment = {**os.environ, "DIACHUNK_HOME": str(home)}
            others.append(subprocess.Popen(command(words), cwd=DATA, env=environment))
        if any(other.wait(600) for other in others):
            raise SystemExit("demo: a machine of the lab did not get it")
        uplink = sum(server.body_bytes for server in servers) - before
        print(
            f"two more machines have {2 * total / MB:,.0f} MB, checked; the origins sent {uplink / MB:.1f} MB of it"
        )
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until it answers there."""
    until = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("demo: nobody answers there")


if __name__ == "__main__":
    main()
