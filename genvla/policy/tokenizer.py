"""From an instruction to token ids: the small tokenizer that the tiny preset carries with it."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

PAD, BOS, NEWLINE = 0, 2, 3
"""Ids 0 to 3 are not words; 0 and 2 are also what Gemma's tokenizer calls padding and beginning."""

WORDS = tuple(
    re.findall(
        r"\w+",
        """
        a all an and any at away back behind below beside between bring by cabinet center centre close down drop end from
        front get grab grasp grip in inside into it its left lift lower move near next of off on onto open out over pick place
        pour press pull push put relocate remove right rotate set side slide stack take that the then there this to together
        top touch toward towards transfer under up upper upright with amber aqua azure beige black blue bright bronze brown
        cardboard ceramic clear coral cream crimson cyan dark emerald fuchsia glass gold golden gray green grey indigo ivory
        khaki lavender light lilac lime magenta maroon metal metallic mint mustard navy ochre olive orange pale peach pink
        plastic plum purple red rose rubber ruby rust sand scarlet silver sky steel striped tan teal terracotta turquoise
        violet walnut white wood wooden yellow big flat large little long narrow rectangular round short small square tall
        thick thin tiny wide apple avocado bag ball banana bar baseball basin basket battery bin block board book bottle bowl
        box bread brick broccoli brush bucket bun burger butter cake can candle cap card carrot cheese chess chip chocolate
        cloth coaster coffee coin colander cone container cookie corn crate croissant cube cucumber cup cupcake cutting
        cylinder dice dish disk domino donut drawer duck egg eggplant eraser figure fork fruit garlic glue hammer hex holder
        jar kettle key kiwi knife ladle lego lemon lid marker mat mouse mousepad muffin mug mushroom notebook nut onion pan
        paper pawn pear peg pen pencil pepper phone pin pitcher plate plush potato pot puck pyramid radish ring rod roll ruler
        salt sandwich sauce scissors screwdriver shaker shelf shoe sink soap soda spatula sphere sponge spool spoon stapler
        stick strawberry sugar table tablecloth tape tea teapot tennis tile tin toast tomato tool torch towel toy tray
        triangle trough tube vase wedge whisk
        """,
    )
)
"""Words of table-top instructions: what one does, where, colours and materials, sizes, things."""


class WordTokenizer:
    """One id per word; words that are not in the list share the remaining ids by a fixed hash.

    Lower case; anything that is no letter or digit only separates words. The ids are [bos, words ..., newline], the form of
    PaliGemma's prompts; words that do not fit max_length are dropped from the end, the newline never.
    """

    def __init__(self, vocab_size: int, max_length: int) -> None:
        self.max_length = max_length
        self.ids = {word: i for i, word in enumerate(WORDS, start=NEWLINE + 1)}
        self.first_hashed = NEWLINE + 1 + len(self.ids)
        self.hashed = vocab_size - self.first_hashed
        if self.hashed < 1:
            raise ValueError(f"vocab_size is {vocab_size}, want more than {self.first_hashed}")
        self.encode = lru_cache(maxsize=65_536)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        words = re.findall(r"[^\W_]+", text.lower())[: self.max_length - 2]
        return (BOS, *(self._word(word) for word in words), NEWLINE)

    def _word(self, word: str) -> int:
        if word in self.ids:
            return self.ids[word]
        digest = blake2b(word.encode(), digest_size=8).digest()
        return self.first_hashed + int.from_bytes(digest, "big") % self.hashed
