"""merge, chat, export, eval: what is done with a model after its training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clusterlm.errors import TrainError

if TYPE_CHECKING:
    from clusterlm.train.target import Target
    from clusterlm.weights.merge_job import MergeJob

TargetText = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A run, a job.yaml, a checkpoint, a folder with an adapter or a model, or a hub id.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option("--base", metavar="NAME", help="Model under the adapter, if it names another."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that the model brings.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("merge")(merge)
    app.command("chat")(chat)
    app.command("eval")(evaluate)
    app.command("export")(export)


def merge(
    target: TargetText,
    output: Annotated[Path, typer.Option("-o", "--output", help="New folder of the model.")],
    base: Base = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET", help="A further adapter, put in behind TARGET; repeatable."),
    ] = None,
    scale: Annotated[float, typer.Option(help="Multiply the low-rank updates by this.")] = 1.0,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default: as the base.")
    ] = None,
    bound: Annotated[
        float,
        typer.Option(
            min=0, help="Largest difference of logits; of 16-bit weights as a share of the largest."
        ),
    ] = 0.05,
    prompts: Annotated[
        Path | None, typer.Option(exists=True, help="Text file, one prompt a line, to compare on.")
    ] = None,
    max_shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Of a file.")] = "5G",
    no_compare: Annotated[
        bool, typer.Option("--no-compare", help="For models that do not fit into memory.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where they are compared.")] = "cpu",
    trust_remote_code: Trust = False,
) -> None:
    """Put an adapter into its base, and prove that it says the same."""
    from clusterlm.train.after import merge_job

    asked: dict[str, Any] = {
        "scale": scale,
        "dtype": dtype,
        "bound": bound,
        "compares": not no_compare,
        "max_shard_bytes": _bytes_of(max_shard_size),
        "device": device,
    }
    if prompts is not None:
        lines = prompts.read_text(encoding="utf-8", errors="replace").splitlines()
        asked["texts"] = [line for line in lines if line.strip()]
    job = merge_job(_find(target, base), [_find(text, None) for text in adapter or []], **asked)
    _run_merge(job, output, trust_remote_code=trust_remote_code)


def chat(
    target: TargetText,
    base: Base = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="One answer to this, then end.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer at most.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Share of the likeliest tokens.")] = 0.9,
    top_k: Annotated[int, typer.Option(help="Number of the likeliest tokens; 0: all.")] = 40,
    repetition_penalty: Annotated[float, typer.Option(help="1 is none.")] = 1.1,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest token.")] = False,
    seed: Annotated[int | None, typer.Option(help="The same answers each time.")] = None,
    history_limit: Annotated[int, typer.Option(min=0, help="Turns kept; 0: all.")] = 10,
    dtype: Dtype = "auto",
    device: Device = "auto",
    load_in: Annotated[str | None, typer.Option(metavar="4bit|8bit", help="On a GPU.")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Talk with a model; /help shows what else a line can be."""
    found = _find(target, base)
    from clusterlm.train.after import open_chat
    from clusterlm.train.sampling import Sampling
    from clusterlm.train.terminal import as_text, read_all, take_anything

    sampling = Sampling(max_new_tokens, temperature, top_p, top_k, repetition_penalty, greedy)
    is_terminal = sys.stdin.isatty()
    text = None if prompt is None else as_text(prompt)
    if text is None and not is_terminal:
        text = read_all(sys.stdin).strip()
        if not text:
            raise TrainError("nothing to answer: --prompt TEXT, or text on the standard input")
    _note(f"loading {found.words}")
    how = {"dtype": dtype, "device": device, "load_in": load_in}
    opened = open_chat(found, sampling, seed=seed, trust_remote_code=trust_remote_code, **how)
    opened.history.limit = history_limit
    opened.history.system = None if system is None else as_text(system)
    if text is not None:
        opened.say("user", text)
        return
    _note("/help shows the commands; Ctrl-D ends")
    take_anything(sys.stdin)
    import readline  # noqa: F401 - input() then knows the arrow keys

    opened.run(lambda: input("> "))


