"""The commands of those who compare: `mfd compare`, `mfd report`, `mfd data show`.

Rules of this file: flags and their help only; what a command needs is imported where it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfd.cli.errors import Misuse

__all__ = ["add_commands"]

data_app = typer.Typer(no_args_is_help=True, help="Look at data by address.")
Folder = Annotated[Path, typer.Option(help="Where runs lie.", file_okay=False)]


def add_commands(app: typer.Typer) -> None:
    """Let `mfd` know these commands."""
    app.command()(compare)
    app.command()(report)
    app.add_typer(data_app, name="data")


def _partition(partition: str, skew: float | None) -> str:
    """One way to deal out, told by either flag. Raises: Misuse where both are given."""
    if partition and skew is not None:
        raise Misuse(f"--skew {skew:g} and --partition {partition} deal out the data: give one")
    return partition if skew is None else f"skew={skew:g}"


Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A field of plans or option of learning, as epochs=2, for those that do not say.",
    ),
]


Rate = Annotated[
    float, typer.Option(help="Device model: so many samples a node of speed 1 trains a second.")
]
Flops = Annotated[
    float, typer.Option(help="Device model by work instead: FLOP/s of a node of speed 1.")
]
Laps = Annotated[
    int | None,
    typer.Option(help="How often every holder is visited, where a plan does not say."),
]
Data = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Dealt out to the holders, as sklearn:digits.")
]

Pretrained = Annotated[
    Path | None,
    typer.Option("--hf", help="Model of Hugging Face with its values, instead: its folder."),
]
Residents = Annotated[
    list[str] | None,
    typer.Option(
        help="For modes distill and alone: the model that lives at each holder; several times: in "
        "turn."
    ),
]
Public = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="Samples that all holders have, labels unused; `part`: one part more of the data.",
    ),
]


def compare(
    plans: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LABEL=]PLAN",
            help="Plan files, or modes as snake:laps=4,epochs=2; centralised, local and alone need "
            "no network.",
        ),
    ] = None,
    data: Data = "",
    test: Annotated[str, typer.Option(help="Held-out data; default: the data's split=test.")] = "",
    topology: Annotated[str, typer.Option(help="Graph file, or KIND:NODES.")] = "ring:5",
    partition: Annotated[
        str, typer.Option(help="skew=0.3, shard=2, quantity=0.5 or by=role; default: evenly.")
    ] = "",
    skew: Annotated[float | None, typer.Option(help="The same as --partition skew=...")] = None,
    recipe: Annotated[str, typer.Option(help="Model, as cnn:width=8; sizes of data fill in.")] = "",
    hf: Pretrained = None,
    head: Annotated[str | None, typer.Option(help="Of --hf: causal, sequence or image.")] = None,
    resident: Residents = None,
    public: Public = "",
    laps: Laps = None,
    sets: Sets = None,
    seed: Annotated[str, typer.Option(help="1,2,3 or 1-3: of split, model, batches.")] = "1",
    samples_per_s: Rate = 1_000.0,
    flops: Flops = 0.0,
    name: Annotated[str, typer.Option(help="Of this comparison; the same again goes on.")] = "",
    folder: Folder = Path("runs"),
    config: Annotated[
        Path | None, typer.Option(help="compare.json of an earlier one, to run it again.")
    ] = None,
    allow_py: Annotated[
        bool, typer.Option("--allow-py", help="Run the code that --config names as data.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Run plans on one network, data and seeds, with real training, and report."""
    from mfd.cli import comparing, contest

    order = comparing.Order(
        plans=plans or [],
        data=data,
        test=test,
        topology=topology,
        partition=_partition(partition, skew),
        recipe=recipe,
        hf=hf,
        head=head,
        residents=resident or [],
        public=public,
        laps=laps,
        sets=sets or [],
        seeds=comparing.parse_seeds(seed),
        samples_per_s=samples_per_s,
        flops=flops,
    )
    with contest.opened(order, folder, name, config, allow_py=allow_py) as study:
        contest.run(study, jobs=jobs, as_json=as_json)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a comparison, as runs/NAME.")],
) -> None:
    """Write the report of a comparison anew from its metrics."""
    from mfd.cli import comparing, reporting

    print(reporting.write(comparing.open_study(run)))


@data_app.command("show")
def data_show(
    address: Annotated[str, typer.Argument(help="As for --hold of a peer.")],
    parts: Annotated[int, typer.Option(min=1, max=1_000, help="Dealt out to so many.")] = 1,
    partition: Annotated[
        str, typer.Option(help="skew=0.3, shard=2, quantity=0.5 or by=role; default: evenly.")
    ] = "",
    skew: Annotated[float | None, typer.Option(help="The same as --partition skew=...")] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write a picture: .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what each part of a data set gets."""
    from mfd.cli import shares

    shares.show(
        address,
        parts,
        partition=_partition(partition, skew),
        seed=seed,
        out=out,
        as_json=as_json,
    )
