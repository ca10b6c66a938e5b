"""PaliGemma's tokenizer, on a small one of the same make: byte-pair encoding with byte fallback, spaces as an underline."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from genvla.errors import UserError
from genvla.evaluation.evaluate import policy_act
from genvla.policy.checkpoints import load_policy, save_policy
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.gemma import Prefix
from genvla.policy.processor import PolicyInputs, Processor, ProcessorConfig
from genvla.policy.tokenizer import PaligemmaTokenizer
from genvla.types import Observation

LETTERS = "▁abcdefghijklmnopqrstuvwxyzABC_.,!<>"
MERGES = [("r", "e"), ("re", "d"), ("▁", "red"), ("c", "u"), ("b", "e"), ("cu", "be"), ("▁", "cube")]


def small_tokenizer(bos: int = 2, newline: int = 108) -> Tokenizer:
    """With Gemma's special ids (pad 0, eos 1, bos 2, unk 3, newline 108), and a template that adds a bos of its own."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": bos, "<unk>": 3, "\n": newline}
    vocabulary |= {f"<0x{byte:02X}>": 300 + byte for byte in range(256)}
    vocabulary |= {letter: 200 + i for i, letter in enumerate(LETTERS)}
    vocabulary |= {a + b: 250 + i for i, (a, b) in enumerate(MERGES)}
    filler = (i for i in range(600) if i not in set(vocabulary.values()))
    vocabulary |= {f"<unused{i}>": i for i in list(filler)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<pad>", "<eos>", "<bos>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", bos)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=30)
    return tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.fixture
def tokenizer(folder: Path) -> PaligemmaTokenizer:
    made = PaligemmaTokenizer(600, 20)
    made.load(folder)
    return made


def test_ids_are_bos_pieces_newline(tokenizer: PaligemmaTokenizer) -> None:
    cube, letter = 250 + 6, {letter: 200 + i for i, letter in enumerate(LETTERS)}
    assert tokenizer.encode("red cube") == (2, 250 + 1, cube, 108)
    assert tokenizer.encode("Ab") == (2, letter["A"], letter["b"], 108)  # no lower case
    assert tokenizer.encode("a_b") == (2, letter["a"], letter["_"], letter["b"], 108)
    assert tokenizer.encode("") == (2, 108)
    assert tokenizer.encode("é") == (2, 300 + 0xC3, 300 + 0xA9, 108)  # byte fallback


@given(st.text(alphabet=st.characters(exclude_characters="\n<>", exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_what_the_library_says_between_one_bos_and_one_newline(text: str) -> None:
    ours = PaligemmaTokenizer(600, 20)
    ours._pieces, plain = lambda t: plain.encode(t, add_special_tokens=False).ids, small_tokenizer()  # as load() does
    plain.no_truncation()
    plain.no_padding()
    pieces = plain.encode(text, add_special_tokens=False).ids
    assert ours.encode(text) == (2, *pieces[:18], 108)


def test_openpi_cleans_a_prompt(folder: Path) -> None:
    """strip, then spaces for underscores and newlines: openpi's PaligemmaTokenizer, of which lerobot's checkpoints come."""
    for clean in (True, False):
        processor = Processor(ProcessorConfig(tokenizer="paligemma", vocab_size=600, max_tokens=20, clean_prompt=clean))
        processor.load_tokenizer(folder)
        encode = processor.tokenizer.encode
        assert (encode(" red_cube\n") == encode("red cube")) is clean
        assert (encode("red\ncube") == encode("red cube")) is clean
        assert len({encode("Red, cube"), encode("red cube"), encode("red, cube")}) == 3  # nothing else is cleaned away


def test_a_sentencepiece_model_is_read(tmp_path: Path) -> None:
    """Gemma's make: byte-pair encoding with byte fallback, no space before the text, and a newline that is a piece."""
    sentencepiece = pytest.importorskip("sentencepiece")
    corpus = "put the red cube in the blue bowl\nstack the green cube on the yellow cube\n" * 20
    (tmp_path / "corpus.txt").write_text(corpus)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        user_defined_symbols=["\n"],
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
    )
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    newline = reference.piece_to_id("\n")
    policy = FlowPolicy(processor=ProcessorConfig(tokenizer="paligemma", vocab_size=512, max_tokens=30))
    policy.processor.load_tokenizer(tmp_path)
    for text in ("put the red cube in the bowl", "Stapler", "é"):
        assert policy.processor.tokenizer.encode(text) == (2, *reference.encode(text), newline)
    assert len(policy.processor.tokenizer.encode("the red cube")) < len("the red cube")  # pieces are more than letters
    save_policy(policy, tmp_path / "policy")
    copy = load_policy(tmp_path / "policy").processor.tokenizer
    assert (tmp_path / "policy" / "tokenizer.model").is_file() and copy.encode("the cube") == (
        2,
        *reference.encode("the cube"),
        newline,
    )


def test_without_padding_it_decides_the_same(folder: Path, observe: Callable[..., Observation]) -> None:
    """Prompts of an evaluation are as long as the longest of them; compiled policies keep their one length."""
    config = ProcessorConfig(tokenizer="paligemma", vocab_size=600, max_tokens=40)
    policy = FlowPolicy(replace(FlowPolicy().model_config, vocab_size=600), processor=config).eval()
    policy.processor.load_tokenizer(folder)
    observation = replace(observe(2, size=64), instructions=["red cube", "be red"])
    noise = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(0))
    lengths, encode = [], policy.pi0.encode

    def spy(inputs: PolicyInputs, **options: bool) -> Prefix:
        lengths.append(inputs.tokens.shape[1])
        return encode(inputs, **options)

    policy.pi0.encode = spy  # type: ignore[method-assign]
    short = policy_act(policy)(observation, noise)
    policy.pi0._compiled = {"another": lambda: None}
    assert policy.pi0.compiled
    torch.testing.assert_close(policy_act(policy)(observation, noise), short, atol=1e-6, rtol=1e-5)
    longest = max(len(policy.processor.tokenizer.encode(text)) for text in observation.instructions)
    assert lengths == [longest, 40] and longest < 10


def test_long_text_keeps_its_newline(tokenizer: PaligemmaTokenizer) -> None:
    ids = tokenizer.encode("a" * 100)
    assert len(ids) == 20 and ids[0] == 2 and ids[-1] == 108 and set(ids[1:-1]) == {201}


def test_padding_is_on_the_right_and_masked(folder: Path) -> None:
    processor = Processor(ProcessorConfig(tokenizer="paligemma", vocab_size=600, max_tokens=6))
    processor.load_tokenizer(folder)
    tokens, mask = processor.tokenise(["red", "red cube"])
    assert tokens[0].tolist() == [2, *processor.tokenizer.encode("red")[1:], *[0] * (6 - len(processor.tokenizer.encode("red")))]
    assert mask[1].tolist() == [True] * 4 + [False] * 2 and torch.equal(mask, tokens != 0)


def test_a_missing_tokenizer_says_where_it_is_wanted() -> None:
    with pytest.raises(UserError, match="tokenizer.json or tokenizer.model of PaliGemma beside its weights"):
        PaligemmaTokenizer(600, 20).encode("red")


def test_a_token_beyond_the_model_is_refused(folder: Path) -> None:
    tokenizer = PaligemmaTokenizer(256, 20)
    tokenizer.load(folder)
    assert tokenizer.encode("red")[-1] == 108
    with pytest.raises(UserError, match="found token 495, want less than the model's 256"):
        tokenizer.encode("é")


@pytest.mark.parametrize(("bos", "content"), [(5, None), (2, "{}"), (2, "no json"), (2, None)])
def test_other_tokenizers_are_refused(tmp_path: Path, bos: int, content: str | None) -> None:
    if content is None and bos == 2:
        document = json.loads(small_tokenizer().to_str())
        del document["model"]["vocab"]["\n"]
        content = json.dumps(document)
    (tmp_path / "tokenizer.json").write_text(small_tokenizer(bos=bos).to_str() if content is None else content)
    with pytest.raises(UserError, match="found ids|cannot be read as a tokenizer") as caught:
        PaligemmaTokenizer(600, 20).load(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="tokenizer.json: No such file"):
        PaligemmaTokenizer(600, 20).load(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"rubbish")
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "sentencepiece":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="pip install sentencepiece"):
        PaligemmaTokenizer(600, 20).load(tmp_path)


def test_the_file_travels_with_the_policy(folder: Path, tmp_path: Path) -> None:
    config = FlowPolicy().config
    policy = FlowPolicy(processor=ProcessorConfig(tokenizer="paligemma", vocab_size=512))
    assert config.processor.tokenizer == "words"
    policy.processor.load_tokenizer(folder)
    content = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").unlink()
    for name in ("first", "second"):  # the second from a copy of what was loaded
        save_policy(deepcopy(policy), tmp_path / name)
        policy = load_policy(tmp_path / name)
        assert (tmp_path / name / "tokenizer.json").read_bytes() == content
        assert policy.processor.tokenizer.encode("red cube") == (2, 251, 256, 108)