def evaluate(
    target: TargetText,
    base: Base = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Prepared data: a job.yaml, a run or a folder."),
    ] = None,
    split: Annotated[str, typer.Option(help="validation or train.")] = "validation",
    max_blocks: Annotated[int | None, typer.Option(min=1, help="Only so many blocks.")] = None,
    micro_batch_size: Annotated[int, typer.Option(min=1, help="Blocks at once.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    trust_remote_code: Trust = False,
) -> None:
    """Perplexity and token accuracy on prepared data."""
    found = _find(target, base)
    folder = _data_folder(found, data)
    from clusterlm.train.after import evaluate_target

    _note(f"{found.words}, on {split} of {folder}")
    result = evaluate_target(
        found,
        folder,
        split,
        max_blocks=max_blocks,
        blocks_at_once=micro_batch_size,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    if as_json:
        typer.echo(json.dumps({"target": target, **result.as_dict()}))
        return
    typer.echo(result.words())


def export(
    target: TargetText,
    output: Annotated[Path, typer.Option("-o", "--output", help="New folder of the files.")],
    gguf: Annotated[bool, typer.Option("--gguf", help="For llama.cpp and Ollama.")] = False,
    base: Base = None,
    converter: Annotated[
        Path | None, typer.Option(metavar="PATH", help="convert_hf_to_gguf.py of llama.cpp.")
    ] = None,
    quantize: Annotated[
        str, typer.Option(metavar="LEVELS", help="Such as q8_0,q4_k_m; beside the 16-bit file.")
    ] = "",
    quantize_bin: Annotated[
        Path | None, typer.Option(metavar="PATH", help="llama-quantize of llama.cpp.")
    ] = None,
    no_compare: Annotated[
        bool, typer.Option("--no-compare", help="Do not compare what is merged for it.")
    ] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Write the model for llama.cpp and Ollama."""
    if not gguf:
        raise TrainError("export: which format? --gguf")
    found = _find(target, base)
    from clusterlm.weights.export import Export, Tools, export_gguf

    levels = [level for level in quantize.replace(" ", "").split(",") if level]
    tools = Tools.find(converter, quantize_bin, needs_quantize=bool(levels))
    job = None
    if found.adapter is not None:
        from clusterlm.train.after import merge_job

        job = merge_job(found, [], compares=not no_compare)
    asked = Export(found.name, found.model, found.tokenizer, found.revision, tuple(levels), job)
    written = export_gguf(asked, tools, output, say=_note)
    for path in written:
        typer.echo(path)
    typer.echo(f"next: ollama create {found.name} -f {written[-1]}")


def _find(text: str, base: str | None) -> Target:
    from clusterlm.train.target import find_target

    return find_target(text, base=base)


def _bytes_of(size: str) -> int:
    from clusterlm.spec.units import mebibytes_of

    try:
        return mebibytes_of(size) * 2**20
    except ValueError as error:
        raise TrainError(f"--max-shard-size: {error}") from None


def _note(text: str) -> None:
    # the standard output is for the answer alone
    print(text, file=sys.stderr, flush=True)


def _run_merge(job: MergeJob, output: Path, *, trust_remote_code: bool) -> None:
    from dataclasses import replace

    from clusterlm.train.loaded import quiet_libraries
    from clusterlm.weights.merge import merge

    quiet_libraries()
    trusted = job.trust_remote_code or trust_remote_code
    merged = merge(replace(job, trust_remote_code=trusted), output, say=_note)
    if merged.comparison is None:
        _note("NOT COMPARED: nobody has seen that the merged model says what base and adapter say")
    else:
        typer.echo(merged.comparison.words())
    if merged.is_untied:
        typer.echo("input and output embedding differ now: tie_word_embeddings is false")
    if merged.rows is not None:
        typer.echo(f"the embedding has {merged.rows} rows now")
    typer.echo(f"{merged.num_changed} tensors changed; model in {merged.folder}")
    typer.echo(f"next: clusterlm chat {output}")


def _data_folder(found: Target, data: str | None) -> Path:
    from clusterlm.train.target import data_folder

    if data is not None:
        from clusterlm.cli.prepared import find_prepared

        return find_prepared(data, []).root
    folder = data_folder(found.run) if found.run else None
    if folder is None:
        raise TrainError(
            f"{found.words}: no prepared data is known for it; --data job.yaml, a run or a folder"
        )
    return folder
