"""`mfd`: send models into a network, watch them, get them back.

Rules of this file: flags and their help only, so that `mfd --help` is fast; what a command needs is
imported where it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mfd.cli.errors import EXIT_CODES, guarded
from mfd.cli.packetverbs import packet_app
from mfd.cli.studies import add_commands
from mfd.cli.version import Version

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=EXIT_CODES,
    help="Model Follows Data: models travel the network to the data, and learn at every stop.",
)
topology_app = typer.Typer(no_args_is_help=True, help="Read, check and make network graphs.")
app.add_typer(packet_app, name="packet")
app.add_typer(topology_app, name="topology")
add_commands(app)


@app.callback()
def _any(version: Version = False) -> None:
    pass


Api = Annotated[
    str | None,
    typer.Option(envvar="MFD_API", metavar="URL", help="Status address of a peer."),
]
Token = Annotated[
    Path | None,
    typer.Option(envvar="MFD_API_TOKEN_FILE", help="File with the API token of the peer."),
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
Hf = Annotated[
    Path | None,
    typer.Option("--hf", help="Model of Hugging Face instead: a config.json or its folder."),
]
Head = Annotated[
    str | None,
    typer.Option(help="Of a model of Hugging Face: causal, sequence, token or image."),
]
Labels = Annotated[int | None, typer.Option(min=1, help="How many classes its classifier has.")]
Lora = Annotated[
    str | None, typer.Option(help="Adapters learn alone: r=8,alpha=16,targets=c_attn+c_proj.")
]
Verify = Annotated[
    list[str] | None, typer.Option(help="Data name whose holders measure after each lap.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another field of the plan, or option of learning: choose=labels, epochs=5. A wrong "
        "name is answered with the nearest.",
    ),
]
Walkers = Annotated[
    int | None, typer.Option(help="So many walkers at once; they merge where they meet.")
]
Recipe = Annotated[
    str | None,
    typer.Argument(
        help="Which model, as cnn:inputs=1x8x8,classes=10; or a plan file. Not with --hf."
    ),
]
SaveTo = Annotated[
    Path | None,
    typer.Option(help="Save the model that came home: .safetensors, .mfd; with --hf a folder too."),
]
Walker = Annotated[str, typer.Argument(help="Id of a walker, or its beginning.")]


@app.command()
def send(
    *,
    recipe: Recipe = None,
    plan: Annotated[Path | None, typer.Option(help="Plan file (TOML).")] = None,
    mode: Annotated[
        str | None, typer.Option(help="snake, walk, fedavg, gossip or distill.")
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(help="Data name whose holders are visited; digits means digits/... too."),
    ] = None,
    verify: Verify = None,
    laps: Annotated[int | None, typer.Option(help="How often every holder is visited.")] = None,
    sets: Sets = None,
    hf: Hf = None,
    head: Head = None,
    labels: Labels = None,
    lora: Lora = None,
    init: Annotated[
        Path | None,
        typer.Option(help="First tensors (.safetensors); with --hf also the word random."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of initial values and training.")] = None,
    walkers: Walkers = None,
    follow: Annotated[bool, typer.Option(help="Show every hop until the model is home.")] = True,
    out: SaveTo = None,
    key: Annotated[Path | None, typer.Option(help="Your key; default ~/.config/mfd/key.")] = None,
    api: Api = None,
    token_file: Token = None,
) -> None:
    """Send a model to the data."""
    from mfd.cli import travel
    from mfd.cli.models import hf_order

    travel.send(
        travel.Order(
            recipe=recipe,
            plan=plan,
            over={
                "mode": mode,
                "names": names,
                "verify": verify,
                "laps": laps,
                "seed": seed,
                "walkers": walkers,
            },
            sets=sets or [],
            init=init,
            key=key,
            hf=hf_order(hf, head, labels, lora),
        ),
        api,
        token_file,
        follow=follow,
        out=out,
    )


@app.command()
def get(
    walker: Walker,
    out: Annotated[Path, typer.Option(help="To write: .safetensors, .mfd, or a folder for --hf.")],
    api: Api = None,
    token_file: Token = None,
) -> None:
    """Save the newest version of a model that a peer holds."""
    from mfd.cli import travel
    from mfd.cli.client import Client

    travel.get(Client(api, token_file), walker, out)


@app.command()
def trace(
    walker: Walker,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until it is home.")] = False,
    out: Annotated[Path | None, typer.Option(help="With --follow: save the model.")] = None,
    as_json: Json = False,
    api: Api = None,
    token_file: Token = None,
) -> None:
    """Show a walker's hops, and why each was chosen."""
    from mfd.cli import travel
    from mfd.cli.client import Client

    travel.trace(Client(api, token_file), walker, follow=follow, out=out, as_json=as_json)


@app.command()
def status(as_json: Json = False, api: Api = None, token_file: Token = None) -> None:
    """Show a peer: who it is, its walkers, its data."""
    from mfd.cli import reading
    from mfd.cli.client import Client

    reading.status(Client(api, token_file), as_json=as_json)


@app.command()
def peers(
    everybody: Annotated[
        bool, typer.Option("--all", help="Ask peer after peer: who is there, in how many islands.")
    ] = False,
    as_json: Json = False,
    api: Api = None,
    token_file: Token = None,
) -> None:
    """Show a peer's links, whom else it knows, and why neighbours were dropped."""
    from mfd.cli import reading
    from mfd.cli.client import Client

    show = reading.everybody if everybody else reading.peers
    show(Client(api, token_file), as_json=as_json)


@app.command()
def routes(as_json: Json = False, api: Api = None, token_file: Token = None) -> None:
    """Show which holders of data a peer knows, and the way to each."""
    from mfd.cli import reading
    from mfd.cli.client import Client

    reading.routes(Client(api, token_file), as_json=as_json)


