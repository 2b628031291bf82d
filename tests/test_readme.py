"""The tour of the README (and of the cookbook) is what a user would see: it is typed into a real shell, and compared.

A fenced ``console`` block holds commands (``$ ``, gone on with by ``> ``) and what they print; ``…`` stands for
anything on its line. All blocks of a document are one shell session, in a mount and an IPC namespace of their own.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_END = "--- end of command ---"


def _commands(document: Path) -> list[tuple[str, list[str]]]:
    """(command, lines it prints) in the order of the document."""
    commands: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            elif line.startswith("> ") and not commands[-1][1]:
                commands[-1] = (f"{commands[-1][0]}\n{line[2:]}", [])
            else:
                commands[-1][1].append(line)
    return commands


def _matches(shown: str, expected: list[str]) -> bool:
    pattern = "".join(".*".join(map(re.escape, line.rstrip().split("…"))) + r"[ \t]*\n" for line in expected)
    return re.fullmatch(pattern, shown) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs an IPC namespace of its own")
@pytest.mark.parametrize("name", ["README.md", "docs/cookbook.md"])
def test_what_the_document_shows_is_what_a_shell_sees(name: str, tmp_path: Path) -> None:
    document = _ROOT / name
    if not document.exists():
        pytest.skip(f"there is no {name}")
    commands = _commands(document)
    assert len(commands) > 10
    script = [f"synosfs {tmp_path} || exit 1"]
    for command, _ in commands:
        script += [command.replace("/mnt/synos", str(tmp_path)), f"echo '{_END}'"]
    script.append(f"cd /; umount -l {tmp_path}")
    commands_of_python = Path(sys.executable).parent  # the ``synosfs`` that belongs to the running interpreter
    environment = {**os.environ, "PATH": f"{commands_of_python}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    shell = subprocess.Popen(
        ["unshare", "--ipc", "bash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate("\n".join(script) + "\n", timeout=60)
    finally:
        if shell.returncode is None:
            os.killpg(shell.pid, signal.SIGKILL)
            subprocess.run(["umount", "-l", str(tmp_path)], check=False)
            shell.wait()
    shown = output.split(_END + "\n")
    wrong = [
        f"$ {command}\n--- the document shows\n" + "\n".join(expected) + f"\n--- the shell shows\n{text}"
        for (command, expected), text in zip(commands, shown, strict=False)
        if not _matches(text, expected)
    ]
    assert not wrong, "\n\n".join(wrong)
    assert len(shown) == len(commands) + 1, output
