"""From an instruction to token ids: the small tokenizer that the tiny preset carries with it, and PaliGemma's."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from genvla.errors import UserError

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


Reader = tuple[Callable[[str], list[int]], tuple[int | None, ...]]
"""How a text becomes pieces, and the ids of padding, beginning and newline."""


class PaligemmaTokenizer:
    """PaliGemma's word pieces, read from its tokenizer.json or tokenizer.model; the images of the prompt need no ids here.

    The ids are [2 (bos), pieces of the text ..., newline], built explicitly, so that no setting of the file can add a second bos.
    The text is taken as it is, no lower case, or with clean=True as openpi cleans it: no white space around it, and spaces for
    underscores and newlines. Pieces that do not fit max_length are dropped from the end, the newline never: open-pi-zero would
    drop it, and its model has not seen a prompt without one.
    """

    FILES = ("tokenizer.json", "tokenizer.model")

    def __init__(self, vocab_size: int, max_length: int, *, clean: bool = False) -> None:
        self.vocab_size, self.max_length, self.clean = vocab_size, max_length, clean
        self._file: tuple[str, bytes] | None = None
        self._pieces: Callable[[str], list[int]] | None = None
        self.encode = lru_cache(maxsize=65_536)(self._encode)

    def load(self, source: Path | str) -> None:
        """Read the file, or the first of FILES in a folder, or tokenizer.json of a repository `owner/name` of the model hub.

        Raises:
            UserError: there is no such file, it is no PaliGemma tokenizer, or the library that reads it is missing.
        """
        path = Path(source)
        if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
            path = _download(str(source))
        if path.is_dir():
            path = next((path / name for name in self.FILES if (path / name).is_file()), path / self.FILES[0])
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}, want PaliGemma's {' or '.join(self.FILES)}") from error
        pieces, special = (_sentencepiece if path.suffix == ".model" else _tokenizers)(path, content)
        newline = pieces("\n")
        if special[:2] != (PAD, BOS) or newline != [special[2]] or newline[0] <= NEWLINE:
            raise UserError(
                f"{path}: found ids {special} of <pad>, <bos> and newline, and {newline} for a text of one newline; "
                f"want PaliGemma's tokenizer, with {PAD}, {BOS} and a token for the newline"
            )
        self._pieces, self._file = pieces, (self.FILES[path.suffix == ".model"], content)
        self.encode.cache_clear()

    def save(self, folder: Path) -> None:
        """Write the file that was read, if any."""
        if self._file is not None:
            name, content = self._file
            (folder / name).write_bytes(content)

    def _encode(self, text: str) -> tuple[int, ...]:
        if self._pieces is None:
            raise UserError(
                f"tokenizer: this checkpoint came without one, want {' or '.join(self.FILES)} of PaliGemma beside its weights, "
                "or genvla export --tokenizer"
            )
        if self.clean:
            text = text.strip().replace("_", " ").replace("\n", " ")
        *pieces, newline = self._pieces(f"{text}\n")
        ids = (BOS, *pieces[: self.max_length - 2], newline)
        if max(ids) >= self.vocab_size:
            raise UserError(f"instruction {text!r}: found token {max(ids)}, want less than the model's {self.vocab_size}")
        return ids


def _tokenizers(path: Path, content: bytes) -> Reader:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UserError(f"{path}: reading it needs the package tokenizers, want pip install tokenizers") from error
    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"{path}: cannot be read as a tokenizer ({_first_line(error)})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    special = tuple(tokenizer.token_to_id(name) for name in ("<pad>", "<bos>", "\n"))
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids, special


def _sentencepiece(path: Path, content: bytes) -> Reader:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise UserError(f"{path}: reading it needs the package sentencepiece, want pip install sentencepiece") from error
    try:
        model = SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be read as a SentencePiece model ({_first_line(error)})") from error
    return lambda text: model.encode(text), (model.pad_id(), model.bos_id(), model.piece_to_id("\n"))


def _download(repository: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise UserError(f"{repository}: the hub needs the package huggingface_hub, want pip install huggingface_hub") from error
    try:
        return Path(hf_hub_download(repository, PaligemmaTokenizer.FILES[0]))
    except Exception as error:  # a missing repository, a licence not accepted, no network: many kinds, one meaning
        raise UserError(f"{repository}: cannot be fetched from the model hub ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
