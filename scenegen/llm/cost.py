"""What language models cost: prices, an upper bound before a call, and a ledger that never lets parallel calls pass a limit."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition

from scenegen.errors import UserError
from scenegen.llm.base import BudgetError


@dataclass(frozen=True)
class Price:
    """USD per million tokens in and out; input from a server's cache is counted at the full price. An image of one tile costs
    base + tile tokens."""

    input: float
    output: float
    base: int = 85
    tile: int = 170

    def usd(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.input + tokens_out * self.output) / 1e6


PRICES = {
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4o-2024-05-13": Price(5.00, 15.00),
    "gpt-4o-mini": Price(0.15, 0.60, 2833, 5667),
    "gpt-4.1": Price(2.00, 8.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.40),
    "gpt-5": Price(1.25, 10.00),
    "gpt-5-mini": Price(0.25, 2.00),
    "gpt-5-nano": Price(0.05, 0.40),
}
"""List prices of OpenAI; a dated snapshot costs what its family costs unless it stands here itself."""


def find_price(model: str, given: str | None = None) -> Price | None:
    """The price of a model, or the one `given` as "IN,OUT"; None when it is not known. Raises UserError for a malformed one."""
    if given is None:
        return PRICES.get(model) or PRICES.get(re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model))
    try:
        tokens_in, tokens_out = (float(part) for part in given.split(","))
    except ValueError:
        tokens_in = tokens_out = math.nan
    if not (0 <= tokens_in < math.inf and 0 <= tokens_out < math.inf):
        raise UserError(f"llm_price: found {given!r}; wanted IN,OUT: USD per million tokens, such as 2.50,10.00")
    return Price(tokens_in, tokens_out)


def input_bound(texts: Sequence[str], images: Sequence[bytes], price: Price | None) -> int:
    """Tokens that these can be at most. A token is at least one byte of text; an image is cut into tiles of 512 pixels after its
    shorter side has been brought below 768, or into patches of 32 pixels of which models count up to 2.46 tokens each."""
    price = price or Price(0, 0)
    tokens = sum(len(text.encode()) for text in texts) + 16 * len(texts)
    for image in images:
        width, height = _png_size(image)
        scale = min(1, 2048 / max(width, height), 768 / min(width, height))
        tiles = math.ceil(width * scale / 512) * math.ceil(height * scale / 512)
        patches = min(1536, math.ceil(width / 32) * math.ceil(height / 32))
        tokens += max(price.base + price.tile * tiles, math.ceil(2.46 * patches))
    return tokens


def _png_size(image: bytes) -> tuple[int, int]:
    if image[:8] != b"\x89PNG\r\n\x1a\n" or len(image) < 24:
        raise ValueError("an image for a language model is a PNG file")
    width, height = struct.unpack(">II", image[16:24])
    return width, height


@dataclass
class Spent:
    """What calls of one purpose took so far."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0


@dataclass
class Call:
    """One call: the tokens in and out that it can take at most, then those that it took and what they cost. A call that failed
    without saying what it took counts as nothing."""

    bound: tuple[int, int]
    tokens: tuple[int, int] | None = None
    usd: float = 0.0


class Ledger:
    """Counts calls, tokens and USD by purpose, from any number of threads, and keeps the sum below `max_usd`.

    Raises UserError for a limit that is none, or one where the price is not known."""

    def __init__(self, price: Price | None, max_usd: float | None = None, model: str = "the model") -> None:
        if max_usd is not None and not 0 <= max_usd < math.inf:
            raise UserError(f"max_usd: found {max_usd}; wanted USD, 0 or more")
        if max_usd is not None and price is None:
            raise UserError(
                f"max_usd: the price of {model} is not known; wanted also --llm_price IN,OUT (USD per million tokens)"
            )
        self.price, self.max_usd = price, max_usd
        self._by_purpose: dict[str, Spent] = {}
        self._held: list[float] = []
        self._changed = Condition()

    @contextmanager
    def call(self, purpose: str, tokens_in: int, tokens_out: int) -> Iterator[Call]:
        """Around one call that takes at most so many tokens; set `tokens` of what it yields to what it took. While other calls
        hold what is left it waits for them; raises BudgetError when the call does not fit into what is left after them."""
        estimate = self._usd(tokens_in, tokens_out)
        self._reserve(purpose, estimate)
        call = Call((tokens_in, tokens_out))
        try:
            yield call
        finally:
            with self._changed:
                self._held.remove(estimate)
                if call.tokens is not None:
                    call.usd = self._usd(*call.tokens)
                    spent = self._by_purpose.setdefault(purpose, Spent())
                    spent.calls += 1
                    spent.tokens_in += call.tokens[0]
                    spent.tokens_out += call.tokens[1]
                    spent.usd += call.usd
                self._changed.notify_all()

    def _reserve(self, purpose: str, estimate: float) -> None:
        with self._changed:
            if self.max_usd is not None:
                while self._held and self.usd + estimate <= self.max_usd < self.usd + sum(self._held) + estimate:
                    self._changed.wait()
                if self.usd + estimate > self.max_usd:
                    raise BudgetError(
                        f"{purpose}: ${self.usd:.4f} of ${self.max_usd:.4f} are spent and this call could cost ${estimate:.4f}; "
                        "wanted a larger --max_usd"
                    )
            self._held.append(estimate)

    def _usd(self, tokens_in: int, tokens_out: int) -> float:
        return self.price.usd(tokens_in, tokens_out) if self.price else 0.0

    @property
    def usd(self) -> float:
        return sum(spent.usd for spent in list(self._by_purpose.values()))

    def by_purpose(self) -> dict[str, Spent]:
        """A copy of what each purpose took."""
        with self._changed:
            return {name: Spent(s.calls, s.tokens_in, s.tokens_out, s.usd) for name, s in self._by_purpose.items()}

    def line(self) -> str:
        """The sum in one line: "12 calls, 48,210 in / 6,120 out tokens, $0.18"."""
        spent = self.by_purpose().values()
        calls, tokens_in, tokens_out = (sum(getattr(s, name) for s in spent) for name in ("calls", "tokens_in", "tokens_out"))
        money = f"${sum(s.usd for s in spent):.2f}" if self.price else "price not known"
        return f"{calls} call{'s' * (calls != 1)}, {tokens_in:,} in / {tokens_out:,} out tokens, {money}"
