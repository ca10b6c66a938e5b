"""`genvla serve` as a user starts it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.sources import opened_policy
from genvla.cli import main
from genvla.errors import UserError
from genvla.policy.checkpoints import save_policy
from genvla.policy.flow_policy import FlowPolicy
from genvla.serving.command import read_token

pytest.importorskip("websockets")
pytest.importorskip("msgpack")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_policy(FlowPolicy(), tmp_path / "policy")
    return tmp_path / "policy"


def test_served_and_local_decide_alike_and_sigterm_ends_it_well(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    words = ["serve", "--checkpoint", str(checkpoint), "--port", "0", "--token_file", str(tmp_path / "token")]
    process = subprocess.Popen([sys.executable, "-m", "genvla.cli", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("warm-up: ")
        found = re.search(r"ws://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        rng = np.random.default_rng(0)
        asked = (rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), rng.random(7), "go", rng.standard_normal((4, 7)).astype("f4"))
        with (
            opened_policy(found[0], timeout=30.0, token_file=tmp_path / "token") as served,
            opened_policy(str(checkpoint), timeout=30.0, device="cpu") as local,
        ):
            np.testing.assert_array_equal(served.policy.decide(*asked), local.policy.decide(*asked))
            assert (served.digest, served.sim, served.integration_steps) == (local.digest, local.sim, local.integration_steps)
        with pytest.raises(UserError, match="401"), opened_policy(found[0], timeout=30.0):
            pass
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(120) == 0 and "served 1 decisions to 1 clients, 0 errors" in rest
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--host", "0.0.0.0"], "--token_file"),
        (["--token_file", "nowhere"], "nowhere: cannot be read"),
        (["--integration_steps", "0"], "integration_steps"),
        (["--limits.max_bytes", "0"], "limits.max_bytes"),
        (["--checkpoint", "nowhere"], "nowhere"),
    ],
)
def test_bad_words_are_one_line(checkpoint: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--checkpoint", str(checkpoint), *words]) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1


@pytest.mark.parametrize("text", ["", "short", "two words of a secret", "0123456789abcdeé"])
def test_tokens_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(UserError, match="at least 16 wanted"):
        read_token(tmp_path / "token")
