"""From ``conf/play.yaml`` to a page that is served."""

import errno
import ipaddress
import logging
import os
import socket
import tempfile
from contextlib import closing
from typing import Any

from omegaconf import DictConfig

from src.errors import UserError
from src.playground.choices import playground_from_config

log = logging.getLogger(__name__)

INSTALL = "pip install --editable '.[play]' --constraint constraints.txt"

#: Seconds that open connections have to end after Ctrl-C.
GRACE = 1

#: Gradio tells its makers of every launch, and asks them for the newest version, unless told not to.
SILENCE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


def play(config: DictConfig) -> None:
    """Serve the page until Ctrl-C.

    Args:
        config: ``conf/play.yaml`` with the command line's changes.

    Raises:
        UserError: Gradio is missing, the address cannot be had, a value is no good, or there is no classifier.
    """
    with tempfile.TemporaryDirectory(prefix="play-") as folder:  # where Gradio keeps what visitors send
        os.environ.update(SILENCE | {"GRADIO_TEMP_DIR": folder})
        page = _page_module()
        with closing(listen(config.host, config.port)) as listener:
            playground = playground_from_config(config)
            names = (" ".join(sentence.partition(":")[0].split()[:2]) for sentence in playground.left_out)
            if listed_once := ", ".join(dict.fromkeys(names)):
                log.info("left out: %s; the page says why", listed_once)
            _serve(page.application(playground), listener)


def _page_module() -> Any:
    """The one module that imports Gradio."""
    try:
        from src.playground import page as play_page
    except ImportError as error:
        raise UserError(f"the playground needs the package gradio ({error}): {INSTALL}") from error
    return play_page


def listen(host: Any, port: Any) -> socket.socket:
    """A socket that listens on an address.

    Raises:
        UserError: the port is in use or forbidden, or this machine has no such address.
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise UserError(f"port={port} is not a port: 1 to 65535, or 0 for any that is free")
    try:
        kind, _, _, _, address = socket.getaddrinfo(str(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        return socket.create_server(address[:2], family=kind)
    except OSError as error:
        reason = error.strerror or error
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port={port} is in use; choose another one, or port=0 for any that is free") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UserError(f"port={port} may not be used ({reason}); choose one above 1023") from error
        raise UserError(
            f"host={host} is no address of this machine ({reason}): 127.0.0.1 for itself alone, 0.0.0.0 for others, too"
        ) from error


def _serve(application: Any, listener: socket.socket) -> None:
    import uvicorn

    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    host_text = f"[{host}]" if address.version == 6 else host
    log.info("playing at http://%s:%d (Ctrl-C ends it)", "127.0.0.1" if host == "0.0.0.0" else host_text, port)
    if not address.is_loopback:
        log.warning("whoever can reach %s:%d can play, too: there is no password", host_text, port)
    logging.getLogger("uvicorn.error").addFilter(is_no_farewell)
    settings = uvicorn.Config(application, log_config=None, log_level="warning", timeout_graceful_shutdown=GRACE)
    uvicorn.Server(settings).run(sockets=[listener])


def is_no_farewell(record: logging.LogRecord) -> bool:
    """False for the traceback of a visitor who left while being answered, which is no error of anybody's."""
    error_type = record.exc_info[0] if record.exc_info else None
    return error_type is None or error_type.__name__ not in ("ClientDisconnect", "CancelledError")