@app.command()
def token(
    peer: Annotated[str, typer.Argument(help="Id of the peer that is admitted.")],
    network: Annotated[str, typer.Option(help="Name of the network.")] = "mfd",
    serial: Annotated[int, typer.Option(min=0, max=0xFFFF_FFFF, help="Which one of it.")] = 1,
    key: Annotated[Path | None, typer.Option(help="Your key; default ~/.config/mfd/key.")] = None,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Its tokens up to this serial are void.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Admit a peer to a network whose settings name you as an issuer, or expel it."""
    from mfd.cli import tokens

    sign = tokens.withdraw if revoke else tokens.token
    sign(peer, network, serial, key, as_json=as_json)


@app.command()
def layers(
    model: Annotated[
        str,
        typer.Argument(
            help="A recipe as cnn:inputs=1x8x8,classes=10; a plan file; a folder or config.json of "
            "Hugging Face; a file, .safetensors or .mfd; py:MODULE:FUNCTION."
        ),
    ],
    *,
    head: Head = None,
    labels: Labels = None,
    lora: Lora = None,
    allow_py: Annotated[bool, typer.Option("--allow-py", help="Run the function of py:.")] = False,
    as_json: Json = False,
) -> None:
    """Show the layers into which a model is cut."""
    from mfd.cli import reading
    from mfd.cli.models import hf_order, module_of

    found = module_of(model, hf_order(Path(model), head, labels, lora), allow_py=allow_py)
    reading.layers(found, as_json=as_json)


@app.command()
def scale(
    file: Annotated[Path, typer.Argument(help="The full model: .mfd, or .safetensors.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="File: .mfd or .safetensors.")],
    width: Annotated[str, typer.Option(help="Part of all channels or heads, as 0.5.")] = "1",
    depth: Annotated[str, typer.Option(help="Part of the blocks, as 0.5, or how many.")] = "0",
    bits: Annotated[
        int,
        typer.Option(
            help="Round weights to what 16, 8 or 4 bits can say; 0: as they are. A .mfd file and "
            "links carry fewer bytes; in memory and in .safetensors a weight is as large as before."
        ),
    ] = 0,
    recipe: Annotated[
        str | None, typer.Option(help="Which model, where the file does not carry its plan.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a smaller version of a model: its first channels, its first blocks, coarser weights."""
    from mfd.cli import scales

    scales.scale_file(
        file, out, width=width, depth=depth, bits=bits, recipe=recipe, as_json=as_json
    )


@app.command()
def up(
    graph: Annotated[Path, typer.Argument(help="Topology: any graph file that mfd reads.")],
    emulate: Annotated[
        bool, typer.Option("--emulate", help="Links as slow and lossy as the file says.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="States and logs; default ./mfd-up/NAME.", file_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a whole network on this machine, a process a node, until Ctrl-C."""
    from mfd.cli import up as running

    running.up(graph, emulate=emulate, folder=folder, as_json=as_json)


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def demo(ctx: typer.Context) -> None:
    """Show a model travelling and learning on this machine."""
    from mfd.cli.demo import demo as show

    shown = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    shown.command()(show)
    shown(args=ctx.args, prog_name="mfd demo")


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def sim(ctx: typer.Context) -> None:
    """Run peers in an invented world with faults, and check that nothing breaks."""
    from mfd.cli.simulating import simulate

    simulate(ctx.args)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="Written by mfd sim --trace.")], as_json: Json = False
) -> None:
    """Run a trace again and say whether it is the same, or where it parts."""
    from mfd.cli import traces

    traces.replay(file, as_json=as_json)


Graph = Annotated[
    Path, typer.Argument(help="TOML, GraphML, GML, GEXF, node-link JSON, DOT or edge list.")
]


@topology_app.command("show")
def topology_show(
    file: Graph,
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="Write a picture instead: .svg, .png or .pdf.")
    ] = None,
) -> None:
    """Draw a graph, and list its nodes and links."""
    from mfd.cli import graphs

    graphs.show(file, as_json=as_json, out=out)


@topology_app.command("check")
def topology_check(
    file: Graph,
    addresses: Annotated[bool, typer.Option(help="Check addresses too.")] = True,
    as_json: Json = False,
) -> None:
    """Say what is wrong with a graph; exit code 1 if anything is."""
    from mfd.cli import graphs

    graphs.check(file, addresses=addresses, as_json=as_json)


@topology_app.command("make")
def topology_make(
    kind: Annotated[
        str,
        typer.Argument(
            help="line, ring, star, tree, grid, clique, barbell, small-world, scale-free, geometric"
        ),
    ],
    nodes: Annotated[int, typer.Argument(help="How many.")],
    out: Annotated[Path, typer.Option(help="File to write; its ending tells the format.")],
    seed: Annotated[int, typer.Option(help="For the random kinds.")] = 0,
    port: Annotated[int, typer.Option(help="First of the ports on 127.0.0.1; 0: none.")] = 47611,
    hold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ADDRESS",
            help="Data for the holders; {i} and {n} in the address deal it out in parts, without "
            "them the last holder gets it.",
        ),
    ] = None,
    holders: Annotated[int, typer.Option(help="How many nodes hold data; 0: all.")] = 0,
) -> None:
    """Make a graph."""
    from mfd.cli import graphs

    graphs.make_file(kind, nodes, out, seed=seed, port=port, hold=hold or [], holders=holders)


def main(argv: list[str] | None = None) -> int:
    """Run `mfd`; return its exit code."""
    return guarded("mfd", lambda: app(args=argv, prog_name="mfd"))


if __name__ == "__main__":
    sys.exit(main())
