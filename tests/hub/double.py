"""A double of the model hub on this machine: the paper's encoders by their own names, revisions and configs, and GLUE.

Weights are random, tokenizers are trained on a little text; files lie and are named as on the hub. What the client asks
for is answered as the hub answers it: listings of a revision, files with their digests, parts of files. Faults can be
planted. ``python tests/hub/double.py FOLDER GLUE`` makes the repositories, writes their pins into FOLDER/hub.yaml and
serves them until it is stopped.
"""

import hashlib
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq
import torch
import transformers
import yaml
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = Path(__file__).resolve().parents[2]

REVISIONS = {name: pin["revision"] for name, pin in yaml.safe_load((ROOT / "lib" / "hub.yaml").read_text()).items()}

BERT, ROBERTA, XLNET = "google-bert/bert-base-cased", "FacebookAI/roberta-base", "xlnet/xlnet-base-cased"
GLUE = "nyu-mll/glue"

WEIGHTS = {BERT: "model.safetensors", ROBERTA: "model.safetensors", XLNET: "pytorch_model.bin"}

CONFIGS: dict[str, dict[str, Any]] = {
    BERT: {
        "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
        "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
        "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0, "position_embedding_type": "absolute",
        "transformers_version": "4.6.0.dev0", "type_vocab_size": 2, "use_cache": True,
    },
    ROBERTA: {
        "architectures": ["RobertaForMaskedLM"], "attention_probs_dropout_prob": 0.1, "bos_token_id": 0,
        "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
        "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 514,
        "model_type": "roberta", "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1,
        "type_vocab_size": 1,
    },
    XLNET: {
        "architectures": ["XLNetLMHeadModel"], "attn_type": "bi", "bi_data": False, "bos_token_id": 1, "clamp_len": -1,
        "d_head": 64, "d_inner": 3072, "d_model": 768, "dropout": 0.1, "end_n_top": 5, "eos_token_id": 2,
        "ff_activation": "gelu", "initializer_range": 0.02, "layer_norm_eps": 1e-12, "mem_len": None,
        "model_type": "xlnet", "n_head": 12, "n_layer": 12, "pad_token_id": 5, "reuse_len": None, "same_length": False,
        "start_n_top": 5, "summary_activation": "tanh", "summary_last_dropout": 0.1, "summary_type": "last",
        "summary_use_proj": True, "untie_r": True,
    },
}  # fmt: skip
"""``config.json`` of the encoders; the size of the vocabulary is that of the double's tokenizer."""

TINY = {
    BERT: {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 2},
    ROBERTA: {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 2},
    XLNET: {"d_model": 24, "n_layer": 2, "d_inner": 48, "n_head": 2, "d_head": 12},
}
"""Over the configs, for tests of the way and not of the size."""


# Repositories ----------------------------------------------------------------------------------------------------


def make(folder: Path, text: Iterable[str], tiny: bool = False, vocabulary: int = 2000) -> dict[str, Path]:
    """Repositories of the encoders below a folder, their tokenizers trained on ``text``: id → folder."""
    lines, made = list(text), {}
    tokenizers = {BERT: _wordpiece, ROBERTA: _byte_pairs, XLNET: _sentence_pieces}
    for name, train in tokenizers.items():
        made[name] = place = folder / name
        place.mkdir(parents=True)
        size = train(place, lines, vocabulary)
        config = CONFIGS[name] | (TINY[name] if tiny else {}) | {"vocab_size": size}
        (place / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (place / "README.md").write_text("A double: random weights.\n")
        (place / "tf_model.h5").write_bytes(b"weights of another library, which nobody needs")
        _weights(name, config, place)
    (made[BERT] / "pytorch_model.bin").write_bytes(b"pickled weights, which nobody needs")
    return made


def _wordpiece(place: Path, text: list[str], size: int) -> int:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer, tok.pre_tokenizer = normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    tok.train_from_iterator(text, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special))
    tok.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    vocabulary = tok.get_vocab()
    (place / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__)))
    (place / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 512}')
    tok.save(str(place / "tokenizer.json"))
    return tok.get_vocab_size()


