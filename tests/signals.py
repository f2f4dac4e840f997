"""Ctrl-C in child processes of tests."""

import signal


def listen_to_ctrl_c() -> None:
    """Undo what a shell does to jobs in the background; for ``preexec_fn``."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
