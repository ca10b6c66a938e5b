"""Prices, bounds and the ledger: what was spent never passes the limit, whatever threads do."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scenegen.errors import UserError
from scenegen.llm.base import BudgetError
from scenegen.llm.cost import Ledger, Price, find_price, input_bound


def png(width: int, height: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def test_prices() -> None:
    assert find_price("gpt-4o") == find_price("gpt-4o-2024-11-20") == Price(2.5, 10.0)
    assert find_price("gpt-4o-2024-05-13") == Price(5.0, 15.0)
    assert find_price("gpt-4o-audio-preview") is None and find_price("gpt-5-pro") is None and find_price("llama") is None
    assert find_price("llama", "0.2, 0.6") == Price(0.2, 0.6) and find_price("gpt-4o", "1,2") == Price(1, 2)
    assert Price(2.5, 10.0).usd(1_000_000, 100_000) == pytest.approx(3.5)
    for bad in ("1", "1,2,3", "a,b", "-1,2", "nan,1", "inf,1", ""):
        with pytest.raises(UserError, match="llm_price: found"):
            find_price("gpt-4o", bad)


def test_bounds_of_images_and_text() -> None:
    four, mini = find_price("gpt-4o"), find_price("gpt-4o-mini")
    assert input_bound([], [png(512, 512)], four) == max(85 + 170, 630)  # 16 x 16 patches at 2.46.
    assert input_bound([], [png(256, 256)], four) == 85 + 170
    assert input_bound([], [png(256, 256)], mini) == 2833 + 5667
    assert input_bound([], [png(4000, 4000)], mini) == 2833 + 4 * 5667  # 768 x 768 after scaling.
    assert input_bound(["grüße"], [], None) >= len("grüße".encode())
    with pytest.raises(ValueError, match="PNG"):
        input_bound([], [b"GIF89a"], four)


def test_the_line() -> None:
    ledger = Ledger(Price(2.5, 10.0))
    assert ledger.line() == "0 calls, 0 in / 0 out tokens, $0.00"
    for purpose, tokens in (("design", (40_000, 6_000)), ("judge", (8_210, 120))):
        with ledger.call(purpose, 0, 0) as call:
            call.tokens = tokens
    assert ledger.line() == "2 calls, 48,210 in / 6,120 out tokens, $0.18"
    assert ledger.by_purpose()["judge"].tokens_in == 8_210 and call.usd == pytest.approx(0.021725)
    unknown = Ledger(None)
    with unknown.call("design", 10**9, 10**9) as call:
        call.tokens = (10, 2)
    assert unknown.line() == "1 call, 10 in / 2 out tokens, price not known" and unknown.usd == 0


def test_limits_that_are_none() -> None:
    with pytest.raises(UserError, match="max_usd: the price of x is not known"):
        Ledger(None, 1.0, "x")
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="max_usd: found"):
            Ledger(Price(1, 1), bad)


def test_a_failed_call_gives_back_what_it_held() -> None:
    ledger = Ledger(Price(1.0, 0.0), 1.0)
    for _ in range(3):
        with pytest.raises(RuntimeError), ledger.call("x", 1_000_000, 0):
            raise RuntimeError
    with ledger.call("x", 1_000_000, 0) as call:
        call.tokens = (1_000_000, 0)
    with pytest.raises(BudgetError, match=r"x: \$1.0000 of \$1.0000 are spent"), ledger.call("x", 1, 0):
        pass
    assert ledger.usd == 1.0 and ledger.by_purpose()["x"].calls == 1


def test_waits_for_what_others_hold_instead_of_failing() -> None:
    ledger = Ledger(Price(1.0, 0.0), 1.0)
    held, done = threading.Event(), threading.Event()

    def first() -> None:
        with ledger.call("a", 800_000, 0) as call:
            held.set()
            done.wait(5)
            call.tokens = (100_000, 0)

    def second() -> float:
        with ledger.call("b", 700_000, 0) as call:
            call.tokens = (700_000, 0)
        return ledger.usd

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        held.wait(5)
        two = pool.submit(second)
        time.sleep(0.05)
        assert not two.done()
        done.set()
        one.result(5)
        assert two.result(5) == pytest.approx(0.8)


@settings(max_examples=30)
@given(
    limit=st.floats(0, 3e-3),
    calls=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 300), st.floats(0, 1), st.booleans()), min_size=1, max_size=40),
)
def test_never_past_the_limit(limit: float, calls: list[tuple[int, int, float, bool]]) -> None:
    ledger = Ledger(Price(1.0, 4.0), limit)
    paid: list[float] = []
    highest: list[float] = []

    def run(item: tuple[int, int, float, bool]) -> None:
        tokens_in, tokens_out, used, fails = item
        try:
            with ledger.call("x", tokens_in, tokens_out) as call:
                if fails:
                    raise RuntimeError
                call.tokens = (int(used * tokens_in), int(used * tokens_out))
            paid.append(call.usd)
        except (BudgetError, RuntimeError):
            pass
        highest.append(ledger.usd)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, calls))
    assert max(highest) <= limit * (1 + 1e-12) and ledger.usd == pytest.approx(sum(paid))
    assert not ledger._held
