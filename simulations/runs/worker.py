"""A process that plays takes, one after another, until it is told of no more.

Started by :mod:`simulations.runs.workers` only: takes come on standard input, what became
of them goes to standard output, in MessagePack.
"""

import os
import signal
import sys
from multiprocessing.connection import Connection

import msgspec

from simulations.runs.messages import ENCODER, Ended, Progressed
from simulations.runs.takes import Take, play_take


def main() -> None:
    """Play what comes."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the parent's, while it started this
    takes = Connection(os.dup(0), writable=False)
    told = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # what anybody prints must not get between the messages
    sys.stdin.close()

    def progress(done_s: float, all_s: float) -> None:
        try:
            told.send_bytes(ENCODER.encode(Progressed(done_s, all_s)))
        except BrokenPipeError:
            os._exit(1)  # nobody waits for it any more

    while True:
        try:
            frame = takes.recv_bytes()
        except EOFError:
            return
        outcome = play_take(msgspec.msgpack.decode(frame, type=Take), progress)
        told.send_bytes(ENCODER.encode(Ended(outcome)))


if __name__ == "__main__":
    main()