def _byte_pairs(place: Path, text: list[str], size: int) -> int:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tok.train_from_iterator((f" {line}" for line in text), trainer)
    tok.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tok.model.save(str(place))
    vocabulary = json.loads((place / "vocab.json").read_text())
    vocabulary["<mask>"] = len(vocabulary)  # the last, as there
    (place / "vocab.json").write_text(json.dumps(vocabulary))
    tok.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    (place / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    tok.save(str(place / "tokenizer.json"))
    return tok.get_vocab_size()


def _sentence_pieces(place: Path, text: list[str], size: int) -> int:
    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]
    tok = Tokenizer(models.Unigram())
    tok.normalizer = normalizers.Sequence([
        normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
        normalizers.Replace(Regex(" {2,}"), " "),
    ])  # fmt: skip
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tok.decoder = decoders.Metaspace()
    tok.train_from_iterator(text, trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>"))
    tok.post_processor = processors.TemplateProcessing(
        single="$A:0 <sep>:0 <cls>:2", pair="$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
        special_tokens=[("<sep>", 4), ("<cls>", 3)],
    )  # fmt: skip
    tok.save(str(place / "tokenizer.json"))  # and no tokenizer_config.json, as there
    pieces = json.loads(tok.to_str())["model"]["vocab"]
    (place / "spiece.model").write_bytes(
        b"".join(_piece(*piece, len(special) > i > 0) for i, piece in enumerate(pieces))
    )
    return tok.get_vocab_size()


def _piece(piece: str, score: float, control: bool) -> bytes:
    """One piece of a SentencePiece model, as a protocol buffer: its text, score and type."""
    text, number = piece.encode(), torch.tensor(score, dtype=torch.float32).numpy().tobytes()
    body = b"\x0a" + _varint(len(text)) + text + b"\x15" + number + (b"\x18\x03" if control else b"")
    return b"\x0a" + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _weights(name: str, config: dict[str, Any], place: Path) -> None:
    """Random weights under the names that the released files have."""
    torch.manual_seed(len(name))
    kind = {BERT: "BertForPreTraining", ROBERTA: "RobertaForMaskedLM", XLNET: "XLNetLMHeadModel"}[name]
    options = transformers.AutoConfig.for_model(**config)
    state = getattr(transformers, kind)(options).state_dict()
    state = {key: value.clone() for key, value in state.items() if ".decoder." not in key}
    if name == BERT:
        older = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
        for now, before in older:
            state = {key.replace(now, before): value for key, value in state.items()}
    if name == ROBERTA:
        state["roberta.embeddings.position_ids"] = torch.arange(config["max_position_embeddings"])[None]
    if name == XLNET:
        torch.save(state, place / WEIGHTS[name])
    else:
        save_file(state, place / WEIGHTS[name], metadata={"format": "pt"})


def pins(repositories: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """What ``lib/hub.yaml`` would say of these repositories: the real revisions, and the digests of these files."""
    return {
        name: {"revision": REVISIONS[name], "files": {
            file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in [WEIGHTS.get(name)] if file
        }}
        for name, folder in repositories.items()
    }  # fmt: skip


def sentences_of(glue: Path, count: int = 20_000) -> list[str]:
    """Text to train tokenizers on: sentences of SST-2 and RTE in a copy of GLUE."""
    found = []
    for name, columns in (("sst2", ["sentence"]), ("rte", ["sentence1", "sentence2"])):
        table = pq.read_table(glue / name / "train-00000-of-00001.parquet", columns=columns)
        found += [text for column in columns for text in table.column(column).to_pylist()[:count]]
    return found


# The server ------------------------------------------------------------------------------------------------------


@dataclass
class Fault:
    """What goes wrong with requests whose path holds ``where``, ``times`` times.

    ``status`` : answered in place of the file; 0: the connection is cut after half of it. ``code`` : the hub's own
    name of the error. ``wrong`` : a byte of the content is changed.
    """

    where: str
    status: int = 0
    times: int = 10**6
    method: str = "GET"
    code: str = ""
    wrong: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class Hub:
    """Serves repositories on loopback, in a thread, between ``with`` and its end.

    ``requests`` : (method, path, range) of all so far. ``faults`` : what is to go wrong. ``main`` : id → the commit
    that its branch ``main`` names, where it is another than the pinned one.
    """

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories = repositories
        self.revisions = {name: [REVISIONS[name]] for name in repositories}
        self.requests: list[tuple[str, str, str]] = []
        self.faults: list[Fault] = []
        self.main: dict[str, str] = {}
        self._digests: dict[Path, tuple[str, str]] = {}

    @cached_property
    def _server(self) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        server.daemon_threads = True
        return server

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str, path: str) -> Fault | None:
        """The next fault that a request meets."""
        for fault in self.faults:
            if fault.times > 0 and fault.where in path and method == fault.method:
                fault.times -= 1
                return fault
        return None

    def commit(self, name: str, revision: str) -> str | None:
        """The commit that a revision names; None if there is none."""
        if revision == "main":
            return self.main.get(name, self.revisions[name][-1])
        return revision if revision in self.revisions[name] else None

    def digests(self, file: Path) -> tuple[str, str]:
        """Git's digest of a file, and its SHA-256 if it is kept as a large one."""
        if file not in self._digests:
            content = file.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            large = file.suffix in (".safetensors", ".bin", ".parquet", ".model", ".h5")
            self._digests[file] = git, hashlib.sha256(content).hexdigest() if large else ""
        return self._digests[file]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *parts: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        fault = self.hub.fault(self.command, path)
        if fault and fault.status:
            return self._refuse(fault.status, fault.code, fault.headers)
        listing = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path)
        file = re.fullmatch(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not (found := listing or file):
            return self._refuse(404, "")
        name, revision = (found[2], found[4]) if listing else (found[2], found[3])
        if (found[1] == "datasets") != (name == GLUE) or name not in self.hub.repositories:
            return self._refuse(401, "RepoNotFound")  # as the hub tells someone whom it does not know
        if not (commit := self.hub.commit(name, revision)):
            return self._refuse(404, "RevisionNotFound")
        folder = self.hub.repositories[name]
        if listing:
            return self._json(self._listed(folder) if found[3] == "tree" else {
                "id": name, "sha": commit, "siblings": [{"rfilename": f["path"]} for f in self._listed(folder)],
                "private": False, "tags": [], "downloads": 0, "likes": 0,
            })  # fmt: skip
        if not (folder / found[4]).is_file():
            return self._refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        self._file(folder / found[4], commit, fault)

    def _listed(self, folder: Path) -> list[dict[str, Any]]:
        out = []
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            git, large = self.hub.digests(path)
            size = path.stat().st_size
            lfs = {"lfs": {"oid": large, "size": size, "pointerSize": 134}} if large else {}
            out.append({"type": "file", "path": path.relative_to(folder).as_posix(), "oid": git, "size": size, **lfs})
        return out

    def _json(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (({"X-Error-Code": code} if code else {}) | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, file: Path, commit: str, fault: Fault | None) -> None:
        size, (git, large) = file.stat().st_size, self.hub.digests(file)
        part = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(part[1]) if part else 0
        self.send_response(206 if part else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{large or git}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - begin))
        if part:
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        with file.open("rb") as stream:
            if not fault:
                stream.seek(begin)
                shutil.copyfileobj(stream, self.wfile, 1 << 20)
                return
            content = bytearray(stream.read())
        if fault.wrong:
            content[-1] ^= 1
            self.wfile.write(content[begin:])
        else:
            self.wfile.write(content[begin : begin + (size - begin) // 2])
            self.wfile.flush()
            self.close_connection = True


if __name__ == "__main__":
    place, glue = map(Path, sys.argv[1:])
    repositories = make(place, sentences_of(glue)) | {GLUE: glue}
    (place / "hub.yaml").write_text(yaml.safe_dump(pins(repositories)))
    with Hub(repositories) as hub:
        print(f"HF_ENDPOINT={hub.endpoint}; the pins are {place / 'hub.yaml'}", flush=True)
        threading.Event().wait()
