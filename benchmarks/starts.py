"""How far exchanged layers move a pretrained encoder's output, before any training.

    python benchmarks/starts.py --data_dir DATA --record benchmarks/records/starts.json

For each start the cosine of its output with the untouched encoder's, over dev sentences of the
built-in corpus and, with --data_dir, of the course's data: of the mean over a sentence's tokens,
and of its [CLS]; on average over the sentences, and the worst of them. In fp32.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bert import BertModel
from errors import run_main
from models.calibration import norms_in, pack_sentences, sentences
from models.encoder import pretrained_encoder
from options import Options
from packing import Packed
from pretrained import EMBEDDED
from storage.json_files import write_json
from text.data_files import BUILT_IN
from tokenizer import BertTokenizer
from training.environment import environment

LONGEST = 128  # tokens


def starts_of(options: Options) -> Iterator[tuple[str, BertModel]]:
    """The encoders that the flags in the names make from the pretrained one."""
    # RMSNorm's: the gain of LayerNorm alone is no choice of a flag's, but shows what its bias does.
    copied = pretrained_encoder(replace(options, rmsnorm="encoder"))
    yield "--rmsnorm encoder", copied
    with torch.no_grad():
        for norm in norms_in(copied).values():
            if norm.bias is not None:  # as all in the encoder have
                norm.bias.zero_()
    yield "--rmsnorm encoder, gain alone", copied
    calibrated = replace(options, rmsnorm="encoder", rmsnorm_start="calibrated")
    yield "--rmsnorm_start calibrated", pretrained_encoder(calibrated)

    yield "--swiglu encoder", pretrained_encoder(replace(options, swiglu="encoder"))
    heads = copied.config.num_key_value_heads
    for count in range(heads - 1, 0, -1):
        if heads % count == 0:
            yield f"--kv_heads {count}", pretrained_encoder(replace(options, kv_heads=count))


@torch.no_grad()
def outputs(bert: BertModel, packed: Packed) -> dict[str, Tensor]:
    """Of each sentence the mean of its tokens' last states and that of [CLS]: [S, H] each."""
    states = bert.encode_packed(packed)[-1]
    both = zip(packed.starts.tolist(), packed.lengths.tolist(), strict=True)
    means = torch.stack([states[start : start + length].mean(0) for start, length in both])
    return {"mean": means, "cls": states[packed.starts]}


def cosines(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """On average and at worst, of both outputs."""
    measured = {}
    for kind, x in found.items():
        cosine = torch.cosine_similarity(x, expected[kind])
        measured[kind] = round(cosine.mean().item(), 4)
        measured[f"{kind}, worst"] = round(cosine.min().item(), 4)
    return measured


def main(argv: Sequence[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default=EMBEDDED, help="a pretrained encoder")
    parser.add_argument("--data_dir", help="a folder with the course's files")
    parser.add_argument("--examples", type=int, default=60, help="of each task's dev file")
    parser.add_argument("--record", help="a JSON file for the cosines")
    args = parser.parse_args(argv)

    # The sentences, and what the untouched encoder makes of them.
    options = Options(model=args.model)
    tokenizer = BertTokenizer.from_pretrained(args.model)
    folders = {"built-in corpus": BUILT_IN}
    if args.data_dir:
        folders["the course's data"] = Path(args.data_dir)
    corpora = {
        name: pack_sentences(sentences(folder, "dev", args.examples), tokenizer, LONGEST)
        for name, folder in folders.items()
    }
    original = pretrained_encoder(options)
    expected = {name: outputs(original, packed) for name, packed in corpora.items()}

    # Each start on the same sentences.
    starts: dict[str, Any] = {}
    for flags, bert in starts_of(options):
        starts[flags] = {
            name: cosines(outputs(bert, packed), expected[name]) for name, packed in corpora.items()
        }
        print(json.dumps({flags: starts[flags]}), flush=True)
    if args.record:
        counts = {name: len(packed.starts) for name, packed in corpora.items()}
        facts = {**environment(torch.device("cpu")), "model": args.model, "sentences": counts}
        write_json(Path(args.record), {**facts, "starts": starts})


if __name__ == "__main__":
    run_main(main)
