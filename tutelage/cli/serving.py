"""The command that serves a network to whoever asks over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.cli.flags import ServeOptions
from tutelage.cli.parser import Found, parse
from tutelage.cli.words import leading
from tutelage.data.resolve import resolve_data
from tutelage.errors import UserError, notice
from tutelage.models.blueprint import blueprint, check_classes
from tutelage.models.loading import load_network
from tutelage.models.saving import metadata_beside
from tutelage.models.server import Served, application, not_installed
from tutelage.models.spec import NetworkSpec
from tutelage.system.devices import device_type

_HERE = ("127.0.0.1", "localhost", "::1")


def serve(words: Sequence[str]) -> None:
    """Serve a network over HTTP, by the Open Inference Protocol.

    Triton, MLServer, KServe and OpenVINO Model Server speak it too, so a client asks all of them alike. Without a
    trained network at hand, another machine can learn from this one's answers.

    Examples:
        tutelage serve runs/teacher
        tutelage serve resnet20@weights.safetensors --data cifar10 --answers probabilities --port 9000
        tutelage distill kd --teacher http://127.0.0.1:8000/v2/models/network --student resnet8 --data cifar10 --augment none
    """  # noqa: E501
    names = list(leading(words))
    found = parse(serve, words[len(names) :], ServeOptions, after="NETWORK")
    if len(names) != 1:
        raise UserError("Name one network: tutelage serve runs/teacher.")
    served = _served(names[0], found)
    app = application(served)
    try:
        import uvicorn
    except ImportError as error:
        raise not_installed() from error
    # Its own messages would come between ours: one line for each question.
    config = uvicorn.Config(app, host=found.host, port=found.port, log_level="warning", access_log=False)
    if found.host not in _HERE:
        notice(f"The server listens at {found.host}, where others may reach it, and asks nobody who they are.")
    try:
        listening = config.bind_socket()
    except SystemExit as error:
        raise UserError(
            f"Port {found.port} of {found.host} cannot be used: choose another, --port 0 for any."
        ) from error
    # From here on questions wait instead of being refused, and the address may be told.
    listening.listen()
    port = listening.getsockname()[1]
    print(f"serving  http://{found.host}:{port}/v2/models/{served.name}  (Ctrl-C stops)", flush=True)
    uvicorn.Server(config).run(sockets=[listening])


def _served(network: str, found: Found) -> Served:
    spec = NetworkSpec.parse(network)
    own = metadata_beside(spec.weights or spec.target) if spec.weights or spec.kind == "run" else None
    device = device_type(found.device)
    told: dict[str, Any] = {
        "name": found.name,
        "answers": found.answers,
        "batch_size": found.batch_size,
        "device": device,
    }
    if found.data is not None:
        data = resolve_data(found.data)
        plan = blueprint(spec, data, trained=True, trust_code=found.trust_code)
        if not plan.trained:
            raise UserError(f"{network} comes without weights for these classes. Name a run, or add @FILE.")
        built = plan.build(0, "network")
        check_classes(built, data, who="network")
        shape: dict[str, Any] = {"classes": data.num_classes, "channels": data.in_channels, "size": data.image_size}
        return Served(network=built.to(device).eval(), **shape, **told)
    if own is None or not own.in_channels:
        raise UserError(
            f"{network} does not say what images and classes it has: name data of that kind, --data cifar10."
        )
    loaded = load_network(spec, num_classes=own.num_classes, in_channels=own.in_channels, trust_code=found.trust_code)
    shape = {"classes": own.num_classes, "channels": own.in_channels, "size": own.input_size or ()}
    return Served(network=loaded.to(device).eval(), **shape, **told)
